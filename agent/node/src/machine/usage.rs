//! What the machine and this process use, from `/proc`. Numbers are as the kernel counts them.

use std::collections::HashMap;

use super::{kib, pairs, text};

/// Ticks of `/proc/stat` in a second: fixed in the kernel's interface.
const TICKS_PER_SECOND: u64 = 100;

/// What all processes of the machine use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MachineUse {
    pub(crate) cpu_nanoseconds: u64,
    pub(crate) memory_available_bytes: u64,
    pub(crate) memory_usage_bytes: u64,
    pub(crate) memory_working_set_bytes: u64,
    pub(crate) memory_rss_bytes: u64,
    pub(crate) page_faults: Option<u64>,
    pub(crate) major_page_faults: Option<u64>,
    pub(crate) swap_total_bytes: u64,
    pub(crate) swap_free_bytes: u64,
}

/// What this process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessUse {
    pub(crate) cpu_nanoseconds: u64,
    pub(crate) memory_rss_bytes: u64,
}

/// What went over a link since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkCounters {
    pub(crate) rx_bytes: u64,
    pub(crate) rx_errors: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_errors: u64,
}

impl LinkCounters {
    /// The same seen from the link's other end.
    pub(crate) fn turned(self) -> Self {
        Self { rx_bytes: self.tx_bytes, rx_errors: self.tx_errors, tx_bytes: self.rx_bytes, tx_errors: self.rx_errors }
    }
}

pub(crate) fn machine_use() -> MachineUse {
    let memory = pairs(&text("/proc/meminfo"), ':');
    let bytes = |name: &str| memory.get(name).map_or(0, |value| kib(value));
    let (total, free, available) = (bytes("MemTotal"), bytes("MemFree"), bytes("MemAvailable"));
    let events = pairs(&text("/proc/vmstat"), ' ');
    let count = |name: &str| events.get(name)?.parse().ok();
    MachineUse {
        cpu_nanoseconds: cpu_nanoseconds(&text("/proc/stat")),
        memory_available_bytes: available,
        memory_usage_bytes: total.saturating_sub(free),
        memory_working_set_bytes: total.saturating_sub(available),
        memory_rss_bytes: bytes("AnonPages"),
        page_faults: count("pgfault"),
        major_page_faults: count("pgmajfault"),
        swap_total_bytes: bytes("SwapTotal"),
        swap_free_bytes: bytes("SwapFree"),
    }
}

pub(crate) fn process_use() -> ProcessUse {
    let resident = pairs(&text("/proc/self/status"), ':').get("VmRSS").map_or(0, |value| kib(value));
    ProcessUse { cpu_nanoseconds: own_nanoseconds(&text("/proc/self/stat")), memory_rss_bytes: resident }
}

/// The links of this network by name.
pub(crate) fn links() -> HashMap<String, LinkCounters> {
    text("/proc/self/net/dev").lines().filter_map(link).collect()
}

/// The link of the default route.
pub(crate) fn default_link() -> Option<String> {
    text("/proc/self/net/route").lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (words.next()? == "00000000").then(|| name.to_owned())
    })
}

/// CPU time of all but idling and waiting, from the first line of `/proc/stat`.
fn cpu_nanoseconds(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in the first two already.
    let busy = [0, 1, 2, 5, 6, 7].into_iter().filter_map(|at| ticks.get(at)).sum::<u64>();
    busy * (1_000_000_000 / TICKS_PER_SECOND)
}

/// CPU time of a process with all its threads, from its `stat`. Its name, in brackets, may have any letters in it.
fn own_nanoseconds(stat: &str) -> u64 {
    let words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    // `utime` and `stime` are words 14 and 15, of which two are before the name's end.
    let ticks: u64 = words.skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    ticks * (1_000_000_000 / TICKS_PER_SECOND)
}

/// A line of `/proc/net/dev`: eight numbers of what was received, then of what was sent.
fn link(line: &str) -> Option<(String, LinkCounters)> {
    let (name, numbers) = line.split_once(':')?;
    let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let at = |index: usize| numbers.get(index).copied();
    let counters = LinkCounters { rx_bytes: at(0)?, rx_errors: at(2)?, tx_bytes: at(8)?, tx_errors: at(10)? };
    Some((name.trim().to_owned(), counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_not_used_time() {
        assert_eq!(cpu_nanoseconds("cpu  1 2 3 400 50 6 7 8 9 10\ncpu0 1"), 27 * 10_000_000);
    }

    #[test]
    fn a_process_may_have_an_odd_name() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194304 1000 0 5 0 30 12 0 0 20 0 9 0 1000";
        assert_eq!(own_nanoseconds(stat), 42 * 10_000_000);
        assert_eq!(own_nanoseconds(""), 0);
    }

    #[test]
    fn links_are_read() {
        let line = "  eth0: 100 2 3 0 0 0 0 0 200 4 5 0 0 0 0 0";
        let counters = LinkCounters { rx_bytes: 100, rx_errors: 3, tx_bytes: 200, tx_errors: 5 };
        assert_eq!(link(line), Some(("eth0".to_owned(), counters)));
        assert_eq!(link(" face |bytes    packets errs"), None);
        assert_eq!(link("eth0: 1 2"), None);
    }

    #[test]
    fn this_machine_is_read() {
        let machine = machine_use();
        assert!(machine.cpu_nanoseconds > 0 && machine.memory_working_set_bytes > 0, "{machine:?}");
        assert!(machine.page_faults.is_some_and(|faults| faults > 0), "{machine:?}");
        assert!(process_use().memory_rss_bytes > 100_000);
        assert!(links().contains_key("lo"));
    }
}
