//! What the API server counts, in Prometheus' text format, and the limits on requests and watches that are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coracle_api::ApiError;
use coracle_api::kind::Kind;
use coracle_store::Store;
use http::{Method, StatusCode};
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::ApiServer;
use crate::request::{ResourcePath, Verb};

/// The most requests under way at once, reads and writes apart (`--max-requests-inflight`, `--max-mutating-requests-inflight`).
const MAX_READS: usize = 400;
const MAX_WRITES: usize = 2000;
/// The most watches: each costs a few kilobytes.
const MAX_WATCHES: usize = 50_000;

/// What a request turned out to be, for its counters. It holds words of the table of kinds only: what a client wrote in
/// a path is never a label, or anyone could fill the memory with them.
#[derive(Debug, Default)]
pub(crate) struct Seen(Option<RequestLabels>);

impl Seen {
    /// A request for a kind that is served, once that is known.
    pub(crate) fn set(&mut self, verb: Verb, kind: &'static Kind, path: &ResourcePath) {
        let known = kind.info.subresources.iter().map(|s| s.as_str()).find(|known| *known == path.subresource);
        let scope = match verb {
            _ if !path.name.is_empty() || verb == Verb::Create => "resource",
            _ if !path.namespace.is_empty() => "namespace",
            _ => "cluster",
        };
        self.0 = Some(RequestLabels {
            verb: word(verb),
            group: kind.group,
            version: kind.version,
            resource: kind.info.plural,
            subresource: known.unwrap_or_default(),
            scope,
            component: COMPONENT,
            code: 0,
        });
    }

    fn labels(&self, method: &Method, code: u16) -> RequestLabels {
        let other = || RequestLabels {
            verb: match *method {
                Method::GET | Method::HEAD => "GET",
                Method::POST => "POST",
                Method::PUT => "PUT",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                _ => "OTHER",
            },
            component: COMPONENT,
            ..RequestLabels::default()
        };
        RequestLabels { code, ..self.0.clone().unwrap_or_else(other) }
    }
}

/// What Kubernetes' dashboards tell its programs apart by.
const COMPONENT: &str = "apiserver";

/// A verb as `apiserver_request_total` has it: methods, but for reads of many.
fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
        Verb::Options => "OPTIONS",
    }
}

/// The labels of `apiserver_request_total`. An empty label is one that is not there.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    scope: &'static str,
    component: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
}

/// Counters of one server.
pub(crate) struct Metrics {
    registry: Registry,
    /// What other parts of this process count.
    others: RwLock<Vec<Arc<Registry>>>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<DurationLabels, Histogram>,
    reads: Arc<AtomicUsize>,
    writes: Arc<AtomicUsize>,
    watches: Arc<AtomicUsize>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register("apiserver_request", "Requests by verb, resource and HTTP code", requests.clone());
        const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 5.0];
        let durations = Family::<DurationLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from the head of a request to the head of its answer",
            durations.clone(),
        );
        let others = RwLock::default();
        Self {
            registry,
            others,
            requests,
            durations,
            reads: Arc::default(),
            writes: Arc::default(),
            watches: Arc::default(),
        }
    }
}

/// One request under way; it is no longer when this is dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One watch under way.
pub(crate) type WatchGuard = InFlight;

impl Metrics {
    /// Counts a request in, or refuses it.
    pub(crate) fn in_flight(&self, verb: Verb) -> Result<InFlight, ApiError> {
        match verb {
            Verb::Get | Verb::List => enter(&self.reads, MAX_READS),
            _ => enter(&self.writes, MAX_WRITES),
        }
    }

    /// Counts a watch in, or refuses it.
    pub(crate) fn watch(&self) -> Result<WatchGuard, ApiError> {
        enter(&self.watches, MAX_WATCHES)
    }

    /// Counts an answered request.
    pub(crate) fn observe(&self, method: &Method, seen: &Seen, status: StatusCode, took: Duration) {
        let labels = seen.labels(method, status.as_u16());
        self.requests.get_or_create(&labels).inc();
        let verb = labels.verb;
        if verb != "WATCH" {
            self.durations.get_or_create(&DurationLabels { verb }).observe(took.as_secs_f64());
        }
    }

    /// The page of `/metrics`.
    pub(crate) fn page(&self, store: &Arc<dyn Store>) -> Result<String, ApiError> {
        let mut text = String::new();
        encode(&mut text, &self.registry).map_err(|e| ApiError::internal(e.to_string()))?;
        // The end mark belongs behind the last of all.
        cut_end(&mut text);
        for other in self.others.read().iter() {
            encode(&mut text, other).map_err(|e| ApiError::internal(e.to_string()))?;
            cut_end(&mut text);
        }
        let mut live = Registry::default();
        let mut gauge = |name: &str, help: &str, value: i64| {
            live.register(name, help, ConstGauge::new(value));
        };
        let count = |n: &AtomicUsize| i64::try_from(n.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        gauge("apiserver_current_inflight_reads", "Reads under way", count(&self.reads));
        gauge("apiserver_current_inflight_writes", "Writes under way", count(&self.writes));
        gauge("apiserver_registered_watchers", "Watches under way", count(&self.watches));
        gauge("coracle_store_revision", "The latest revision", i64::try_from(store.revision().0).unwrap_or(i64::MAX));
        gauge("process_resident_memory_bytes", "Resident memory size in bytes", resident_bytes());
        let stats = store.stats().snapshot();
        let mut counter = |name: &str, help: &str, value: u64| live.register(name, help, ConstCounter::new(value));
        counter("coracle_store_transactions", "Transactions that were acknowledged", stats.transactions);
        counter("coracle_store_commits", "Transactions on disk, each one fsync", stats.batches);
        counter("coracle_store_rows", "Rows written to disk", stats.durable_rows);
        encode(&mut text, &live).map_err(|e| ApiError::internal(e.to_string()))?;
        Ok(text)
    }
}

impl ApiServer {
    /// Shows what another part of this process counts on `/metrics`, behind the server's own.
    pub fn add_metrics(&self, registry: Arc<Registry>) {
        self.metrics.others.write().push(registry);
    }
}

fn cut_end(page: &mut String) {
    let end = page.trim_end().trim_end_matches("# EOF").len();
    page.truncate(end);
}

fn enter(count: &Arc<AtomicUsize>, limit: usize) -> Result<InFlight, ApiError> {
    let entered = InFlight(Arc::clone(count));
    if count.fetch_add(1, Ordering::Relaxed) >= limit {
        return Err(ApiError::too_many_requests("Too many requests, please try again later.", 1));
    }
    Ok(entered)
}

/// Of this process, from the kernel; 0 where it does not say.
fn resident_bytes() -> i64 {
    const PAGE_BYTES: i64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|s| s.split_whitespace().nth(1).and_then(|n| n.parse::<i64>().ok()));
    pages.unwrap_or(0) * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use coracle_store::{Options, SqliteStore};

    use super::*;

    #[test]
    fn the_page_shows_what_others_count_and_ends_once() {
        let metrics = Metrics::default();
        let mut theirs = Registry::default();
        let adds = Counter::<u64>::default();
        theirs.register("workqueue_adds", "Adds", adds.clone());
        adds.inc();
        metrics.others.write().push(Arc::new(theirs));
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory(Options::default()).unwrap());
        let page = metrics.page(&store).unwrap();
        assert!(page.contains("\nworkqueue_adds_total 1\n"), "{page}");
        assert_eq!(page.matches("# EOF").count(), 1, "{page}");
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
}
