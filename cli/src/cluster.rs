//! The way to a cluster: finds the kubeconfig, sends requests, reads answers and streams. It knows no kind.

use std::{io, pin::Pin};

use anyhow::Context as _;
use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _};
use http::{Method, Request, Response, header};
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::Value;

use crate::{
    failure::{Refused, Unreachable},
    options::Options,
};

/// Largest answer that is read at once. A list comes in chunks well below it.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Answers as tables of text, where the server can.
pub(crate) const AS_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A strategic merge patch.
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// A JSON merge patch.
pub(crate) const MERGE: &str = "application/merge-patch+json";
/// A list of operations.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";

/// Who wrote a field, as the server keeps it.
pub(crate) const FIELD_MANAGER: &str = "coracle";

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    body: Option<(String, Vec<u8>)>,
    accept: String,
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), query: Vec::new(), body: None, accept: "application/json".to_owned() }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    pub(crate) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path).body("application/json", body)
    }

    pub(crate) fn put(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PUT, path).body("application/json", body)
    }

    pub(crate) fn patch(path: impl Into<String>, sort: &str, body: &Value) -> Self {
        Self::new(Method::PATCH, path).body(sort, body)
    }

    pub(crate) fn body(mut self, content_type: &str, body: &Value) -> Self {
        self.body = Some((content_type.to_owned(), body.to_string().into_bytes()));
        self
    }

    pub(crate) fn query(mut self, name: &str, value: impl ToString) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a parameter that has a value.
    pub(crate) fn maybe(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    pub(crate) fn accept(mut self, accept: &str) -> Self {
        accept.clone_into(&mut self.accept);
        self
    }

    fn into_request(self) -> anyhow::Result<Request<Body>> {
        let mut uri = self.path;
        if !self.query.is_empty() {
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
            uri.push(if uri.contains('?') { '&' } else { '?' });
            uri.push_str(&query);
        }
        let mut request = Request::builder().method(self.method).uri(uri).header(header::ACCEPT, self.accept);
        let body = match self.body {
            Some((content_type, body)) => {
                request = request.header(header::CONTENT_TYPE, content_type);
                Body::from(body)
            }
            None => Body::empty(),
        };
        Ok(request.body(body)?)
    }
}

/// What happened to an object that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// Changes as they happen.
pub(crate) type Changes = Pin<Box<dyn Stream<Item = anyhow::Result<(Change, Value)>> + Send>>;

/// Lines as they come.
pub(crate) type Lines = Pin<Box<dyn Stream<Item = io::Result<Vec<u8>>> + Send>>;

/// A cluster that is talked to.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// The namespace of requests that name none.
    pub namespace: String,
    /// Whether the namespace was asked for by a flag.
    pub namespace_given: NamespaceGiven,
    server: String,
}

/// Where the namespace comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamespaceGiven {
    /// By `--namespace`: objects must agree with it.
    ByFlag,
    /// By the context, or by nothing.
    ByDefault,
}

impl Cluster {
    /// Reads the kubeconfig. Nothing is sent yet.
    pub(crate) async fn connect(options: &Options) -> anyhow::Result<Self> {
        let kubeconfig = kubeconfig(options)?;
        let which = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
        let mut config =
            Config::from_custom_kubeconfig(kubeconfig, &which).await.context("the kubeconfig is of no use")?;
        // A watch may be silent for long.
        config.read_timeout = None;
        let server = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
        let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let namespace_given =
            if options.namespace.is_some() { NamespaceGiven::ByFlag } else { NamespaceGiven::ByDefault };
        let client = Client::try_from(config).context("cannot set up the connection")?;
        Ok(Self { client, namespace, namespace_given, server })
    }

    /// The host and port that are talked to.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Sends a request and waits for the head of its answer. Warnings of the server are shown.
    pub(crate) async fn send(&self, call: Call) -> anyhow::Result<Response<Body>> {
        let response = self.client.send(call.into_request()?).await.map_err(|error| self.unreachable(&error))?;
        for warning in response.headers().get_all(header::WARNING).iter().filter_map(|value| value.to_str().ok()) {
            eprintln!("Warning: {}", warning_text(warning));
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let code = response.status();
        let bytes = read(response).await?;
        let status = match serde_json::from_slice::<Status>(&bytes) {
            Ok(status) if status.message.is_some() || status.reason.is_some() => status,
            _ => Status {
                code: Some(code.as_u16().into()),
                message: Some(match String::from_utf8_lossy(&bytes).trim() {
                    "" => format!("the server answered {code}"),
                    text => text.to_owned(),
                }),
                ..Status::default()
            },
        };
        Err(Refused { status: Box::new(status) }.into())
    }

    /// The answer as JSON.
    pub(crate) async fn json(&self, call: Call) -> anyhow::Result<Value> {
        let bytes = read(self.send(call).await?).await?;
        serde_json::from_slice(&bytes).context("the server's answer is not JSON")
    }

    /// The answer as text.
    pub(crate) async fn text(&self, call: Call) -> anyhow::Result<String> {
        let bytes = read(self.send(call).await?).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The answer's lines as they come, without their ends.
    pub(crate) async fn lines(&self, call: Call) -> anyhow::Result<Lines> {
        let body = self.send(call).await?.into_body();
        let reader = body.into_data_stream().map_err(io::Error::other).into_async_read();
        Ok(Box::pin(futures::stream::try_unfold(reader, async |mut reader| {
            let mut line = Vec::new();
            let read = reader.read_until(b'\n', &mut line).await?;
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            Ok((read > 0).then_some((line, reader)))
        })))
    }

    /// The answer's bytes as they come.
    pub(crate) async fn bytes(&self, call: Call) -> anyhow::Result<Lines> {
        let body = self.send(call).await?.into_body();
        Ok(Box::pin(body.into_data_stream().map_ok(|chunk| chunk.to_vec()).map_err(io::Error::other)))
    }

    /// Watches a collection from a resource version.
    pub(crate) async fn watch(&self, call: Call, resource_version: &str) -> anyhow::Result<Changes> {
        let call = call.query("watch", "true").query("resourceVersion", resource_version);
        let lines = self.lines(call).await?;
        Ok(Box::pin(lines.map(|line| {
            let mut event: Value = serde_json::from_slice(&line?).context("the watch sends what is no JSON")?;
            let object = event["object"].take();
            let change = match event["type"].as_str() {
                Some("ADDED") => Change::Added,
                Some("MODIFIED") => Change::Modified,
                Some("DELETED") => Change::Deleted,
                Some("BOOKMARK") => Change::Bookmark,
                _ => {
                    let status = serde_json::from_value(object).unwrap_or_default();
                    return Err(Refused { status: Box::new(status) }.into());
                }
            };
            Ok((change, object))
        })))
    }

    fn unreachable(&self, error: &kube::Error) -> Unreachable {
        let mut source: Option<&dyn std::error::Error> = Some(error);
        let mut deepest = error.to_string();
        while let Some(inner) = source {
            if let Some(io) = inner.downcast_ref::<io::Error>()
                && io.kind() == io::ErrorKind::ConnectionRefused
            {
                return Unreachable::Refused(self.server.clone());
            }
            deepest = inner.to_string();
            source = inner.source();
        }
        Unreachable::Other(deepest)
    }
}

/// `299 - "text"` without its wrapping.
fn warning_text(warning: &str) -> String {
    let text = warning.splitn(3, ' ').nth(2).unwrap_or(warning).trim();
    let inner = text.strip_prefix('"').and_then(|text| text.rsplit_once('"')).map_or(text, |(text, _)| text);
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

async fn read(response: Response<Body>) -> anyhow::Result<Vec<u8>> {
    let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let collected = limited.collect().await.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
    Ok(collected.to_bytes().to_vec())
}

fn kubeconfig(options: &Options) -> anyhow::Result<Kubeconfig> {
    if let Some(path) = &options.kubeconfig {
        return Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()));
    }
    if let Some(kubeconfig) = Kubeconfig::from_env().context("cannot read what $KUBECONFIG names")? {
        return Ok(kubeconfig);
    }
    let path = options.data_dir().join("kubeconfig");
    if path.exists() {
        return Kubeconfig::read_from(&path).with_context(|| format!("cannot read {}", path.display()));
    }
    anyhow::bail!(
        "there is no kubeconfig: start a cluster with `coracle server`, or name a file with --kubeconfig or $KUBECONFIG \
         (looked for {})",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::{Call, warning_text};

    #[test]
    fn queries_are_escaped() {
        let call = Call::get("/api/v1/pods")
            .query("labelSelector", "a=b,c in (d)")
            .maybe("limit", Some(5))
            .maybe("x", None::<u8>);
        let request = call.into_request().expect("it is valid");
        assert_eq!(request.uri(), "/api/v1/pods?labelSelector=a%3Db%2Cc+in+%28d%29&limit=5");
    }

    #[test]
    fn warnings_lose_their_wrapping() {
        assert_eq!(warning_text(r#"299 - "unknown field \"spec.x\"""#), "unknown field \"spec.x\"");
        assert_eq!(warning_text("odd"), "odd");
    }
}
