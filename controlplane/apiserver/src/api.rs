//! The one door to the cluster's objects: every request, from a socket or from inside the process, passes here.
//! It knows no kind; it finds the kind of a path and hands the request to the verb's handler.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::kind::{Kind, Storage};
use coracle_api::selector::FieldSelector;
use coracle_store::Store;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::admission::Chain;
use crate::ambient::{Ambient, Dice};
use crate::aside::Aside;
use crate::auth::authenticate::{Authenticator, has_token};
use crate::auth::authorize::{Authorizer, refusal};
use crate::auth::{Attributes, Decision, User};
use crate::body::Body;
use crate::discovery::Discovery;
use crate::handlers;
use crate::metrics::Metrics;
use crate::nodes::NodeProxy;
use crate::registry::{Registry, Served};
use crate::render::{self, Shape};
use crate::request::{MAX_URL_BYTES, Query, ResourcePath, Target, Verb, verb};
use crate::sessions::Sessions;
use crate::turns::Turns;
use crate::usage::Usage;
use crate::wire::{self, Form};

/// The largest request body, as Kubernetes' API server has it.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// The longest a request may take, watches and streams apart (`--request-timeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// The most warnings an answer carries; more help nobody.
const MAX_WARNINGS: usize = 16;

/// Who stands at the door.
#[derive(Debug, Clone)]
pub enum Caller {
    /// A part of this process, which needs no proof.
    Known(Arc<User>),
    /// A connection; the user its client certificate proves, if it has one.
    Connection(Option<Arc<User>>),
    /// A connection with a client certificate that proves nothing, such as one of another authority. A token still may.
    Refused,
}

/// What the server is made of.
pub struct Parts {
    /// Where the objects are.
    pub store: Arc<dyn Store>,
    /// Who callers are.
    pub authenticator: Authenticator,
    /// What they may do.
    pub authorizer: Arc<dyn Authorizer>,
    /// What is added and refused.
    pub admission: Chain,
}

/// The API server.
pub struct ApiServer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) authenticator: Authenticator,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) admission: Chain,
    pub(crate) discovery: Discovery,
    pub(crate) metrics: Metrics,
    pub(crate) nodes: OnceLock<Arc<dyn NodeProxy>>,
    pub(crate) ready: OnceLock<()>,
    pub(crate) turns: Turns,
    pub(crate) aside: Aside,
    pub(crate) sessions: Sessions,
    pub(crate) usage: Arc<Usage>,
    ambient: Ambient,
}

/// One request for a resource.
pub(crate) struct Call<'a> {
    pub(crate) api: &'a Arc<ApiServer>,
    pub(crate) user: &'a User,
    pub(crate) path: &'a ResourcePath,
    pub(crate) query: &'a Query,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) served: &'a Arc<Served>,
    pub(crate) shape: Shape,
    pub(crate) now: Timestamp,
    warnings: Mutex<Vec<String>>,
    /// The connection below the request, for those that become streams.
    pub(crate) upgrade: Mutex<Option<OnUpgrade>>,
}

impl Call<'_> {
    pub(crate) fn kind(&self) -> &'static Kind {
        self.served.kind
    }

    /// Tells the client something by a `Warning` header.
    pub(crate) fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock();
        if warnings.len() < MAX_WARNINGS && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The same call for another path.
    pub(crate) fn with<'b>(&'b self, path: &'b ResourcePath, served: &'b Arc<Served>) -> Call<'b> {
        Call {
            api: self.api,
            user: self.user,
            path,
            query: self.query,
            uri: self.uri,
            headers: self.headers,
            served,
            shape: self.shape,
            now: self.now,
            warnings: Mutex::default(),
            upgrade: Mutex::default(),
        }
    }

    pub(crate) fn not_found(&self) -> ApiError {
        ApiError::not_found(self.kind().resource(), &self.path.name)
    }
}

impl ApiServer {
    /// A server over its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Self::with_ambient(parts, Ambient::system())
    }

    /// A server on a clock and with dice of the caller's.
    #[must_use]
    pub fn with_ambient(parts: Parts, ambient: Ambient) -> Arc<Self> {
        let registry = Registry::default();
        Arc::new(Self {
            discovery: Discovery::new(&registry),
            metrics: Metrics::default(),
            registry,
            store: parts.store,
            authenticator: parts.authenticator,
            authorizer: parts.authorizer,
            admission: parts.admission,
            nodes: OnceLock::new(),
            ready: OnceLock::new(),
            turns: Turns::default(),
            aside: Aside::default(),
            sessions: Sessions::default(),
            usage: Arc::default(),
            ambient,
        })
    }

    /// Where objects are kept. For readers in this process: every write goes through [`ApiServer::handle`].
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The time, as this server reads it.
    pub(crate) fn now(&self) -> Timestamp {
        self.ambient.now()
    }

    /// Dice for one use.
    pub(crate) fn dice(&self) -> Dice {
        self.ambient.dice()
    }

    /// The kinds that are served.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How agents are reached. Set once.
    pub fn set_nodes(&self, nodes: Arc<dyn NodeProxy>) {
        // A second one would mean two compositions of one server.
        assert!(self.nodes.set(nodes).is_ok(), "the way to the nodes is set once");
    }

    /// `/readyz` answers ok from now on.
    pub fn set_ready(&self) {
        let _ = self.ready.set(());
    }

    /// Answers one request.
    pub async fn handle<B>(self: &Arc<Self>, request: Request<B>, caller: Caller) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::fmt::Display,
    {
        let started = std::time::Instant::now();
        let method = request.method().clone();
        let form = Form::accepted(request.headers());
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let is_pretty = crate::pretty::is_wanted(request.headers(), &query);
        let mut seen = crate::metrics::Seen::default();
        let response = match self.route(request, &query, caller, &mut seen).await {
            Ok(response) => response,
            Err(error) => {
                let mut response = form.answer(render::error(&error));
                if is_pretty {
                    crate::pretty::indent(&mut response);
                }
                response
            }
        };
        self.metrics.observe(&method, &seen, response.status(), started.elapsed());
        response
    }

    async fn route<B>(
        self: &Arc<Self>,
        request: Request<B>,
        query: &Query,
        caller: Caller,
        seen: &mut crate::metrics::Seen,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::fmt::Display,
    {
        let (mut head, body) = request.into_parts();
        let upgrade = head.extensions.remove::<OnUpgrade>();
        let url = head.uri.path_and_query().map_or(0, |pq| pq.as_str().len());
        if url > MAX_URL_BYTES {
            return Err(ApiError::bad_request(format!("the URL is longer than {MAX_URL_BYTES} bytes")));
        }
        let now = self.now();
        let user = match caller {
            Caller::Known(user) => user,
            Caller::Refused if !has_token(&head.headers) => return Err(ApiError::unauthorized()),
            Caller::Refused => self.authenticator.authenticate(&self.store, &head.headers, None, now)?,
            Caller::Connection(proved) => self.authenticator.authenticate(&self.store, &head.headers, proved, now)?,
        };
        match Target::parse(head.uri.path())? {
            Target::Other(path) => {
                let method = head.method.as_str().to_ascii_lowercase();
                self.allow(&user, Attributes::NonResource { verb: &method, path: &path })?;
                crate::discovery::answer(self, &head, &path, query).await
            }
            Target::Resource(path) => {
                let verb = verb(&head.method, &path, query)?;
                let served = self.registry.find(&path.group, &path.version, &path.resource);
                if let Some(served) = served {
                    seen.set(verb, served.kind, &path);
                }
                let fields = selected_fields(verb, query);
                self.allow(&user, Attributes::Resource { verb, path: &path, fields: &fields })?;
                let served = served.ok_or_else(ApiError::no_such_path)?;
                self.check_scope(served, verb, &path)?;
                let call = Call {
                    api: self,
                    user: &user,
                    path: &path,
                    query,
                    uri: &head.uri,
                    headers: &head.headers,
                    served,
                    shape: Shape::Plain,
                    now,
                    warnings: Mutex::default(),
                    upgrade: Mutex::new(upgrade),
                };
                self.answer(call, verb, &head.method, body).await
            }
        }
    }

    pub(crate) fn allow(&self, user: &User, attributes: Attributes<'_>) -> Result<(), ApiError> {
        let Decision::Deny(why) = self.authorizer.authorize(user, attributes) else { return Ok(()) };
        let mut text = refusal(user, attributes);
        if !why.is_empty() {
            text = format!("{text}: {why}");
        }
        Err(match attributes {
            Attributes::Resource { path, .. } => {
                let resource = coracle_api::status::ResourceName { group: &path.group, plural: &path.resource };
                ApiError::forbidden(resource, &path.name, &text)
            }
            Attributes::NonResource { .. } => {
                let none = coracle_api::status::ResourceName { group: "", plural: "" };
                ApiError::forbidden(none, "", &text)
            }
        })
    }

    /// A namespaced kind is written below a namespace, a cluster-wide one never is.
    fn check_scope(&self, served: &Served, verb: Verb, path: &ResourcePath) -> Result<(), ApiError> {
        let namespaced = served.kind.namespaced();
        let in_namespace = !path.namespace.is_empty() && path.resource != "namespaces";
        let across = matches!(verb, Verb::List | Verb::Watch) && path.name.is_empty();
        if (namespaced && !in_namespace && !across) || (!namespaced && in_namespace) {
            return Err(ApiError::no_such_path());
        }
        Ok(())
    }

    async fn answer<B>(
        self: &Arc<Self>,
        mut call: Call<'_>,
        verb: Verb,
        method: &Method,
        body: B,
    ) -> Result<Response<Body>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::fmt::Display,
    {
        if streams(&call.path.subresource) {
            return handlers::streams::answer(&call, method, collect(body).await?).await;
        }
        call.shape = Shape::negotiate(call.headers, call.query)?;
        if let Some(why) = call.kind().info.deprecation {
            call.warn(why.to_owned());
        }
        if verb == Verb::Watch {
            if !is_stored(call.kind()) {
                return Err(ApiError::method_not_allowed(call.kind().resource(), verb.as_str()));
            }
            let mut response = Form::accepted(call.headers).answer_watch(handlers::watch::watch(&call).await?)?;
            tell(&call, &mut response);
            return Ok(response);
        }
        let _in_flight = self.metrics.in_flight(verb)?;
        let body = match verb {
            Verb::Get | Verb::List => Bytes::new(),
            // A patch has media types of its own.
            Verb::Patch => collect(body).await?,
            _ => wire::to_json(call.headers, collect(body).await?)?,
        };
        let work: BoxFuture<'_, _> = Box::pin(handlers::dispatch(&call, verb, body));
        let mut response = tokio::time::timeout(REQUEST_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(ApiError::timeout("request did not complete within the allotted timeout", 1)))
            .unwrap_or_else(|error| render::error(&error));
        tell(&call, &mut response);
        response = Form::accepted(call.headers).answer(response);
        if crate::pretty::is_wanted(call.headers, call.query) {
            crate::pretty::indent(&mut response);
        }
        crate::compress::compress(&self.aside, call.headers, response).await
    }
}

/// The fields by which a request selects many. One that cannot be read selects nothing yet: it is refused later.
fn selected_fields(verb: Verb, query: &Query) -> FieldSelector {
    let many = matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let text = query.get("fieldSelector").filter(|_| many);
    text.and_then(|text| FieldSelector::parse(text).ok()).unwrap_or_default()
}

/// Whether the kind is kept at all.
pub(crate) fn is_stored(kind: &Kind) -> bool {
    !matches!(kind.info.storage, Storage::Never | Storage::Measured)
}

/// Subresources that are answered by the node the object is on.
fn streams(subresource: &str) -> bool {
    matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy")
}

async fn collect<B>(body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: std::fmt::Display,
{
    let body = std::pin::pin!(http_body_util::Limited::new(BodyAdapter(Box::pin(body)), MAX_BODY_BYTES));
    match tokio::time::timeout(BODY_TIMEOUT, body.collect()).await {
        Err(_) => Err(ApiError::timeout("the body did not arrive in time", 1)),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(MAX_BODY_BYTES)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the body could not be read: {error}"))),
    }
}

/// Gives any body's error the shape `Limited` wants.
struct BodyAdapter<B>(std::pin::Pin<Box<B>>);

impl<B> http_body::Body for BodyAdapter<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        self.0.as_mut().poll_frame(cx).map_err(|e| std::io::Error::other(e.to_string()))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

/// Puts a call's warnings into its answer.
fn tell(call: &Call<'_>, response: &mut Response<Body>) {
    for warning in call.warnings.lock().drain(..) {
        if let Some(value) = warning_header(&warning) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
}

/// RFC 7234 section 5.5: code 299, no agent, the text quoted.
fn warning_header(text: &str) -> Option<HeaderValue> {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_str(&format!("299 - \"{quoted}\"")).ok()
}
