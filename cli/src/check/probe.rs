//! Looks at the machine, one function per thing. Nothing is changed and nothing is left behind.

use std::{
    env, fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use coracle_engine::EngineOptions;
use coracle_node::Registries;

use super::{Finding, Weight};
use crate::server::REGISTRIES;

/// Free memory below which a cluster with a few pods is in trouble.
const LEAST_MEMORY_BYTES: u64 = 128 * 1024 * 1024;
/// Fewer Wasm instances than this are fewer than a node's pods may need.
const FEW_INSTANCES: u32 = 2048;
/// Free disk below which images and the store are in trouble.
const LEAST_DISK_BYTES: u64 = 512 * 1024 * 1024;

pub(super) fn all(data_dir: &Path, port: u16, cri: &Path) -> Vec<Finding> {
    vec![
        user(),
        data(data_dir),
        disk(data_dir),
        memory(),
        instances(EngineOptions::default()),
        ports(data_dir, port),
        cgroups(),
        nft(),
        tun(),
        containers(cri),
        registries(data_dir),
    ]
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn user() -> Finding {
    if is_root() {
        return Finding::fine("user", "root");
    }
    Finding::missing(
        "user",
        format!("uid {}", rustix::process::geteuid().as_raw()),
        "as this user only Wasm pods run, on loopback addresses; Services have no virtual IPs, NodePorts work",
        "sudo coracle server",
    )
}

/// The first folder upwards that exists.
fn existing(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

fn data(data_dir: &Path) -> Finding {
    let shown = data_dir.display();
    if data_dir.exists() && !data_dir.is_dir() {
        return Finding::missing(
            "data directory",
            format!("{shown} is a file"),
            "nothing can be kept",
            format!("mv {shown} {shown}.old"),
        )
        .blocking();
    }
    let folder = existing(data_dir);
    match rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => Finding::fine("data directory", shown.to_string()),
        Err(error) => Finding::missing(
            "data directory",
            format!("{} cannot be written: {error}", folder.display()),
            "nothing can be kept",
            format!("sudo install -d -o $(id -u) {shown}, or choose another with --data-dir"),
        )
        .blocking(),
    }
}

fn disk(data_dir: &Path) -> Finding {
    let folder = existing(data_dir);
    match rustix::fs::statvfs(&folder) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let detail = format!("{} free in {}", indicatif::HumanBytes(free), folder.display());
            if free >= LEAST_DISK_BYTES {
                return Finding::fine("disk", detail);
            }
            let command = format!(
                "free some, or choose another disk with --data-dir (du -xh --max-depth=2 {})",
                folder.display()
            );
            Finding::missing("disk", detail, "images and objects may not fit", command)
        }
        Err(error) => Finding::missing(
            "disk",
            error.to_string(),
            "free space cannot be told",
            format!("df -h {}", folder.display()),
        ),
    }
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match available.map(|kib| kib * 1024) {
        Some(bytes) if bytes < LEAST_MEMORY_BYTES => Finding::missing(
            "memory",
            format!("{} available", indicatif::HumanBytes(bytes)),
            "pods may be ended for want of memory",
            "end what uses it (ps --sort=-rss -eo rss,comm | head)",
        ),
        Some(bytes) => Finding::fine("memory", format!("{} available", indicatif::HumanBytes(bytes))),
        None => Finding::missing(
            "memory",
            "/proc/meminfo cannot be read",
            "capacity cannot be told",
            "mount -t proc proc /proc",
        ),
    }
}

/// How many Wasm instances fit in the areas of memory that the system lets a process have.
fn instances(options: EngineOptions) -> Finding {
    let most = options.max_memories;
    let detail =
        format!("room for {most} Wasm instances at once, {} more of WASI 0.3", options.max_concurrent_memories);
    if options.is_full() {
        return Finding::fine("instances", detail);
    }
    let found = Finding::missing(
        "instances",
        detail,
        "more instances than that wait or fail: the bound is vm.max_map_count",
        "sysctl -w vm.max_map_count=262144 (in /etc/sysctl.d to keep it)",
    );
    // What it has is enough for a node's usual number of pods, several times over.
    if most >= FEW_INSTANCES { Finding { weight: Weight::Fine, ..found } } else { found }
}

fn ports(data_dir: &Path, port: u16) -> Finding {
    let address = (Ipv4Addr::UNSPECIFIED, port);
    let tried = TcpListener::bind(address).map(drop).and_then(|()| UdpSocket::bind(address).map(drop));
    match tried {
        Ok(()) => Finding::fine("port", format!("{port} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse && data_dir.join("kubeconfig").exists() => Finding::fine(
            "port",
            format!("{port} is in use, and {} holds a cluster: it may be running", data_dir.display()),
        ),
        Err(error) => Finding::missing(
            "port",
            format!("{port}: {error}"),
            "the API cannot listen there",
            format!("ss -ltnup 'sport = :{port}' shows who does; or choose another with --port"),
        )
        .blocking(),
    }
}

fn cgroups() -> Finding {
    let Ok(controllers) = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") else {
        if ["cpu", "memory", "pids"].iter().all(|name| Path::new("/sys/fs/cgroup").join(name).is_dir()) {
            return Finding::fine("cgroups", "version 1 with cpu, memory, pids");
        }
        return Finding::missing(
            "cgroups",
            "no unified hierarchy (version 2)",
            "limits of OCI containers cannot be kept; those of Wasm pods can",
            "boot with systemd.unified_cgroup_hierarchy=1",
        );
    };
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|name| !controllers.split_whitespace().any(|has| has == *name))
        .collect();
    if missing.is_empty() {
        return Finding::fine("cgroups", "version 2 with cpu, memory, pids");
    }
    Finding::missing(
        "cgroups",
        format!("version 2 without {}", missing.join(", ")),
        "limits of OCI containers cannot be kept; those of Wasm pods can",
        "boot with cgroup_enable=memory (on a Raspberry Pi: in /boot/firmware/cmdline.txt)",
    )
}

/// A program in the path.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn nft() -> Finding {
    match program("nft") {
        Some(path) => Finding::fine("nftables", path.display().to_string()),
        None => Finding::missing(
            "nftables",
            "no nft program",
            "Services have no virtual IPs; NodePorts work",
            install("nftables"),
        ),
    }
}

fn tun() -> Finding {
    let without = "pods of several nodes cannot reach each other; one node alone needs it not";
    match fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        Ok(_) => Finding::fine("TUN", "/dev/net/tun"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::missing("TUN", "/dev/net/tun: permission denied", without, "sudo coracle server")
        }
        Err(error) => Finding::missing("TUN", format!("/dev/net/tun: {error}"), without, "modprobe tun"),
    }
}

fn containers(socket: &Path) -> Finding {
    let shown = socket.display();
    match UnixStream::connect(socket) {
        Ok(_) => runtime(&shown.to_string(), &fs::read_to_string(RUNTIME_CONFIG).unwrap_or_default(), &own_status()),
        Err(error) => {
            let without = "OCI containers do not run; Wasm pods do";
            let command = match error.kind() {
                ErrorKind::PermissionDenied => "sudo coracle server".to_owned(),
                ErrorKind::ConnectionRefused => "systemctl start containerd".to_owned(),
                _ => install("containerd"),
            };
            Finding::missing("containers", format!("{shown}: {error}"), without, command)
        }
    }
}

/// What is said of registries, which a server that cannot understand it does not start with.
fn registries(data_dir: &Path) -> Finding {
    let file = data_dir.join(REGISTRIES);
    if !file.exists() {
        return Finding::fine("registries", "each is reached at its own name");
    }
    match Registries::read(&file) {
        // Also images for containers: those that it speaks of go past the runtime, whose own configuration stays as it is.
        Ok(_) => Finding::fine("registries", format!("as {} says", file.display())),
        Err(error) => {
            let mend = "mend the file; its form is that of k3s (docs.k3s.io/installation/private-registry)";
            Finding::missing("registries", error.to_string(), "the server does not start", mend).blocking()
        }
    }
}

/// containerd's own configuration.
const RUNTIME_CONFIG: &str = "/etc/containerd/config.toml";
/// The bit of CAP_SYS_RESOURCE (capabilities(7)) among the effective capabilities.
const SYS_RESOURCE: u64 = 1 << 24;

fn own_status() -> String {
    fs::read_to_string("/proc/self/status").unwrap_or_default()
}

/// A runtime that listens: `config` is its configuration, `status` this process's `/proc/self/status`.
fn runtime(shown: &str, config: &str, status: &str) -> Finding {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let plain = |line: &str| line.split_whitespace().collect::<String>();
    let restricted = config.lines().any(|line| plain(line) == "restrict_oom_score_adj=true");
    if is_root() && !restricted && capabilities.is_some_and(|all| all & SYS_RESOURCE == 0) {
        // runc ends with "can't get final child's PID from pipe: EOF" when it may not lower its score.
        return Finding::missing(
            "containers",
            format!("a runtime listens at {shown}; this machine lacks CAP_SYS_RESOURCE, and so no sandbox would start"),
            "OCI containers do not run; Wasm pods do",
            format!(
                "set restrict_oom_score_adj = true in [plugins.\"io.containerd.grpc.v1.cri\"] of {RUNTIME_CONFIG}, then \
                 systemctl restart containerd"
            ),
        );
    }
    if program("runc").is_none() {
        let detail = format!("a runtime listens at {shown}, but there is no runc");
        return Finding::missing("containers", detail, "OCI containers do not run; Wasm pods do", install("runc"));
    }
    Finding::fine("containers", format!("a runtime listens at {shown}"))
}

/// The command that installs a package here.
fn install(package: &str) -> String {
    let sudo = if is_root() { "" } else { "sudo " };
    let managers =
        [("apt-get", "install -y"), ("dnf", "install -y"), ("zypper", "install -y"), ("pacman", "-S"), ("apk", "add")];
    let found = managers.into_iter().find(|(name, _)| program(name).is_some());
    match found {
        Some((manager, verb)) => format!("{sudo}{manager} {verb} {package}"),
        None => format!("install the package {package}"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::Weight;

    #[test]
    fn a_port_in_use_blocks_unless_the_cluster_is_here() {
        let taken = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(super::ports(folder.path(), port).weight, Weight::Blocking);
        std::fs::write(folder.path().join("kubeconfig"), "").expect("written");
        assert_eq!(super::ports(folder.path(), port).weight, Weight::Fine);
    }

    #[test]
    fn a_data_directory_may_be_new_but_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(super::data(&folder.path().join("a/b")).weight, Weight::Fine);
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert_eq!(super::data(&file).weight, Weight::Blocking);
    }

    #[test]
    fn a_runtime_that_could_make_no_sandbox_is_told_of() {
        let weight = |config: &str, status: &str| super::runtime("x.sock", config, status).weight;
        if super::is_root() {
            let (without, with) = ("CapEff:\t000001fffeffffff\n", "CapEff:\t000001ffffffffff\n");
            assert_eq!(weight("", without), Weight::Missing);
            let found = super::runtime("x.sock", "", without).mend.map(|(_, command)| command).unwrap_or_default();
            assert!(found.contains("restrict_oom_score_adj = true"), "{found}");
            assert_eq!(weight("  restrict_oom_score_adj = true\n", without), weight("", with));
        }
    }

    #[test]
    fn what_bounds_instances_is_told_with_what_lifts_it() {
        let check = |count: u32| super::instances(coracle_engine::EngineOptions::with_memories(count));
        assert_eq!((check(128).weight, check(10_051).weight), (Weight::Missing, Weight::Fine));
        for count in [128, 10_051] {
            assert!(check(count).mend.is_some_and(|(_, command)| command.contains("vm.max_map_count")));
        }
        assert_eq!(check(u32::MAX).mend, None);
    }

    #[test]
    fn a_broken_file_of_registries_is_told_of() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(super::registries(folder.path()).weight, Weight::Fine);
        let file = folder.path().join("registries.yaml");
        std::fs::write(&file, "mirrors: {a.io: {endpoint: [https://b.io]}}").expect("written");
        assert_eq!(super::registries(folder.path()).weight, Weight::Fine);
        std::fs::write(&file, "mirrors:\n  a.io: {endpoints: [https://b.io]}").expect("written");
        let found = super::registries(folder.path());
        assert_eq!(found.weight, Weight::Blocking);
        assert!(found.detail.contains("registries.yaml:2: ") && found.detail.contains("endpoints"), "{}", found.detail);
    }

    #[test]
    fn a_missing_runtime_is_no_obstacle() {
        let folder = tempfile::tempdir().expect("a folder");
        let finding = super::containers(&folder.path().join("none.sock"));
        assert_eq!(finding.weight, Weight::Missing);
        assert!(finding.mend.is_some());
    }
}
