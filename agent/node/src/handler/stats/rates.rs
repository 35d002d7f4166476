//! Counters of CPU time become rates. Pure: readings are given.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The key of the whole node.
pub(super) const NODE: &str = "node";
/// The key of this process.
pub(super) const AGENT: &str = "agent";
/// A rate over less time than this says little: the one before is told again.
const SHORTEST_SPAN: Duration = Duration::from_millis(500);
/// A reading from before this says nothing of the present.
const LONGEST_SPAN: Duration = Duration::from_secs(60);

/// The key of a container.
pub(super) fn of_container(uid: &str, name: &str) -> String {
    format!("{uid}/{name}")
}

/// A reading of a counter.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    pub(super) key: String,
    pub(super) at: Instant,
    pub(super) nanoseconds: u64,
    /// When it was zero, if that is known.
    pub(super) started: Option<Instant>,
}

/// The last readings of all counters.
#[derive(Debug, Default)]
pub(super) struct Rates {
    known: HashMap<String, Rate>,
    read_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rate {
    at: Instant,
    nanoseconds: u64,
    /// Nanoseconds of CPU per second over the span before.
    nano_cores: Option<u64>,
}

impl Rates {
    /// Whether the last readings are too old for a rate, or there are none.
    fn are_old(&self, now: Instant) -> bool {
        self.read_at.is_none_or(|at| now.duration_since(at) > LONGEST_SPAN)
    }

    /// Takes in the readings of all counters that there are.
    pub(super) fn add(&mut self, counters: Vec<Counter>, now: Instant) {
        if self.are_old(now) {
            self.known.clear();
        }
        self.read_at = Some(now);
        let mut known = HashMap::with_capacity(counters.len());
        for counter in counters {
            let rate = next(self.known.get(&counter.key).copied(), &counter);
            known.insert(counter.key, rate);
        }
        // What is not read any more is gone.
        self.known = known;
    }

    /// Billionths of a core; `None` if too little is known.
    pub(super) fn nano_cores(&self, key: &str) -> Option<u64> {
        self.known.get(key)?.nano_cores
    }
}

fn next(known: Option<Rate>, counter: &Counter) -> Rate {
    let Counter { at, nanoseconds, started, .. } = *counter;
    let base = match (known, started) {
        // Somebody else's question was later, and is answered already.
        (Some(rate), _) if at < rate.at => return rate,
        // It began anew since then.
        (Some(rate), Some(started)) if started > rate.at => Some((started, 0)),
        // A counter that went back is another run's, whose start is not told yet.
        (Some(rate), _) if nanoseconds < rate.nanoseconds => None,
        (Some(rate), _) if at.saturating_duration_since(rate.at) < SHORTEST_SPAN => return rate,
        (Some(rate), _) => Some((rate.at, rate.nanoseconds)),
        // One that ran before anybody asked has used its time at some time, not now.
        (None, started) => {
            started.filter(|started| at.saturating_duration_since(*started) <= LONGEST_SPAN).map(|at| (at, 0))
        }
    };
    let rate = |(since, before): (Instant, u64)| {
        let span = at.saturating_duration_since(since);
        let nano_cores = u128::from(nanoseconds - before) * 1_000_000_000 / span.as_nanos().max(1);
        u64::try_from(nano_cores).ok().filter(|_| span >= SHORTEST_SPAN)
    };
    Rate { at, nanoseconds, nano_cores: base.and_then(rate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_two_readings_of_one_run() {
        let begin = Instant::now();
        let after = |seconds: f64| begin + Duration::from_secs_f64(seconds);
        let read = |rates: &mut Rates, second: f64, cpu: f64, started: Option<f64>| {
            let (at, nanoseconds) = (after(second), (cpu * 1e9) as u64);
            rates.add(vec![Counter { key: "c".into(), at, nanoseconds, started: started.map(after) }], at);
            rates.nano_cores("c").map(|nano_cores| nano_cores / 1_000_000)
        };
        let mut rates = Rates::default();
        assert!(rates.are_old(begin));
        assert_eq!(read(&mut rates, 100.0, 50.0, Some(0.0)), None, "it may have used them long ago");
        assert!(!rates.are_old(after(101.0)));
        assert_eq!(read(&mut rates, 104.0, 52.0, Some(0.0)), Some(500));
        assert_eq!(read(&mut rates, 104.1, 52.1, Some(0.0)), Some(500), "too soon to say something else");
        assert_eq!(read(&mut rates, 106.0, 0.5, Some(105.0)), Some(500), "a new run is counted from its start");
        assert_eq!(read(&mut rates, 108.0, 9.0, Some(107.8)), None, "too young");
        assert_eq!(read(&mut rates, 109.0, 1.0, Some(107.8)), None, "it went back, and nobody says since when");
        assert_eq!(read(&mut rates, 200.0, 2.0, None), None, "too long ago");
        assert_eq!(read(&mut rates, 202.0, 3.0, None), Some(500));
        assert_eq!(read(&mut rates, 201.0, 2.5, None), Some(500), "a later question was faster");
        rates.add(Vec::new(), after(203.0));
        assert_eq!(rates.nano_cores("c"), None, "it is gone");
    }
}
