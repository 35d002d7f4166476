//! What the kernel says of a process: CPU time and resident memory, from `/proc` (proc(5)).

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// Length of a tick: Linux' `USER_HZ` is 100 wherever it runs, whatever the kernel's own timer does.
const TICK_MILLIS: u64 = 10;

/// A process that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    pub(crate) pid: u32,
}

/// Resident memory, in bytes. Pages of files and shared ones can be had back by the kernel; anonymous ones are the process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) total: u64,
    pub(crate) anonymous: u64,
    pub(crate) file: u64,
    pub(crate) shared: u64,
}

impl Process {
    /// CPU time of all its threads so far, ended ones too, in user and kernel mode.
    pub(crate) fn cpu(self) -> Result<Duration> {
        let text = self.read("stat")?;
        let ticks = parse_ticks(&text).with_context(|| format!("/proc/{}/stat reads {text:?}", self.pid))?;
        Ok(Duration::from_millis(ticks * TICK_MILLIS))
    }

    /// What of its memory is in RAM.
    pub(crate) fn resident(self) -> Result<Resident> {
        let text = self.read("status")?;
        parse_resident(&text).with_context(|| format!("/proc/{}/status names no resident memory", self.pid))
    }

    /// How often one of its living threads gave up its core to wait for something.
    pub(crate) fn switches(self) -> Result<u64> {
        let folder = format!("/proc/{}/task", self.pid);
        let tasks =
            fs::read_dir(&folder).with_context(|| format!("cannot read {folder}: does the server still run?"))?;
        // A thread may end while this reads.
        let texts = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
        Ok(texts.filter_map(|text| parse_switches(&text)).sum())
    }

    fn read(self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}: does the server still run?"))
    }
}

/// This machine's cores, divided: one for a server that is to have no more, the others for this program. Undone when it is
/// dropped.
#[derive(Debug)]
pub(crate) struct OneCore {
    all: CpuSet,
    others: CpuSet,
    one: CpuSet,
}

impl OneCore {
    /// Divides the cores, where there are two: a client on the server's core would measure itself.
    pub(crate) fn divide() -> Result<Self> {
        let all = sched_getaffinity(None).context("cannot read which cores this program may use")?;
        ensure!(all.count() > 1, "a server on a core of its own needs a machine of two");
        let last = (0..CpuSet::MAX_CPU).rev().find(|core| all.is_set(*core)).context("no cores")?;
        let (mut others, mut one) = (all, CpuSet::new());
        others.unset(last);
        one.set(last);
        keep_to(&others)?;
        Ok(Self { all, others, one })
    }

    /// Does what starts the server: a process is on the cores of the thread that starts it.
    pub(crate) fn start<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        let choose = |cores| sched_setaffinity(None, cores).context("cannot choose a core");
        choose(&self.one)?;
        let started = start();
        choose(&self.others)?;
        started
    }
}

impl Drop for OneCore {
    fn drop(&mut self) {
        if let Err(error) = keep_to(&self.all) {
            eprintln!("this program stays on some of its cores: {error:#}");
        }
    }
}

/// Keeps all threads of this program to these cores.
fn keep_to(cores: &CpuSet) -> Result<()> {
    for task in fs::read_dir("/proc/self/task").context("cannot read /proc/self/task")?.flatten() {
        let number = task.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // A thread may end meanwhile.
        let _ = number.map(|thread| sched_setaffinity(Some(thread), cores));
    }
    Ok(())
}

/// CPU time of this program so far.
pub(crate) fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The 14th and 15th field of `stat`. The second is the program's name in brackets, which may hold anything.
fn parse_ticks(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn parse_resident(text: &str) -> Option<Resident> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(Resident {
        total: bytes("VmRSS")?,
        anonymous: bytes("RssAnon")?,
        file: bytes("RssFile")?,
        shared: bytes("RssShmem")?,
    })
}

fn parse_switches(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(parse_ticks(text), expect);
        check("12 (coracle) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20", Some(200));
        check("12 (a) b ) c) S 1 2 3 4 5 6 7 8 9 10 1 2 0", Some(3));
        check("12 (coracle) S 1 2 3", None);
        check("", None);
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        let text = "Name:\tx\nVmRSS:\t   40 kB\nRssAnon:\t   10 kB\nRssFile:\t   29 kB\nRssShmem:\t    1 kB\n";
        let expect = Resident { total: 40 * 1024, anonymous: 10 * 1024, file: 29 * 1024, shared: 1024 };
        assert_eq!(parse_resident(text), Some(expect));
        assert_eq!(parse_resident("VmRSS:\t1 kB\n"), None);
    }

    #[test]
    fn switches_are_the_voluntary_ones() {
        assert_eq!(parse_switches("voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n"), Some(12));
        assert_eq!(parse_switches("nonvoluntary_ctxt_switches:\t3\n"), None);
    }

    #[test]
    fn this_process_has_both() {
        let own = Process { pid: std::process::id() };
        assert!(own.resident().unwrap().total > 0);
        own.cpu().unwrap();
        assert!(own_cpu() > Duration::ZERO);
    }
}
