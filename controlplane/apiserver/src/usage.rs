//! What nodes and their pods use, measured when somebody asks: the source of `metrics.k8s.io`. A node is asked once for all
//! who ask at the same time, and not again for a moment; while nobody asks, nothing happens.

mod exposition;
mod rates;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, Either, FutureExt as _, Shared, ready};
use futures::stream::{self, StreamExt as _};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::api::ApiServer;
use crate::nodes::NodeProxy;

use exposition::Scrape;
pub use rates::{Figures, PodFigures, Span, Use};

/// How long a node's figures are given to others who ask.
const FRESH: Duration = Duration::from_secs(5);
/// An earlier answer of a node that is older than this is no beginning for a window: what was used long ago says little.
const OLDEST_BASE: Duration = Duration::from_secs(60);
/// The window of the first figures of a node, for which two answers are waited for.
const FIRST_WINDOW: Duration = Duration::from_secs(1);
/// How long a node may take, the first window included.
const NODE_TIMEOUT: Duration = Duration::from_secs(6);
/// How long an asker waits for all nodes; what has not come by then is missing.
const ASK_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a node that did not answer is left alone.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// Nodes about which nobody has asked for so long are forgotten.
const FORGET: Duration = Duration::from_secs(300);
/// Nodes that are asked at the same time. More wait for these.
const MAX_NODES_AT_ONCE: usize = 256;
/// The largest answer of a node: ten thousand pods of three containers have half of it.
const MAX_SCRAPE_BYTES: usize = 32 * 1024 * 1024;

/// What came of asking a node.
type Outcome = Option<Arc<Figures>>;
/// A node that is being asked, for everybody who waits for it.
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// The figures of all nodes that were asked about lately.
#[derive(Default)]
pub(crate) struct Usage {
    nodes: Mutex<HashMap<String, Node>>,
}

/// One node.
struct Node {
    asked_at: Instant,
    measured: Option<Measured>,
    failed_at: Option<Instant>,
    flight: Option<Flight>,
}

/// The last answer of a node, and what came of it.
#[derive(Clone)]
struct Measured {
    /// When it came, by a clock that nobody sets.
    at: Instant,
    scrape: Arc<Scrape>,
    figures: Arc<Figures>,
}

impl Node {
    fn figures(&self, now: Instant, age: Duration) -> Outcome {
        let measured = self.measured.as_ref().filter(|measured| now.duration_since(measured.at) < age);
        measured.map(|measured| Arc::clone(&measured.figures))
    }
}

impl ApiServer {
    /// What these nodes and the pods on them use, by the node's name. One that cannot tell in time is missing, or has figures of
    /// up to a minute ago; figures carry their time. Whoever is in this process may ask as often as he likes.
    pub async fn usage_of(&self, nodes: impl IntoIterator<Item = String>) -> HashMap<String, Arc<Figures>> {
        let Some(proxy) = self.nodes.get() else { return HashMap::new() };
        let deadline = Instant::now() + ASK_TIMEOUT;
        self.usage.forget(Instant::now());
        let asked = nodes.into_iter().map(|node| {
            let figures = self.usage.ask(self, proxy, &node);
            figures.map(move |figures| (node, figures))
        });
        let mut answers = stream::iter(asked).buffer_unordered(MAX_NODES_AT_ONCE);
        let mut found = HashMap::new();
        while let Ok(Some((node, figures))) = timeout_at(deadline, answers.next()).await {
            found.extend(figures.map(|figures| (node, figures)));
        }
        found
    }
}

impl Usage {
    fn forget(&self, now: Instant) {
        self.nodes.lock().retain(|_, node| node.flight.is_some() || now.duration_since(node.asked_at) < FORGET);
    }

    /// A node's figures: those that are known, or those of a question that is under way, or of a new one.
    fn ask(
        self: &Arc<Self>,
        api: &ApiServer,
        proxy: &Arc<dyn NodeProxy>,
        name: &str,
    ) -> impl Future<Output = Outcome> + Send + use<> {
        let now = Instant::now();
        let mut nodes = self.nodes.lock();
        let node = nodes.entry(name.to_owned()).or_insert_with(|| Node {
            asked_at: now,
            measured: None,
            failed_at: None,
            flight: None,
        });
        node.asked_at = now;
        if let Some(figures) = node.figures(now, FRESH) {
            return Either::Left(ready(Some(figures)));
        }
        if let Some(flight) = &node.flight {
            return Either::Right(flight.clone());
        }
        if node.failed_at.is_some_and(|at| now.duration_since(at) < FAILED_PAUSE) {
            return Either::Left(ready(node.figures(now, OLDEST_BASE)));
        }
        let base = node.measured.clone().filter(|base| now.duration_since(base.at) < OLDEST_BASE);
        let work = ask_node(Arc::clone(proxy), name.to_owned(), base);
        let (usage, name) = (Arc::downgrade(self), name.to_owned());
        let flight = async move {
            let outcome = timeout(NODE_TIMEOUT, work).await.unwrap_or_else(|_| Err("it did not answer in time".into()));
            settle(&usage, &name, outcome)
        };
        let flight = flight.boxed().shared();
        node.flight = Some(flight.clone());
        // It comes to its end even if all who asked leave.
        api.sessions.drive(flight.clone().map(drop));
        Either::Right(flight)
    }
}

/// Writes down what came of asking a node.
fn settle(usage: &Weak<Usage>, name: &str, outcome: Result<Measured, String>) -> Outcome {
    let usage = usage.upgrade()?;
    let now = Instant::now();
    let mut nodes = usage.nodes.lock();
    let node = nodes.get_mut(name)?;
    node.flight = None;
    match outcome {
        Ok(measured) => {
            node.failed_at = None;
            node.measured = Some(measured.clone());
            Some(measured.figures)
        }
        Err(error) => {
            tracing::debug!(node = name, error, "a node does not tell what it uses");
            node.failed_at = Some(now);
            node.figures(now, OLDEST_BASE)
        }
    }
}

/// Asks a node for the end of a window; for its beginning too, where there is none from before.
async fn ask_node(proxy: Arc<dyn NodeProxy>, name: String, base: Option<Measured>) -> Result<Measured, String> {
    let mut scrape = scrape(&*proxy, &name).await?;
    let begun = base.filter(|base| is_beginning(base, &scrape, Instant::now()));
    let base = match begun {
        Some(base) => base.scrape,
        None => {
            sleep(FIRST_WINDOW).await;
            let first = std::mem::replace(&mut scrape, self::scrape(&*proxy, &name).await?);
            Arc::new(first)
        }
    };
    let figures = Arc::new(rates::between(&base, &scrape));
    Ok(Measured { at: Instant::now(), scrape: Arc::new(scrape), figures })
}

/// Whether the node's clock has gone on as ours has since then: rates over a time in which it was set would be wrong.
fn is_beginning(base: &Measured, last: &Scrape, now: Instant) -> bool {
    let (Some(begin), Some(end)) = (base.scrape.node, last.node) else { return true };
    let Ok(theirs) = Duration::try_from(end.at.duration_since(begin.at)) else { return false };
    // Answers are on their way for some time, this long at most.
    theirs.abs_diff(now.duration_since(base.at)) < NODE_TIMEOUT
}

async fn scrape(proxy: &dyn NodeProxy, node: &str) -> Result<Scrape, String> {
    let request = Request::builder().method(Method::GET).uri("/metrics/resource").body(Bytes::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = proxy.request(node, request).await.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answers {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_SCRAPE_BYTES).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let text = str::from_utf8(&body).map_err(|error| error.to_string())?;
    Ok(Scrape::parse(text, Timestamp::now()))
}
