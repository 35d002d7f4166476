//! A closed loop: each connection sends its next request when the last one is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use crate::{
    client::{Call, Connection, Endpoint},
    latency::Latencies,
};

/// When a loop ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After so many requests in all.
    Count(u64),
    /// With the first answer after so much time.
    Elapsed(Duration),
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Requests that were sent and answered: exactly the numbers from 0 up to this.
    pub(crate) done: u64,
    /// From the first request to the last answer.
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Latencies,
    /// Bytes of all answers' bodies.
    pub(crate) bytes: u64,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64()
    }
}

/// Connections that are open and warm, so that no handshake is part of a measurement.
pub(crate) struct Load {
    connections: Vec<Connection>,
}

impl Load {
    pub(crate) async fn connect(endpoint: &Endpoint, connections: usize) -> Result<Self> {
        ensure!(connections > 0, "a load needs a connection");
        let mut all = Vec::with_capacity(connections);
        for _ in 0..connections {
            all.push(endpoint.connect().await?);
        }
        Ok(Self { connections: all })
    }

    /// Sends what `make` gives for the numbers from 0 on. The first failure ends it.
    pub(crate) async fn run(
        &mut self,
        until: Until,
        make: impl Fn(u64) -> Call + Send + Sync + 'static,
    ) -> Result<Outcome> {
        let shared = Arc::new((make, AtomicU64::new(0)));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for mut connection in self.connections.drain(..) {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move {
                let mut latencies = Latencies::with_capacity(1 << 12);
                let mut bytes = 0;
                while let Some(number) = next(&shared.1, until, begun) {
                    let call = shared.0(number);
                    let sent = Instant::now();
                    bytes += connection.run(call).await? as u64;
                    latencies.record(sent.elapsed());
                }
                anyhow::Ok((connection, latencies, bytes))
            });
        }
        let (mut latencies, mut bytes) = (Latencies::default(), 0);
        while let Some(ended) = tasks.join_next().await {
            let (connection, own, length) = ended??;
            self.connections.push(connection);
            latencies.merge(own);
            bytes += length;
        }
        Ok(Outcome { done: latencies.len() as u64, elapsed: begun.elapsed(), latencies, bytes })
    }
}

/// The number of the next request, if there is to be one.
fn next(counter: &AtomicU64, until: Until, begun: Instant) -> Option<u64> {
    match until {
        Until::Count(count) => Some(counter.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count),
        Until::Elapsed(limit) if begun.elapsed() < limit => Some(counter.fetch_add(1, Ordering::Relaxed)),
        Until::Elapsed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_met_exactly() {
        let counter = AtomicU64::new(0);
        let given: Vec<_> = (0..5).map(|_| next(&counter, Until::Count(3), Instant::now())).collect();
        assert_eq!(given, [Some(0), Some(1), Some(2), None, None]);
    }

    #[test]
    fn a_time_ends() {
        let counter = AtomicU64::new(0);
        assert_eq!(next(&counter, Until::Elapsed(Duration::from_secs(60)), Instant::now()), Some(0));
        assert_eq!(next(&counter, Until::Elapsed(Duration::ZERO), Instant::now()), None);
    }
}
