//! Subresources that are answered by others: logs, streams and its own API by the node, `proxy` by pods. Bytes pass through as they
//! come.

mod proxy;
mod upgrades;

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::status::Reason;
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Pod;

use crate::api::Call;
use crate::body::Body;
use crate::nodes::NodeError;
use crate::request::Query;
use crate::writes::current;

/// Answers a streaming subresource.
pub(crate) async fn answer(call: &Call<'_>, method: &Method, body: Bytes) -> Result<Response<Body>, ApiError> {
    let supported = call.kind().info.subresources.iter().any(|s| s.as_str() == call.path.subresource);
    if !supported {
        return Err(ApiError::no_such_path());
    }
    match (call.kind().kind, call.path.subresource.as_str()) {
        ("Pod", "log") if *method == Method::GET => log(call).await,
        ("Pod", "log") => Err(ApiError::method_not_known()),
        ("Pod", "exec" | "attach" | "portforward") => upgrades::answer(call, method).await,
        (_, "proxy") if call.path.rest.is_empty() && matches!(*method, Method::GET | Method::HEAD) => to_its_root(call),
        ("Pod", "proxy") => proxy::pod(call, method, body).await,
        ("Service", "proxy") => proxy::service(call, method, body).await,
        ("Node", "proxy") => node_proxy(call, method, body).await,
        (_, subresource) => Err(ApiError::new(
            Reason::MethodNotAllowed,
            format!("{subresource} is not offered by the runtimes of this cluster's nodes"),
        )),
    }
}

/// `kubectl logs`: the query is checked here, the text comes from the node.
async fn log(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let stored = current(call)?;
    let pod = stored.typed::<Pod>().ok_or_else(ApiError::no_such_path)?;
    let container = container(call, pod)?;
    check_log_options(call, call.query)?;
    let spec = pod.spec.as_ref();
    let Some(node) = spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()) else {
        // Not on a node yet, so there is nothing to read.
        return Ok(text(StatusCode::OK, Body::empty()));
    };
    let mut path = format!("/containerLogs/{}/{}/{container}?", encode(&call.path.namespace), encode(&call.path.name));
    for name in ["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"] {
        if let Some(value) = call.query.get(name) {
            path.push_str(&format!("{name}={}&", encode(value)));
        }
    }
    let response = call.to_node(node, &Method::GET, &path, Bytes::new()).await?;
    if response.status() == StatusCode::OK {
        return Ok(text(StatusCode::OK, Body::wrap(response.into_body())));
    }
    Err(node_refused(response).await)
}

async fn node_refused(response: Response<Body>) -> ApiError {
    use http_body_util::BodyExt as _;
    let status = response.status();
    let said = match http_body_util::Limited::new(response.into_body(), 16 * 1024).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(_) => String::new(),
    };
    match status {
        StatusCode::NOT_FOUND => ApiError::new(Reason::NotFound, said),
        StatusCode::INTERNAL_SERVER_ERROR => ApiError::internal(said),
        StatusCode::TOO_MANY_REQUESTS => ApiError::too_many_requests(said, 1),
        _ => ApiError::bad_request(said),
    }
}

fn text(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

/// The container asked for, or the only one.
fn container(call: &Call<'_>, pod: &Pod) -> Result<String, ApiError> {
    let name = &call.path.name;
    let Some(spec) = &pod.spec else { return Err(ApiError::bad_request(format!("pod {name} has no spec"))) };
    let main: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral: Vec<&str> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    match call.query.get("container").filter(|c| !c.is_empty()) {
        Some(wanted) if main.iter().chain(&init).chain(&ephemeral).any(|c| *c == wanted) => Ok(wanted.to_owned()),
        Some(wanted) => Err(ApiError::bad_request(format!("container {wanted} is not valid for pod {name}"))),
        None if main.len() == 1 => Ok(main[0].to_owned()),
        None => {
            let mut message =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// The rules of `PodLogOptions`.
fn check_log_options(call: &Call<'_>, query: &Query) -> Result<(), ApiError> {
    use coracle_api::validation::{Errors, FieldPath};
    let mut errors = Errors::new();
    let at_least = |errors: &mut Errors, name: &str, least: i64, why: &str| -> Result<(), ApiError> {
        if let Some(n) = query.number(name)?.filter(|n| *n < least) {
            errors.invalid(&FieldPath::new(name), n, why);
        }
        Ok(())
    };
    at_least(&mut errors, "tailLines", 0, "must be greater than or equal to 0")?;
    at_least(&mut errors, "limitBytes", 1, "must be greater than 0")?;
    at_least(&mut errors, "sinceSeconds", 1, "must be greater than 0")?;
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.forbidden(
            &FieldPath::new("sinceSeconds"),
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        );
    }
    if let Some(time) = query.get("sinceTime").filter(|t| t.parse::<jiff::Timestamp>().is_err()) {
        errors.invalid(&FieldPath::new("sinceTime"), time, "must be a time in RFC 3339");
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", &call.path.name, &errors)) }
}

/// `nodes/proxy`: the node's own API.
async fn node_proxy(call: &Call<'_>, method: &Method, body: Bytes) -> Result<Response<Body>, ApiError> {
    current(call)?;
    let mut request = node_request(method, &below(call), body)?;
    *request.headers_mut() = own_headers_dropped(call.headers, false);
    // The body came as a whole, which tells its length.
    request.headers_mut().remove(header::CONTENT_LENGTH);
    call.ask_node(&call.path.name, request).await
}

/// Sends a browser to the root of what is behind `proxy`, from where its relative links lead to the right places.
fn to_its_root(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = http::HeaderValue::try_from(format!("{}/{query}", call.uri.path()));
    let location = location.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mut response = text(StatusCode::MOVED_PERMANENTLY, Body::empty());
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The path and the query behind `proxy`, as they came.
fn below(call: &Call<'_>) -> String {
    let path = if call.path.rest.is_empty() { "/" } else { &call.path.rest };
    call.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// What is about one connection and not about the message on it (RFC 9110, section 7.6.1), and the caller's credentials.
const OWN: [HeaderName; 8] = [
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::AUTHORIZATION,
];

/// The headers of a message that goes on, without those of the connection it came by, but for what asks for another protocol.
fn own_headers_dropped(headers: &HeaderMap, upgrades: bool) -> HeaderMap {
    let mut kept = headers.clone();
    for name in OWN {
        if !upgrades || !matches!(name, header::CONNECTION | header::UPGRADE) {
            kept.remove(name);
        }
    }
    kept
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Call<'_> {
    /// Asks a node.
    async fn to_node(&self, node: &str, method: &Method, path: &str, body: Bytes) -> Result<Response<Body>, ApiError> {
        self.ask_node(node, node_request(method, path, body)?).await
    }

    async fn ask_node(&self, node: &str, request: Request<Bytes>) -> Result<Response<Body>, ApiError> {
        let nodes = self.api.nodes.get().ok_or_else(|| ApiError::unavailable("no way to reach the nodes yet"))?;
        nodes.request(node, request).await.map_err(|error| node_unreachable(node, error))
    }
}

fn node_request(method: &Method, path: &str, body: Bytes) -> Result<Request<Bytes>, ApiError> {
    let request = Request::builder().method(method).uri(path).body(body);
    request.map_err(|error| ApiError::bad_request(error.to_string()))
}

fn node_unreachable(node: &str, error: NodeError) -> ApiError {
    match error {
        NodeError::Unknown => {
            ApiError::not_found(coracle_api::status::ResourceName { group: "", plural: "nodes" }, node)
        }
        NodeError::Unreachable(why) => ApiError::internal(format!("the node {node} cannot be reached: {why}")),
    }
}
