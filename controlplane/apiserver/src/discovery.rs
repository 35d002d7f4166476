//! Paths that are no resources: discovery, OpenAPI, version, health, metrics, the token issuer's keys.
//! All of it follows from the table of kinds.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::kind::{Kind, Storage, Subresource};
use coracle_api::{ApiError, openapi};
use http::{Method, Response, StatusCode, header, request};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::api::ApiServer;
use crate::body::Body;
use crate::registry::Registry;
use crate::render;
use crate::request::Query;

/// The version this server's semantics follow.
pub const KUBERNETES_VERSION: &str = "v1.36.0";

/// Groups in the order in which clients prefer them (`kubectl get events` must find the core group first).
const GROUP_ORDER: [&str; 3] = ["", "apps", "batch"];

/// Discovery documents, made once.
pub(crate) struct Discovery {
    groups: Vec<Group>,
}

struct Group {
    name: &'static str,
    /// Preferred first.
    versions: Vec<(&'static str, Vec<&'static Kind>)>,
}

impl Discovery {
    pub(crate) fn new(registry: &Registry) -> Self {
        let mut groups: BTreeMap<&'static str, BTreeMap<&'static str, Vec<&'static Kind>>> = BTreeMap::new();
        for served in registry.iter() {
            groups.entry(served.kind.group).or_default().entry(served.kind.version).or_default().push(served.kind);
        }
        let rank = |group: &str| GROUP_ORDER.iter().position(|g| *g == group).unwrap_or(GROUP_ORDER.len());
        let mut groups: Vec<Group> = groups
            .into_iter()
            .map(|(name, versions)| Group { name, versions: versions.into_iter().rev().collect() })
            .collect();
        groups.sort_by_key(|g| (rank(g.name), g.name));
        Self { groups }
    }

    fn group(&self, name: &str) -> Result<&Group, ApiError> {
        self.groups.iter().find(|g| g.name == name).ok_or_else(ApiError::no_such_path)
    }
}

impl Group {
    fn document(&self) -> Value {
        let version = |v: &str| json!({"groupVersion": format!("{}/{v}", self.name), "version": v});
        json!({
            "name": self.name,
            "versions": self.versions.iter().map(|(v, _)| version(v)).collect::<Vec<_>>(),
            "preferredVersion": version(self.versions[0].0),
        })
    }

    fn resources(&self, version: &str) -> Result<Value, ApiError> {
        let (_, kinds) = self.versions.iter().find(|(v, _)| *v == version).ok_or_else(ApiError::no_such_path)?;
        let group_version = if self.name.is_empty() { version.to_owned() } else { format!("{}/{version}", self.name) };
        let resources: Vec<Value> = kinds.iter().flat_map(|k| resources_of(k)).collect();
        Ok(
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}),
        )
    }

    fn aggregated(&self) -> Value {
        let versions: Vec<Value> = self
            .versions
            .iter()
            .map(|(version, kinds)| {
                let resources: Vec<Value> = kinds.iter().map(|k| aggregated_resource(k)).collect();
                json!({"version": version, "resources": resources, "freshness": "Current"})
            })
            .collect();
        json!({"metadata": {"name": self.name, "creationTimestamp": null}, "versions": versions})
    }
}

fn verbs(kind: &Kind) -> &'static [&'static str] {
    match kind.info.storage {
        Storage::Never => &["create"],
        Storage::Measured => &["get", "list"],
        Storage::Own | Storage::SharedWith { .. } if kind.info.has_delete_collection => {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
        Storage::Own | Storage::SharedWith { .. } => &["create", "delete", "get", "list", "patch", "update", "watch"],
    }
}

/// Group, version, kind and verbs of a subresource's own body.
fn subresource(
    kind: &Kind,
    subresource: Subresource,
) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
    match subresource {
        Subresource::Scale => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        Subresource::Binding => ("", "v1", "Binding", &["create"]),
        Subresource::Eviction => ("policy", "v1", "Eviction", &["create"]),
        Subresource::Token => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
        Subresource::Log => ("", "v1", "Pod", &["get"]),
        Subresource::Exec => ("", "v1", "PodExecOptions", &["create", "get"]),
        Subresource::Attach => ("", "v1", "PodAttachOptions", &["create", "get"]),
        Subresource::PortForward => ("", "v1", "PodPortForwardOptions", &["create", "get"]),
        Subresource::Proxy => {
            let options = match kind.kind {
                "Node" => "NodeProxyOptions",
                "Service" => "ServiceProxyOptions",
                _ => "PodProxyOptions",
            };
            ("", "v1", options, &["create", "delete", "get", "patch", "update"])
        }
        Subresource::Finalize => (kind.group, kind.version, kind.kind, &["update"]),
        Subresource::Status | Subresource::Approval | Subresource::EphemeralContainers | Subresource::Resize => {
            (kind.group, kind.version, kind.kind, &["get", "patch", "update"])
        }
    }
}

fn resources_of(kind: &Kind) -> Vec<Value> {
    let mut main = json!({
        "name": kind.info.plural, "singularName": kind.info.singular, "namespaced": kind.namespaced(),
        "kind": kind.kind, "verbs": verbs(kind),
    });
    if !kind.info.short_names.is_empty() {
        main["shortNames"] = json!(kind.info.short_names);
    }
    if !kind.info.categories.is_empty() {
        main["categories"] = json!(kind.info.categories);
    }
    if matches!(kind.info.storage, Storage::Own) {
        main["storageVersionHash"] = storage_version_hash(kind).into();
    }
    let mut out = vec![main];
    for sub in kind.info.subresources {
        let (group, version, sub_kind, verbs) = subresource(kind, *sub);
        let mut entry = json!({
            "name": format!("{}/{}", kind.info.plural, sub.as_str()), "singularName": "",
            "namespaced": kind.namespaced(), "kind": sub_kind, "verbs": verbs,
        });
        if group != kind.group || version != kind.version {
            if !group.is_empty() {
                entry["group"] = group.into();
            }
            entry["version"] = version.into();
        }
        out.push(entry);
    }
    out
}

fn aggregated_resource(kind: &Kind) -> Value {
    let gvk = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut out = json!({
        "resource": kind.info.plural,
        "responseKind": gvk(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
        "singularResource": kind.info.singular,
        "verbs": verbs(kind),
    });
    if !kind.info.short_names.is_empty() {
        out["shortNames"] = json!(kind.info.short_names);
    }
    if !kind.info.categories.is_empty() {
        out["categories"] = json!(kind.info.categories);
    }
    let subresources: Vec<Value> = kind
        .info
        .subresources
        .iter()
        .map(|sub| {
            let (group, version, sub_kind, verbs) = subresource(kind, *sub);
            json!({"subresource": sub.as_str(), "responseKind": gvk(group, version, sub_kind), "verbs": verbs})
        })
        .collect();
    if !subresources.is_empty() {
        out["subresources"] = subresources.into();
    }
    out
}

fn storage_version_hash(kind: &Kind) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", kind.group, kind.version, kind.kind);
    base64::engine::general_purpose::STANDARD.encode(&Sha256::digest(text)[..8])
}

/// Answers a path that is no resource.
pub(crate) async fn answer(
    api: &Arc<ApiServer>,
    head: &request::Parts,
    path: &str,
    query: &Query,
) -> Result<Response<Body>, ApiError> {
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_known());
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let mut response = match segments.as_slice() {
        [] => value(&root(api))?,
        ["version"] => value(&version())?,
        [check @ ("healthz" | "livez" | "readyz"), rest @ ..] => health(api, check, rest, query),
        ["metrics"] => {
            text("application/openmetrics-text; version=1.0.0; charset=utf-8", api.metrics.page(&api.store)?)
        }
        ["api"] if aggregated(head) => groups(api, |g| g.name.is_empty())?,
        ["apis"] if aggregated(head) => groups(api, |g| !g.name.is_empty())?,
        ["api"] => value(&json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        }))?,
        ["apis"] => {
            let groups: Vec<Value> =
                api.discovery.groups.iter().filter(|g| !g.name.is_empty()).map(Group::document).collect();
            value(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))?
        }
        ["api", version] => value(&api.discovery.group("")?.resources(version)?)?,
        ["apis", group] => {
            let mut document = api.discovery.group(group)?.document();
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            value(&document)?
        }
        ["apis", group, version] => value(&api.discovery.group(group)?.resources(version)?)?,
        ["openapi", "v2"] => open_api_v2(head)?,
        ["openapi", rest @ ..] => open_api(rest, query)?,
        ["openid", "v1", "jwks"] => value(&api.authenticator.signer().jwks())?,
        [".well-known", "openid-configuration"] => {
            let issuer = api.authenticator.signer().issuer();
            value(&json!({
                "issuer": issuer, "jwks_uri": format!("{issuer}/openid/v1/jwks"),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }))?
        }
        _ => return Err(ApiError::no_such_path()),
    };
    response = crate::wire::Form::accepted(&head.headers).answer(response);
    crate::compress::compress(&api.aside, &head.headers, response).await
}

/// Whether the client asks for all groups in one document.
fn aggregated(head: &request::Parts) -> bool {
    let accept = head.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accept.split(',').any(|c| c.contains("as=APIGroupDiscoveryList") && c.contains("v=v2") && !c.contains("v=v2beta"))
}

fn groups(api: &ApiServer, wanted: impl Fn(&Group) -> bool) -> Result<Response<Body>, ApiError> {
    let items: Vec<Value> = api.discovery.groups.iter().filter(|g| wanted(g)).map(Group::aggregated).collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    let mut response = value(&document)?;
    let media = http::HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response.headers_mut().append(header::VARY, http::HeaderValue::from_static("Accept"));
    Ok(response)
}

fn root(api: &ApiServer) -> Value {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for group in &api.discovery.groups {
        let base = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        if !group.name.is_empty() {
            paths.push(base.clone());
        }
        paths.extend(group.versions.iter().map(|(v, _)| format!("{base}/{v}")));
    }
    for path in ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"] {
        paths.push(path.to_owned());
    }
    json!({"paths": paths})
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36",
        "gitVersion": format!("{KUBERNETES_VERSION}+coracle.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

/// The architecture by Go's name, which clients expect.
#[must_use]
pub fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn health(api: &ApiServer, check: &str, rest: &[&str], query: &Query) -> Response<Body> {
    let started = api.ready.get().is_some();
    let mut checks = vec![("ping", true), ("etcd", true)];
    if check == "readyz" {
        checks.push(("poststarthook/start-controllers", started));
    }
    if let [one] = rest {
        let found = checks.iter().find(|(name, _)| name == one);
        return match found {
            Some((_, true)) => plain(StatusCode::OK, "ok".to_owned()),
            Some((_, false)) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{one} failed")),
            None => render::error(&ApiError::no_such_path()),
        };
    }
    let good = checks.iter().all(|(name, ok)| *ok || query.all("exclude").any(|e| e == *name));
    let status = if good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    if good && !query.flag("verbose") && query.get("verbose").is_none() {
        return plain(status, "ok".to_owned());
    }
    let mut text = String::new();
    for (name, ok) in checks {
        text.push_str(&if ok { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") });
    }
    text.push_str(&format!("{check} check {}\n", if good { "passed" } else { "failed" }));
    plain(status, text)
}

fn plain(status: StatusCode, body: String) -> Response<Body> {
    let mut response = text("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn text(media: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(media));
    response
}

fn value(value: &Value) -> Result<Response<Body>, ApiError> {
    Ok(render::json(StatusCode::OK, Body::full(render::to_bytes(value)?)))
}

/// `/openapi/v2`, in the first form of `Accept` that there is: JSON, or protobuf, whose old media type had an `@`.
fn open_api_v2(head: &request::Parts) -> Result<Response<Body>, ApiError> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    const OLD_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let accept = head.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    let form = accept.split(',').find_map(|clause| match clause.split(';').next().unwrap_or_default().trim() {
        "application/json" | "application/*" | "*/*" => Some("application/json"),
        PROTOBUF | OLD_PROTOBUF => Some(PROTOBUF),
        _ => None,
    });
    let form = form.ok_or_else(|| ApiError::not_acceptable(&format!("application/json, {PROTOBUF}")))?;
    let bytes = match form {
        PROTOBUF => openapi::v2_protobuf(coracle_api::KINDS),
        _ => openapi::v2(coracle_api::KINDS),
    };
    let mut response = render::json(StatusCode::OK, Body::full(Bytes::from(bytes)));
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(form));
    response.headers_mut().append(header::VARY, http::HeaderValue::from_static("Accept"));
    Ok(response)
}

/// `/openapi/v3`, `/openapi/v3/api/v1`, `/openapi/v3/apis/apps/v1`.
fn open_api(rest: &[&str], query: &Query) -> Result<Response<Body>, ApiError> {
    let bytes = match rest {
        ["v3"] => openapi::v3_index(coracle_api::KINDS),
        ["v3", path @ ..] => openapi::v3(&path.join("/"), coracle_api::KINDS).ok_or_else(ApiError::no_such_path)?,
        _ => return Err(ApiError::no_such_path()),
    };
    let mut response = render::json(StatusCode::OK, Body::full(Bytes::from(bytes)));
    if query.get("hash").is_some() {
        // The hash is of the document: it never changes under this URL.
        let forever = http::HeaderValue::from_static("public, immutable, max-age=31536000");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    Ok(response)
}
