//! Kinds that are measured when they are asked for: `metrics.k8s.io`, with the answers of metrics-server.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::kind::Object;
use coracle_api::metrics::{ContainerMetrics, NodeMetrics, PodMetrics, Usage, Window};
use coracle_api::quantity::Amount;
use coracle_api::{ApiError, Resource, kind};
use coracle_store::ListRange;
use http::{Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::read::MOST_AT_ONCE;
use super::select::Selection;
use crate::api::Call;
use crate::body::Body;
use crate::options::ListOptions;
use crate::registry::Stored;
use crate::render;
use crate::request::Verb;
use crate::usage::{Figures, PodFigures, Span, Use};
use crate::writes::current;

/// Answers a request for figures.
pub(crate) async fn answer(call: &Call<'_>, verb: Verb) -> Result<Response<Body>, ApiError> {
    let is_node = call.kind().kind == <NodeMetrics as k8s_openapi::Resource>::KIND;
    match (verb, is_node) {
        (Verb::Get, true) => {
            let found = nodes(call, vec![owner::<Node>(call)?]).await;
            one(call, found, &call.path.name)
        }
        (Verb::Get, false) => {
            let found = pods(call, vec![owner::<Pod>(call)?]).await;
            one(call, found, &format!("{}/{}", call.path.namespace, call.path.name))
        }
        (Verb::List, true) => list(call, nodes(call, selected::<Node>(call)?).await).await,
        (Verb::List, false) => list(call, pods(call, selected::<Pod>(call)?).await).await,
        (verb, _) => Err(ApiError::method_not_allowed(call.kind().resource(), verb.as_str())),
    }
}

/// The node or pod that the figures are of.
fn owner<T: Resource>(call: &Call<'_>) -> Result<Stored, ApiError> {
    current(&call.with(call.path, call.api.registry.of::<T>()))
}

/// The nodes or pods that the request selects: figures have the names and labels of what they are of.
fn selected<T: Resource>(call: &Call<'_>) -> Result<Vec<Stored>, ApiError> {
    ListOptions::parse(call.query, false)?;
    let selection = Selection::parse(call)?;
    let served = call.api.registry.of::<T>();
    let entries = call.api.store.list(&served.collection, &ListRange::namespace(&call.path.namespace)).entries;
    let mut found = Vec::new();
    for entry in entries {
        let stored = Stored::of(served.kind, entry)?;
        if selection.matches_object(stored.object()) {
            found.push(stored);
        }
    }
    Ok(found)
}

async fn nodes(call: &Call<'_>, nodes: Vec<Stored>) -> Vec<Box<dyn Object>> {
    let name = |node: &Stored| node.object().meta().name.clone().unwrap_or_default();
    let figures = call.api.usage_of(nodes.iter().map(name)).await;
    let of = |node: &Stored| {
        let (span, used) = figures.get(&name(node))?.node?;
        let metadata = metadata(node.object().meta(), call.now);
        let (timestamp, window) = time(span);
        Some(kind::boxed(NodeMetrics { metadata, timestamp, window, usage: usage(used) }))
    };
    nodes.iter().filter_map(of).collect()
}

async fn pods(call: &Call<'_>, pods: Vec<Stored>) -> Vec<Box<dyn Object>> {
    let pods: Vec<(&Pod, &str)> = pods.iter().filter_map(|pod| running(pod.typed::<Pod>()?)).collect();
    let nodes: BTreeSet<&str> = pods.iter().map(|(_, node)| *node).collect();
    let figures = call.api.usage_of(nodes.into_iter().map(str::to_owned)).await;
    pods.iter().filter_map(|(pod, node)| pod_metrics(pod, node, &figures, call.now)).collect()
}

/// A pod that runs, and its node. Others have no figures.
fn running(pod: &Pod) -> Option<(&Pod, &str)> {
    let runs = pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"));
    let node = pod.spec.as_ref()?.node_name.as_deref().filter(|_| runs)?;
    Some((pod, node))
}

fn pod_metrics(
    pod: &Pod,
    node: &str,
    figures: &HashMap<String, Arc<Figures>>,
    now: Timestamp,
) -> Option<Box<dyn Object>> {
    let (namespace, name) = (pod.metadata.namespace.as_deref()?, pod.metadata.name.as_deref()?);
    let PodFigures { span, containers } = figures.get(node)?.pod(namespace, name)?;
    let containers = containers
        .iter()
        .map(|(name, used)| ContainerMetrics { name: name.as_ref().to_owned(), usage: usage(*used) })
        .collect();
    let (timestamp, window) = time(*span);
    Some(kind::boxed(PodMetrics { metadata: metadata(&pod.metadata, now), timestamp, window, containers }))
}

/// Of what the figures are; they are made now.
fn metadata(of: &ObjectMeta, now: Timestamp) -> ObjectMeta {
    ObjectMeta {
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        labels: of.labels.clone(),
        creation_timestamp: Some(Time(now)),
        ..ObjectMeta::default()
    }
}

fn time(span: Span) -> (Option<Time>, Window) {
    // Nobody needs more digits than thousandths.
    let window = Duration::from_millis(u64::try_from(span.window.as_millis()).unwrap_or(u64::MAX));
    (Some(Time(span.end)), Window { nanoseconds: i64::try_from(window.as_nanos()).unwrap_or(i64::MAX) })
}

fn usage(used: Use) -> Usage {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let cpu = Amount::from_nano(number(used.cpu_nano_cores)).to_quantity();
    let memory = Amount::from_bytes(number(used.memory_bytes)).to_quantity();
    [("cpu".to_owned(), cpu), ("memory".to_owned(), memory)].into()
}

/// The one object, or 404 in the words of metrics-server, which names a pod with its namespace.
fn one(call: &Call<'_>, found: Vec<Box<dyn Object>>, name: &str) -> Result<Response<Body>, ApiError> {
    let object = found.into_iter().next();
    let object = object.ok_or_else(|| ApiError::not_found(call.kind().resource(), name))?;
    let text = object.encode().into();
    let body = render::shaped(call.kind(), &*object, Some(&text), "", call.shape, call.now, true)?;
    Ok(render::json(StatusCode::OK, Body::full(body)))
}

async fn list(call: &Call<'_>, found: Vec<Box<dyn Object>>) -> Result<Response<Body>, ApiError> {
    let (kind, shape, now) = (call.kind(), call.shape, call.now);
    let body = if found.len() <= MOST_AT_ONCE {
        render::unstored(kind, &found, shape, now)
    } else {
        call.api.aside.run(move || render::unstored(kind, &found, shape, now)).await?
    };
    Ok(render::json(StatusCode::OK, body?))
}
