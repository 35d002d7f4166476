//! What this machine is: cores, memory, disk, kernel, names, addresses. Read from the system, never decided upon.

mod usage;

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
};

use coracle_agent_core::workload::DnsSpec;

pub(crate) use self::usage::{LinkCounters, MachineUse, ProcessUse, default_link, links, machine_use, process_use};
use crate::conditions::{Readings, Share};

/// Facts of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) address: IpAddr,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
    pub(crate) machine_id: String,
    pub(crate) boot_id: String,
}

impl Machine {
    pub(crate) fn read(data_dir: &Path, address: Option<IpAddr>) -> Self {
        let os = pairs(&text("/etc/os-release"), '=');
        let memory = pairs(&text("/proc/meminfo"), ':');
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory.get("MemTotal").map_or(0, |value| kib(value)),
            disk_bytes: disk(data_dir).map_or(0, |(total, _)| total),
            address: address.unwrap_or_else(default_address),
            kernel: text("/proc/sys/kernel/osrelease"),
            os_image: os.get("PRETTY_NAME").cloned().unwrap_or_else(|| "Linux".to_owned()),
            machine_id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
        }
    }

    /// `amd64`, `arm64`: as Kubernetes names processors.
    pub(crate) fn architecture() -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        }
    }
}

/// Bytes of a file system: all, and free for ordinary use.
pub(crate) fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// What the machine says of itself now; `data_dir` is on the disk that counts.
pub(crate) fn readings(data_dir: &Path, network_problem: Option<String>) -> Readings {
    let stat = rustix::fs::statvfs(data_dir).ok();
    let stat = stat.as_ref();
    Readings {
        memory: memory(),
        disk: stat.map(|stat| Share { total: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize }),
        inodes: stat.map(|stat| Share { total: stat.f_files, free: stat.f_favail }),
        processes: processes().map(|(running, total)| Share { total, free: total.saturating_sub(running) }),
        network_problem,
        agent_problem: None,
    }
}

/// Threads of the machine, and how many it can have.
pub(crate) fn processes() -> Option<(u64, u64)> {
    let most = |path: &str| text(path).parse::<u64>().ok();
    let total = [most("/proc/sys/kernel/pid_max"), most("/proc/sys/kernel/threads-max")].into_iter().flatten().min()?;
    // The fourth word is `runnable/all`.
    let load = text("/proc/loadavg");
    let running = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((running, total))
}

/// Lets this process have as many open files as its hard limit allows: each container, probe and log holds some.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
}

/// The machine's memory, and what of it can be had without swapping.
pub(crate) fn memory() -> Option<Share> {
    let read = pairs(&text("/proc/meminfo"), ':');
    Some(Share { total: kib(read.get("MemTotal")?), free: kib(read.get("MemAvailable")?) })
}

/// The machine's own resolvers.
pub(crate) fn host_dns() -> DnsSpec {
    let mut dns = DnsSpec::default();
    for line in text("/etc/resolv.conf").lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.nameservers.extend(words.filter_map(|word| word.parse::<IpAddr>().ok())),
            Some("search") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

/// The address this machine would use to reach the world. Nothing is sent to find out.
pub(crate) fn default_address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9)))?;
        socket.local_addr()
    };
    probe().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

pub(crate) fn pairs(text: &str, separator: char) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        line.split_once(separator)
            .map(|(key, value)| (key.trim().to_owned(), value.trim().trim_matches('"').to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

pub(crate) fn kib(value: &str) -> u64 {
    value.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}
