//! The node's own API: logs, the pods it runs, the images it has. Paths, parameters and refusals are the kubelet's, with
//! `/images` added for the command line. It reads; only images are ever changed through it.

mod images;
mod stats;
mod streams;

use std::{collections::HashMap, convert::Infallible, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use coracle_agent_core::Workload;
use coracle_agent_wasm::WasmWorkload;
use futures::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ContainerStatus;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

use crate::{
    logs::{self, LogOptions, LogSource},
    runtimes::Runtimes,
    views::{View, Views},
};

pub(crate) use stats::NodeStats;
pub(crate) use streams::Room;
pub use streams::Upgraded;

/// A body the node answers with.
pub type NodeBody = UnsyncBoxBody<Bytes, io::Error>;

/// What a request's body may fail with.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Logs read at once. A follower holds one open file.
const MAX_READERS: usize = 1024;
/// Blocks of a log on their way to a slow client.
const BLOCKS: usize = 4;

/// Answers requests of the node's API. Cheap to clone.
#[derive(Clone)]
pub struct Handler {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) views: Views,
    pub(crate) log_dir: PathBuf,
    pub(crate) staging: PathBuf,
    pub(crate) wasm: Arc<WasmWorkload>,
    /// All runtimes.
    pub(crate) runtime: Arc<dyn Workload>,
    /// The same, for what the port does not offer.
    pub(crate) runtimes: Runtimes,
    pub(crate) node: NodeStats,
    pub(crate) images_changed: mpsc::Sender<()>,
    pub(crate) tasks: TaskTracker,
    /// For streaming connections.
    pub(crate) room: Room,
}

/// Why a request is refused, in words for the user.
struct Refused(StatusCode, String);

impl Refused {
    fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn not_found(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }
}

static READERS: Semaphore = Semaphore::const_new(MAX_READERS);

impl Handler {
    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Answers one request.
    pub async fn call<B>(&self, request: Request<B>) -> Response<NodeBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let answer = match (request.method(), parts.as_slice()) {
            (&Method::GET, ["containerLogs", namespace, pod, container]) => {
                let options = query(request.uri().query().unwrap_or_default());
                self.logs(&decoded(namespace), &decoded(pod), &decoded(container), &options)
            }
            (&Method::GET, ["healthz"]) => Ok(text(StatusCode::OK, "ok")),
            (&Method::GET, ["pods"]) => Ok(self.pods()),
            (&Method::GET, ["stats", "summary"]) => {
                let options = query(request.uri().query().unwrap_or_default());
                let only = options.get("only_cpu_and_memory").is_some_and(|value| value == "true" || value == "1");
                Ok(self.stats_summary(only).await)
            }
            (&Method::GET, ["metrics", "resource"]) => Ok(self.resource_metrics().await),
            (_, ["exec" | "attach" | "portForward", ..]) => Err(Refused::bad("Upgrade request required")),
            (_, ["images", ..]) => self.images(request).await,
            _ => Err(Refused::not_found("404 page not found")),
        };
        answer.unwrap_or_else(|Refused(status, message)| text(status, message))
    }

    fn pods(&self) -> Response<NodeBody> {
        let items: Vec<Value> = self
            .inner
            .views
            .all()
            .into_iter()
            .map(|view| json!({"metadata": view.pod.metadata, "spec": view.pod.spec, "status": *view.status}))
            .collect();
        json_answer(StatusCode::OK, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
    }

    fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &HashMap<String, String>,
    ) -> Result<Response<NodeBody>, Refused> {
        let view = self.inner.views.get(namespace, name);
        let view = view.ok_or_else(|| Refused::not_found(format!("pod {name:?} not found")))?;
        let (options, previous) = log_options(query)?;
        let attempt = attempt(&view, name, container, previous)?;
        let uid = view.pod.metadata.uid.clone().unwrap_or_default();
        let dir = self.inner.log_dir.join(format!("{namespace}_{name}_{uid}")).join(container);
        let Ok(permit) = READERS.try_acquire() else {
            return Err(Refused(StatusCode::TOO_MANY_REQUESTS, "too many logs are being read on this node".into()));
        };
        let (views, place, container) =
            (self.inner.views.clone(), (namespace.to_owned(), name.to_owned()), container.to_owned());
        let goes_on = move || {
            let view = views.get(&place.0, &place.1).filter(|view| view.pod.metadata.uid.as_deref() == Some(&uid));
            view.as_ref().and_then(|view| view.container(&container)).is_some_and(|status| {
                let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
                running && u32::try_from(status.restart_count) == Ok(attempt)
            })
        };
        let (sender, receiver) = mpsc::channel(BLOCKS);
        let source = LogSource { dir, attempt, goes_on: Box::new(goes_on) };
        self.inner.tasks.spawn(async move {
            let _permit = permit;
            logs::read(source, options, sender).await;
        });
        let frames = ReceiverStream::new(receiver).map(|block| block.map(Frame::data));
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

impl<B> tower::Service<Request<B>> for Handler
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = Response<NodeBody>;
    type Error = Infallible;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move { Ok(Handler::call(&handler, request).await) })
    }
}

/// Which run's log is meant; the kubelet's words when there is none.
fn attempt(view: &View, pod: &str, container: &str, previous: bool) -> Result<u32, Refused> {
    let spec = view.pod.spec.as_ref();
    let known = spec.is_some_and(|spec| {
        let main = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|known| &known.name);
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|known| &known.name);
        main.chain(ephemeral).any(|known| known == container)
    });
    if !known {
        return Err(Refused::bad(format!("container {container} is not valid for pod {pod}")));
    }
    let status = view.container(container).cloned().unwrap_or_default();
    let count = u32::try_from(status.restart_count).unwrap_or(0);
    let waiting = waiting(&status);
    if previous {
        let last = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
        return match (last, waiting.is_some()) {
            // In back-off the last run is still the newest one.
            (true, true) => Ok(count),
            (true, false) if count > 0 => Ok(count - 1),
            _ => Err(Refused::bad(format!("previous terminated container {container:?} in pod {pod:?} not found"))),
        };
    }
    let has_run = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
    match waiting {
        Some((reason, message)) if !has_run => Err(Refused::bad(match reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
                format!(
                    "container {container:?} in pod {pod:?} is waiting to start: {}",
                    why_no_image(&reason, &message)
                )
            }
            _ => format!("container {container:?} in pod {pod:?} is waiting to start: {reason}"),
        })),
        _ => Ok(count),
    }
}

fn why_no_image(reason: &str, message: &str) -> String {
    match reason {
        "ErrImagePull" | "ErrImageNeverPull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        _ => message.to_owned(),
    }
}

fn waiting(status: &ContainerStatus) -> Option<(String, String)> {
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() || state.terminated.is_some() {
        return None;
    }
    let waiting = state.waiting.unwrap_or_default();
    Some((waiting.reason.unwrap_or_else(|| "ContainerCreating".into()), waiting.message.unwrap_or_default()))
}

fn log_options(query: &HashMap<String, String>) -> Result<(LogOptions, bool), Refused> {
    // As Kubernetes reads booleans of a query: all is true but these two.
    let flag = |name: &str| query.get(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"));
    let number = |name: &str| match query.get(name).map(|value| value.parse::<u64>()) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(Refused::bad(format!("Unable to decode query: invalid {name}"))),
    };
    let mut since = match query.get("sinceTime").map(|time| time.parse::<Timestamp>()) {
        None => None,
        Some(Ok(time)) => Some(time),
        Some(Err(_)) => return Err(Refused::bad("Unable to decode query: invalid sinceTime")),
    };
    if let Some(seconds) = number("sinceSeconds")? {
        let back = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
        since = Some(Timestamp::now().checked_sub(back).unwrap_or(Timestamp::MIN));
    }
    let stream = match query.get("stream").map(String::as_str) {
        None | Some("" | "All") => None,
        Some("Stdout") => Some("stdout".to_owned()),
        Some("Stderr") => Some("stderr".to_owned()),
        Some(other) => return Err(Refused::bad(format!("Unable to decode query: invalid stream {other:?}"))),
    };
    let tail_lines = number("tailLines")?.map(|lines| usize::try_from(lines).unwrap_or(usize::MAX));
    let options = LogOptions {
        follow: flag("follow"),
        timestamps: flag("timestamps"),
        tail_lines,
        since,
        limit_bytes: number("limitBytes")?,
        stream,
    };
    Ok((options, flag("previous")))
}

fn query(query: &str) -> HashMap<String, String> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn text(status: StatusCode, message: impl Into<String>) -> Response<NodeBody> {
    answer(status, "text/plain; charset=utf-8", message.into())
}

fn json_answer(status: StatusCode, value: &Value) -> Response<NodeBody> {
    answer(status, "application/json", value.to_string())
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<NodeBody> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn check(status: Value, previous: bool, expect: Result<u32, &str>) {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}))
                .unwrap();
        let status = serde_json::from_value(json!({"containerStatuses": [status]})).unwrap();
        let view = View { pod: Arc::new(pod), status: Arc::new(status) };
        let got = attempt(&view, "p", "c", previous).map_err(|refused| refused.1);
        assert_eq!(got, expect.map_err(str::to_owned));
    }

    #[test]
    fn the_run_is_chosen_as_the_kubelet_chooses() {
        let base = |count: i32, state: Value, last: Value| json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": count, "state": state, "lastState": last});
        let running = || json!({"running": {}});
        let ended = || json!({"terminated": {"exitCode": 1}});
        let wait = |reason: &str| json!({"waiting": {"reason": reason}});
        check(base(0, running(), json!({})), false, Ok(0));
        check(base(3, running(), ended()), true, Ok(2));
        check(base(3, wait("CrashLoopBackOff"), ended()), false, Ok(3));
        check(base(3, wait("CrashLoopBackOff"), ended()), true, Ok(3));
        check(base(0, running(), json!({})), true, Err("previous terminated container \"c\" in pod \"p\" not found"));
        let message = "container \"c\" in pod \"p\" is waiting to start: ContainerCreating";
        check(base(0, wait("ContainerCreating"), json!({})), false, Err(message));
        let message = "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image";
        check(base(0, wait("ImagePullBackOff"), json!({})), false, Err(message));
    }
}
