//! What the manager counts, under the names that Kubernetes' controller manager and scheduler use. The server that shows
//! metrics is handed the registry.

use std::sync::Arc;
use std::time::Duration;

use coracle_controllers::CONTROLLERS;
use coracle_scheduler::queue::QueueLengths;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueName {
    name: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PendingQueue {
    queue: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Attempt {
    result: &'static str,
}

/// The metrics of one manager. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    controllers: Arc<[ControllerMetrics]>,
    pub(crate) scheduler: SchedulerMetrics,
    pub(crate) panics: Counter,
}

/// What one controller's queue shows.
#[derive(Clone, Debug)]
pub(crate) struct ControllerMetrics {
    pub(crate) depth: Gauge,
    pub(crate) adds: Counter,
    pub(crate) retries: Counter,
    pub(crate) work_duration: Histogram,
}

/// What the scheduler shows.
#[derive(Clone, Debug)]
pub(crate) struct SchedulerMetrics {
    active: Gauge,
    backoff: Gauge,
    unschedulable: Gauge,
    gated: Gauge,
    pub(crate) scheduled: Counter,
    pub(crate) unschedulable_attempts: Counter,
    pub(crate) errors: Counter,
    pub(crate) preemptions: Counter,
    pub(crate) algorithm_duration: Histogram,
}

/// From a tenth of a millisecond to about seven seconds, as work here is quicker than over a network.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 9))
}

impl Metrics {
    /// What to show.
    #[must_use]
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// The metrics of a controller, by its number in the table.
    pub(crate) fn controller(&self, number: usize) -> &ControllerMetrics {
        &self.controllers[number]
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let controllers = controllers(&mut registry);
        let scheduler = SchedulerMetrics::new(&mut registry);
        let panics = Counter::default();
        registry.register("coracle_manager_panics", "Runs that ended in a panic and were tried again", panics.clone());
        Self { registry: Arc::new(registry), controllers, scheduler, panics }
    }
}

fn controllers(registry: &mut Registry) -> Arc<[ControllerMetrics]> {
    let depth = Family::<QueueName, Gauge>::default();
    registry.register("workqueue_depth", "Current depth of workqueue", depth.clone());
    let adds = Family::<QueueName, Counter>::default();
    registry.register("workqueue_adds", "Total number of adds handled by workqueue", adds.clone());
    let retries = Family::<QueueName, Counter>::default();
    registry.register("workqueue_retries", "Total number of retries handled by workqueue", retries.clone());
    let work = Family::<QueueName, Histogram>::new_with_constructor(durations);
    let help = "How long in seconds processing an item from workqueue takes";
    registry.register_with_unit("workqueue_work_duration", help, Unit::Seconds, work.clone());
    let of = |name: &'static str| {
        let labels = QueueName { name };
        ControllerMetrics {
            depth: depth.get_or_create(&labels).clone(),
            adds: adds.get_or_create(&labels).clone(),
            retries: retries.get_or_create(&labels).clone(),
            work_duration: work.get_or_create(&labels).clone(),
        }
    };
    CONTROLLERS.iter().map(|controller| of(controller.name)).collect()
}

impl SchedulerMetrics {
    fn new(registry: &mut Registry) -> Self {
        let pending = Family::<PendingQueue, Gauge>::default();
        let help = "Number of pending pods, by the queue type";
        registry.register("scheduler_pending_pods", help, pending.clone());
        let attempts = Family::<Attempt, Counter>::default();
        let help = "Number of attempts to schedule pods, by the result";
        registry.register("scheduler_schedule_attempts", help, attempts.clone());
        let preemptions = Counter::default();
        let help = "Total preemption attempts in the cluster till now";
        registry.register("scheduler_preemption_attempts", help, preemptions.clone());
        let algorithm_duration = durations();
        let help = "Scheduling algorithm latency in seconds";
        registry.register_with_unit(
            "scheduler_scheduling_algorithm_duration",
            help,
            Unit::Seconds,
            algorithm_duration.clone(),
        );
        let queue = |queue| pending.get_or_create(&PendingQueue { queue }).clone();
        let attempt = |result| attempts.get_or_create(&Attempt { result }).clone();
        Self {
            active: queue("active"),
            backoff: queue("backoff"),
            unschedulable: queue("unschedulable"),
            gated: queue("gated"),
            scheduled: attempt("scheduled"),
            unschedulable_attempts: attempt("unschedulable"),
            errors: attempt("error"),
            preemptions,
            algorithm_duration,
        }
    }

    /// Notes how many pods wait, and for what.
    pub(crate) fn pending(&self, lengths: QueueLengths) {
        let set = |gauge: &Gauge, count: usize| {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        set(&self.active, lengths.active);
        set(&self.backoff, lengths.backoff);
        set(&self.unschedulable, lengths.unschedulable);
        set(&self.gated, lengths.gated);
    }
}

impl ControllerMetrics {
    /// A run has ended.
    pub(crate) fn worked(&self, took: Duration) {
        self.work_duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        let metrics = Metrics::default();
        metrics.controller(0).adds.inc();
        metrics.scheduler.pending(QueueLengths { active: 3, ..QueueLengths::default() });
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, metrics.registry()).unwrap();
        for line in [
            "workqueue_adds_total{name=\"replicaset-controller\"} 1",
            "workqueue_depth{name=\"deployment-controller\"} 0",
            "workqueue_retries_total{name=\"namespace-controller\"} 0",
            "workqueue_work_duration_seconds_count{name=\"endpoint-slice-controller\"} 0",
            "scheduler_pending_pods{queue=\"active\"} 3",
            "scheduler_schedule_attempts_total{result=\"scheduled\"} 0",
            "scheduler_preemption_attempts_total 0",
            "scheduler_scheduling_algorithm_duration_seconds_count 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
