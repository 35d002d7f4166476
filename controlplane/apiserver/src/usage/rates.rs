//! From two readings of counters to what was used between them. No I/O and no clock is here.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::exposition::{Containers, Reading, Scrape};

/// The shortest time that an average says something about.
pub(crate) const SHORTEST_WINDOW: Duration = Duration::from_millis(500);

/// What something uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Billionths of a core, averaged over the window.
    pub cpu_nano_cores: u64,
    /// The working set at the window's end.
    pub memory_bytes: u64,
}

/// The time that figures are of, by the clock of the node they come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// When it ended.
    pub end: Timestamp,
    /// How long it was.
    pub window: Duration,
}

impl Span {
    /// The shortest that has both in it.
    fn with(self, other: Self) -> Self {
        let begin = |span: Self| span.end.as_nanosecond() - span.window.as_nanos().cast_signed();
        let end = self.end.max(other.end);
        let nanoseconds = end.as_nanosecond() - begin(self).min(begin(other));
        Self { end, window: Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default()) }
    }
}

/// What a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFigures {
    /// The time within which all containers were measured.
    pub span: Span,
    /// Every running container by name.
    pub containers: BTreeMap<Box<str>, Use>,
}

/// What a node and its pods use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// The whole node; `None` if it does not say.
    pub node: Option<(Span, Use)>,
    /// By `NAMESPACE/NAME`. A pod of which one container cannot be told yet is missing, as in metrics-server.
    pods: HashMap<Box<str>, PodFigures>,
}

impl Figures {
    /// What a pod on the node uses; `None` if nothing of it runs, or not for long enough.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&PodFigures> {
        self.pods.get(format!("{namespace}/{name}").as_str())
    }
}

/// What was used between two answers of a node. A container that began in between is counted from its start, so that one
/// which has just come is known as soon as the others.
pub(crate) fn between(base: &Scrape, last: &Scrape) -> Figures {
    let node = last.node.and_then(|last| usage(base.node?, last));
    let since = base.node.map(|node| node.at);
    let none = Containers::new();
    let pods = last.pods.iter().filter_map(|(pod, containers)| {
        let known = base.pods.get(pod).unwrap_or(&none);
        Some((pod.clone(), pod_figures(known, containers, since)?))
    });
    Figures { node, pods: pods.collect() }
}

fn pod_figures(base: &Containers, last: &Containers, since: Option<Timestamp>) -> Option<PodFigures> {
    let mut whole: Option<Span> = None;
    let mut containers = BTreeMap::new();
    for (name, last) in last {
        let (span, used) = usage(beginning(base.get(name), last, since)?, *last)?;
        whole = Some(whole.map_or(span, |whole| whole.with(span)));
        containers.insert(name.clone(), used);
    }
    Some(PodFigures { span: whole?, containers })
}

/// What a container's reading is compared with: the one before of the same run, else the run's start.
fn beginning(base: Option<&Reading>, last: &Reading, since: Option<Timestamp>) -> Option<Reading> {
    let start = |at| Reading { at, cpu_nanoseconds: 0, ..*last };
    let Some(base) = base else {
        // One that ran already when the node last answered was only not told of then: its whole life is no window.
        return last.started.filter(|started| since.is_none_or(|since| *started > since)).map(start);
    };
    match last.started {
        Some(started) if started > base.at => Some(start(started)),
        // A counter that went back is another run's, whose start is not told yet.
        Some(_) => Some(*base).filter(|base| base.cpu_nanoseconds <= last.cpu_nanoseconds),
        None => Some(*base).filter(|base| base.started.is_none() && base.cpu_nanoseconds <= last.cpu_nanoseconds),
    }
}

/// `None` if there is too little time between them, or if they are not of the same counter.
fn usage(base: Reading, last: Reading) -> Option<(Span, Use)> {
    let window = Duration::try_from(last.at.duration_since(base.at)).ok()?;
    if window < SHORTEST_WINDOW {
        return None;
    }
    let nanoseconds = last.cpu_nanoseconds.checked_sub(base.cpu_nanoseconds)?;
    let rate = u128::from(nanoseconds) * 1_000_000_000 / window.as_nanos();
    let used = Use { cpu_nano_cores: u64::try_from(rate).ok()?, memory_bytes: last.memory_bytes };
    Some((Span { end: last.at, window }, used))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::from_nanosecond((seconds * 1e9) as i128).unwrap()
    }

    /// A reading at a second, of so many seconds of CPU time.
    fn reading(second: f64, cpu: f64, started: Option<f64>) -> Reading {
        Reading { at: at(second), cpu_nanoseconds: (cpu * 1e9) as u64, memory_bytes: 100, started: started.map(at) }
    }

    fn scrape(node: Option<Reading>, containers: &[(&str, &str, Reading)]) -> Scrape {
        let mut scrape = Scrape { node, ..Scrape::default() };
        for (pod, container, reading) in containers {
            scrape.pods.entry((*pod).into()).or_default().insert((*container).into(), *reading);
        }
        scrape
    }

    /// Whether the pod `n/p` is told to use so much (thousandths of a core by container), over so many seconds.
    fn check(base: &[(&str, Reading)], last: &[(&str, Reading)], expect: Option<(&[(&str, u64)], f64)>) {
        let of = |list: &[(&str, Reading)]| -> Scrape {
            scrape(None, &list.iter().map(|(name, reading)| ("n/p", *name, *reading)).collect::<Vec<_>>())
        };
        let figures = between(&of(base), &of(last));
        let found = figures.pod("n", "p").map(|pod| {
            let milli = |used: &Use| used.cpu_nano_cores / 1_000_000;
            let containers: Vec<(&str, u64)> =
                pod.containers.iter().map(|(name, used)| (name.as_ref(), milli(used))).collect();
            (containers, pod.span.window.as_secs_f64())
        });
        assert_eq!(found, expect.map(|(containers, window)| (containers.to_vec(), window)), "{base:?} {last:?}");
    }

    #[test]
    fn a_rate_is_over_the_time_between() {
        let run = Some(1.0);
        let (first, second) = (reading(100.0, 50.0, run), reading(110.0, 55.0, run));
        check(&[("c", first)], &[("c", second)], Some((&[("c", 500)], 10.0)));
        check(&[("c", first)], &[("c", reading(100.2, 50.1, run))], None);
        check(&[("c", first)], &[("c", reading(90.0, 55.0, run))], None);
        check(&[("c", first)], &[], None);
        check(&[("c", reading(100.0, 50.0, None))], &[("c", reading(110.0, 55.0, None))], Some((&[("c", 500)], 10.0)));
    }

    #[test]
    fn a_container_that_began_in_between_is_counted_from_its_start() {
        let known = ("a", reading(100.0, 50.0, Some(1.0)));
        let later = ("a", reading(110.0, 51.0, Some(1.0)));
        let fresh = ("b", reading(110.0, 1.0, Some(106.0)));
        check(&[known], &[later, fresh], Some((&[("a", 100), ("b", 250)], 10.0)));
        check(&[], &[fresh], Some((&[("b", 250)], 4.0)));
        // Another run: its counter may even be ahead of the one before.
        check(&[("b", reading(100.0, 0.5, Some(90.0)))], &[fresh], Some((&[("b", 250)], 4.0)));
        check(&[("b", reading(100.0, 9.0, Some(90.0)))], &[fresh], Some((&[("b", 250)], 4.0)));
        // Too young, or nobody says since when.
        check(&[known], &[later, ("b", reading(110.0, 1.0, Some(109.9)))], None);
        check(&[known], &[later, ("b", reading(110.0, 1.0, None))], None);
        check(&[("a", reading(100.0, 9.0, None))], &[("a", reading(110.0, 1.0, None))], None);
        // It went back while nobody has said yet that it began anew.
        check(&[("a", reading(100.0, 9.0, Some(90.0)))], &[("a", reading(110.0, 1.0, Some(90.0)))], None);
        check(&[("a", reading(100.0, 0.0, Some(90.0)))], &[("a", reading(110.0, 1.0, None))], None);
    }

    #[test]
    fn a_pod_s_window_has_those_of_all_containers_in_it() {
        let base = [("a", reading(100.0, 0.0, Some(1.0))), ("b", reading(101.0, 0.0, Some(1.0)))];
        let last = [("a", reading(110.0, 1.0, Some(1.0))), ("b", reading(112.0, 1.1, Some(1.0)))];
        check(&base, &last, Some((&[("a", 100), ("b", 100)], 12.0)));
    }

    #[test]
    fn a_node_is_told_beside_its_pods() {
        let (one, other) = (scrape(Some(reading(1.0, 5.0, None)), &[]), scrape(Some(reading(3.0, 8.0, None)), &[]));
        let expect = Use { cpu_nano_cores: 1_500_000_000, memory_bytes: 100 };
        let (span, used) = between(&one, &other).node.unwrap();
        assert_eq!((span, used), (Span { end: at(3.0), window: Duration::from_secs(2) }, expect));
        // A container that the first answer was silent about is not counted from long before it.
        let old = scrape(Some(reading(3.0, 8.0, None)), &[("n/p", "c", reading(3.0, 1.0, Some(0.5)))]);
        let young = scrape(Some(reading(3.0, 8.0, None)), &[("n/p", "c", reading(3.0, 1.0, Some(1.5)))]);
        assert_eq!(between(&one, &old).pod("n", "p"), None);
        assert!(between(&one, &young).pod("n", "p").is_some());
        assert_eq!(between(&scrape(None, &[]), &other).node, None);
        assert_eq!(between(&other, &one).node, None);
    }

    proptest! {
        #[test]
        fn what_is_told_was_used_within_the_window(
            base in prop::option::of((0.0..200.0, 0.0..50.0, prop::option::of(0.0..200.0))),
            last in (0.0..200.0, 0.0..50.0, prop::option::of(0.0..200.0)),
        ) {
            let of = |(second, cpu, started): (f64, f64, Option<f64>)| reading(second, cpu, started);
            let (base, last) = (base.map(of), of(last));
            let list: Vec<_> = base.iter().map(|base| ("n/p", "c", *base)).collect();
            let figures = between(&scrape(None, &list), &scrape(None, &[("n/p", "c", last)]));
            if let Some(pod) = figures.pod("n", "p") {
                let span = pod.span;
                prop_assert!(span.end == last.at && span.window >= SHORTEST_WINDOW);
                let used = u128::from(pod.containers["c"].cpu_nano_cores) * span.window.as_nanos() / 1_000_000_000;
                prop_assert!(used <= u128::from(last.cpu_nanoseconds));
                let begin = span.end.as_nanosecond() - span.window.as_nanos().cast_signed();
                let known = [base.map(|base| base.at), last.started];
                prop_assert!(known.into_iter().flatten().any(|known| known.as_nanosecond() == begin));
            }
        }
    }
}
