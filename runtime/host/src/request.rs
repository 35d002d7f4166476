//! One incoming `wasi:http` request, 0.2 or 0.3: an instance is taken or made, handles it, and is dropped or kept. The guest
//! runs inside the connection's own task: when the client goes away, so does the instance.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use coracle_engine::{Metered, Shared};
use futures::channel::oneshot;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{AsContextMut as _, Store};
use wasmtime_wasi_http::{
    Error, WasiBody, WasiHttpView,
    handler::{Prepared, Proxy},
    p2::bindings::http::types::{ErrorCode, Scheme},
};

use crate::{
    GuestConfig, Program, SetupError,
    guest::{Guest, is_lack_of_room},
    linker::Entry,
    outcome::Outcome,
    server::Pool,
    stdio::StdStream,
};

mod gathered;

/// How long a guest may go on after its response has been sent.
const AFTER_RESPONSE: Duration = Duration::from_secs(30);

/// An instance of a server, and how much it has done.
pub(crate) struct Instance {
    store: Store<Guest>,
    proxy: Proxy,
    pub(crate) served: u32,
}

impl Instance {
    /// Makes one of the program's current form.
    async fn new(program: &Program, config: &Arc<GuestConfig>) -> wasmtime::Result<Self> {
        let Entry::Http(pre) = &program.entry else { panic!("a command is not a server") };
        let mut store = config.store(program.engine());
        let proxy = pre.instantiate_async(&mut store).await?;
        Ok(Self { store, proxy, served: 0 })
    }
}

/// Makes an instance and drops it: fails when none can be made of this program in this container.
///
/// # Panics
/// When the program is not a server.
pub async fn check_server(program: Arc<Program>, config: Arc<GuestConfig>) -> Result<(), SetupError> {
    let cpu = config.cpu.clone();
    let instance = Box::pin(async move { Instance::new(&program, &config).await });
    Metered::new(instance, cpu).await.map(|_| ()).map_err(SetupError::of_instance)
}

/// What the guest answered with.
type Answer = Result<Response<WasiBody>, wasmtime::Error>;

/// The guest at work on one request; gives its instance back when it is done with it.
type Work = Pin<Box<dyn Future<Output = Result<Instance, wasmtime::Error>> + Send>>;

/// What a line in the container's log names a request by.
#[derive(Clone)]
struct Subject {
    method: Method,
    uri: Uri,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.uri.path())
    }
}

/// Handles a request. Never fails: what goes wrong is the response's status and a line in the container's log.
pub(crate) async fn handle(
    pool: &Arc<Pool>,
    permit: OwnedSemaphorePermit,
    request: Request<WasiBody>,
) -> Response<WasiBody> {
    let subject = Subject { method: request.method().clone(), uri: request.uri().clone() };
    let (answer, mut answered) = oneshot::channel();
    let work = work(pool.clone(), request, answer);
    let mut work = Metered::new(work, pool.config.cpu.clone());
    let (mut ended, mut unanswered) = (None, false);
    let response = poll_fn(|cx| {
        if ended.is_none()
            && let Poll::Ready(result) = Pin::new(&mut work).poll(cx)
        {
            ended = Some(result);
        }
        // The guest may have answered and ended in one go: its answer counts first. One that will not answer has most
        // likely failed, and how it ends says why: where it computes on a thread of its own, that is heard a moment later.
        if !unanswered {
            match Pin::new(&mut answered).poll(cx) {
                Poll::Ready(Ok(answer)) => return Poll::Ready(Some(answer)),
                Poll::Ready(Err(_)) => unanswered = true,
                Poll::Pending => {}
            }
        }
        if ended.is_some() { Poll::Ready(None) } else { Poll::Pending }
    });
    let response = response.await;
    let (failed, status) = match &ended {
        Some(Err(error)) => (Some(describe(error)), status(error)),
        _ => (None, StatusCode::INTERNAL_SERVER_ERROR),
    };
    let rest = match ended {
        None => Some(Rest { work, pool: pool.clone(), subject: subject.clone(), _permit: permit }),
        Some(Ok(instance)) => {
            pool.put_back(instance);
            None
        }
        Some(Err(_)) => None,
    };
    match (response, failed) {
        (Some(Ok(response)), failed) => {
            if let Some(failed) = failed {
                pool.log(StdStream::Stderr, &format!("{subject}: the guest ended after its response: {failed}\n"));
            }
            match rest {
                Some(rest) => finish(response, rest),
                None => response.map(gathered::gather),
            }
        }
        (Some(Err(error)), failed) => {
            let why = failed.unwrap_or_else(|| describe(&error));
            fail(pool, &subject, &why, status)
        }
        (None, Some(failed)) => fail(pool, &subject, &failed, status),
        (None, None) => fail(pool, &subject, "the guest ended without a response", status),
    }
}

/// A node without room for another instance may have it a moment later; anything else is the component's failure.
fn status(error: &wasmtime::Error) -> StatusCode {
    if is_lack_of_room(error) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::INTERNAL_SERVER_ERROR }
}

fn describe(error: &wasmtime::Error) -> String {
    match Outcome::from_error(error) {
        Outcome::Exited { code } => format!("the guest exited with code {code}"),
        Outcome::OutOfMemory { message } => format!("OOMKilled: {message}"),
        Outcome::Trapped { message } => message,
    }
}

fn fail(pool: &Pool, subject: &Subject, why: &str, status: StatusCode) -> Response<WasiBody> {
    pool.count_failure();
    pool.log(StdStream::Stderr, &format!("{subject}: {why}\n"));
    plain(status, "the component failed to handle the request; its log says why\n")
}

/// A response of the host's own.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response<WasiBody> {
    let body = Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
    response
}

/// The guest's work on one request.
fn work(pool: Arc<Pool>, request: Request<WasiBody>, answer: oneshot::Sender<Answer>) -> Work {
    Box::pin(async move {
        let mut instance = match pool.take() {
            Some(instance) => instance,
            None => Instance::new(&pool.program.current(), &pool.config).await?,
        };
        instance.served += 1;
        match &instance.proxy {
            Proxy::P2(_) => serve_p2(&mut instance, request, answer).await?,
            Proxy::P3(_) => serve_p3(&mut instance, request, answer).await?,
        }
        Ok(instance)
    })
}

async fn serve_p2(
    instance: &mut Instance,
    request: Request<WasiBody>,
    answer: oneshot::Sender<Answer>,
) -> wasmtime::Result<()> {
    let Proxy::P2(proxy) = &instance.proxy else { unreachable!("the caller looked") };
    let store = &mut instance.store;
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let answer = parking_lot::Mutex::new(Some(answer));
    let out = store.data_mut().http().new_response_outparam_from_callback(move |response| {
        if let Some(answer) = answer.lock().take() {
            // Nobody waits any more when the client is gone.
            let _ = answer.send(response.map_err(|error: ErrorCode| error.into()));
        }
    })?;
    proxy.wasi_http_incoming_handler().call_handle(store, request, out).await
}

async fn serve_p3(
    instance: &mut Instance,
    request: Request<WasiBody>,
    answer: oneshot::Sender<Answer>,
) -> wasmtime::Result<()> {
    let Instance { store, proxy, .. } = instance;
    let proxy = &*proxy;
    let served = store.run_concurrent(async |accessor| {
        let view = <Guest as WasiHttpView>::http;
        let prepared =
            accessor.with(|mut store| Prepared::new(store.as_context_mut(), proxy, request, view, answer))?;
        prepared.run(accessor, std::future::pending()).await?;
        // The response's body, and what the guest does after it, are tasks of their own in the store.
        poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
        Ok(())
    });
    served.await.flatten()
}

/// The rest of the guest's work, after it has given its response's head.
struct Rest {
    work: Metered<Work>,
    pool: Arc<Pool>,
    subject: Subject,
    /// The instance counts among the running ones until it is done.
    _permit: OwnedSemaphorePermit,
}

impl Rest {
    fn ended(&self, result: Result<Instance, wasmtime::Error>) {
        match result {
            Ok(instance) => self.pool.put_back(instance),
            Err(error) => {
                self.pool.count_failure();
                let why = describe(&error);
                self.pool.log(StdStream::Stderr, &format!("{}: while sending the response: {why}\n", self.subject));
            }
        }
    }

    /// Lets the guest finish what it does after the response.
    fn go_on(mut self) {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Ok(result) = tokio::time::timeout(AFTER_RESPONSE, &mut self.work).await {
                    self.ended(result);
                }
            });
        }
    }
}

fn finish(response: Response<WasiBody>, rest: Rest) -> Response<WasiBody> {
    let (head, body) = response.into_parts();
    let left_bytes = content_length(&head.headers);
    Response::from_parts(head, GuestBody { body, rest: Some(rest), left_bytes }.boxed_unsync())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A response's body with the guest that still writes it: polling it runs the guest.
struct GuestBody {
    body: WasiBody,
    rest: Option<Rest>,
    /// What the response's length leaves to send: the last poll may never come when it is reached.
    left_bytes: Option<u64>,
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(rest) = &mut this.rest
            && let Poll::Ready(result) = Pin::new(&mut rest.work).poll(cx)
        {
            rest.ended(result);
            this.rest = None;
        }
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                this.left_bytes = this.left_bytes.map(|left| left.saturating_sub(sent));
            }
            Some(Err(_)) => {}
            None => {
                if let Some(rest) = this.rest.take() {
                    rest.go_on();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for GuestBody {
    /// A body that was sent whole leaves the guest to finish; one that was cut off ends it.
    fn drop(&mut self) {
        if (self.left_bytes == Some(0) || self.body.is_end_stream())
            && let Some(rest) = self.rest.take()
        {
            rest.go_on();
        }
    }
}

/// The program that a server runs, in its best form.
pub(crate) type SharedProgram = Arc<Shared<Program>>;
