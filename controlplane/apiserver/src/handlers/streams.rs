//! Subresources that are answered by others: logs, streams and its own API by the node, `proxy` by pods. Bytes pass through as they
//! come.

mod proxy;
mod upgrades;

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::status::Reason;
use http::{Method, Request, Response, StatusCode};
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
    call.to_node(&call.path.name, method, &behind_proxy(&call.path.rest, call.query), body).await
}

/// A path and a query as they came, encoded again: what was an escaped `?` stays part of the path.
fn behind_proxy(rest: &str, query: &Query) -> String {
    let segments: Vec<String> = rest.split('/').map(encode).collect();
    let (path, query) = (segments.join("/"), query.encode());
    if query.is_empty() { format!("/{path}") } else { format!("/{path}?{query}") }
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Call<'_> {
    /// Asks a node.
    async fn to_node(&self, node: &str, method: &Method, path: &str, body: Bytes) -> Result<Response<Body>, ApiError> {
        let nodes = self.api.nodes.get().ok_or_else(|| ApiError::unavailable("no way to reach the nodes yet"))?;
        let request =
            Request::builder().method(method).uri(path).body(body).map_err(|e| ApiError::bad_request(e.to_string()))?;
        nodes.request(node, request).await.map_err(|error| node_unreachable(node, error))
    }
}

fn node_unreachable(node: &str, error: NodeError) -> ApiError {
    match error {
        NodeError::Unknown => {
            ApiError::not_found(coracle_api::status::ResourceName { group: "", plural: "nodes" }, node)
        }
        NodeError::Unreachable(why) => ApiError::internal(format!("the node {node} cannot be reached: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_reach_the_node_as_they_came() {
        let check = |rest: &str, query: &str, expect: &str| {
            let path = behind_proxy(rest, &Query::parse(query));
            assert_eq!(path, expect);
            path.parse::<http::Uri>().unwrap();
        };
        check("stats/summary", "only_cpu_and_memory=true", "/stats/summary?only_cpu_and_memory=true");
        check("metrics/", "", "/metrics/");
        check("logs/a?b/ü", "x=1&x=%26", "/logs/a%3Fb/%C3%BC?x=1&x=%26");
    }
}
