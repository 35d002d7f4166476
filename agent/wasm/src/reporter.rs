//! Hands reports to the agent in order without ever waiting: what the bounded channel cannot take is kept aside, and its
//! number is bounded by the containers of the node, which have a few reports each under way.

use std::{collections::VecDeque, sync::Arc};

use coracle_agent_core::workload::Report;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::mpsc::{Sender, error::TrySendError},
};

/// Sends reports. Clones share it.
#[derive(Clone)]
pub(crate) struct Reporter {
    shared: Arc<Shared>,
}

struct Shared {
    channel: Sender<Report>,
    /// Reports that found the channel full; the first of them is waiting with the flusher.
    waiting: Mutex<Waiting>,
    runtime: Handle,
}

#[derive(Default)]
struct Waiting {
    reports: VecDeque<Report>,
    flushing: bool,
}

impl Reporter {
    pub(crate) fn new(channel: Sender<Report>, runtime: Handle) -> Self {
        Self { shared: Arc::new(Shared { channel, waiting: Mutex::default(), runtime }) }
    }

    /// Sends a report after all that were sent before.
    pub(crate) fn send(&self, report: Report) {
        let mut waiting = self.shared.waiting.lock();
        let report = if waiting.flushing {
            report
        } else {
            match self.shared.channel.try_send(report) {
                Ok(()) => return,
                Err(TrySendError::Full(report)) => report,
                // The agent is going down.
                Err(TrySendError::Closed(_)) => return,
            }
        };
        waiting.reports.push_back(report);
        if !waiting.flushing {
            waiting.flushing = true;
            self.shared.runtime.spawn(flush(self.shared.clone()));
        }
    }
}

async fn flush(shared: Arc<Shared>) {
    loop {
        let next = {
            let mut waiting = shared.waiting.lock();
            let next = waiting.reports.pop_front();
            waiting.flushing = next.is_some();
            next
        };
        let Some(report) = next else { return };
        if shared.channel.send(report).await.is_err() {
            shared.waiting.lock().reports.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_agent_core::workload::PodUid;

    use super::*;

    #[tokio::test]
    async fn a_full_channel_delays_reports_and_keeps_their_order() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        let reporter = Reporter::new(sender, Handle::current());
        let report = |number: usize| Report::SandboxRemoved { pod: PodUid::new(number.to_string()) };
        for number in 0..10 {
            reporter.send(report(number));
        }
        for number in 0..10 {
            assert_eq!(receiver.recv().await, Some(report(number)));
        }
        reporter.send(report(10));
        assert_eq!(receiver.recv().await, Some(report(10)));
    }
}
