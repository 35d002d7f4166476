//! The `scale` subresource: replicas of a workload as an `autoscaling/v1` Scale.

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::selector::Selector;
use http::{Response, StatusCode};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};

use super::patch::{Patch, reread};
use crate::api::Call;
use crate::body::Body;
use crate::options::{Write, WriteOptions};
use crate::registry::Stored;
use crate::render;
use crate::writes::{self, Part, Written};

/// The scale of the object of the path.
pub(crate) fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let stored = writes::current(call)?;
    answer(&scale_of(&value(&stored.bytes()?)?)?)
}

/// Sets the scale.
pub(crate) async fn put(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let wanted: Scale = serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("Scale in version \"v1\" cannot be handled as a Scale: {e}")))?;
    set(call, |_| Ok(wanted.clone())).await
}

/// Patches the scale.
pub(crate) async fn patch(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let patch = Patch::read(call.headers, body)?;
    set(call, |scale| {
        let text = serde_json::to_vec(scale).map_err(|e| ApiError::internal(e.to_string()))?;
        let patched = patch.apply(call.kind(), &text)?;
        serde_json::from_value(patched).map_err(|e| ApiError::bad_request(e.to_string()))
    })
    .await
}

async fn set<F>(call: &Call<'_>, make: F) -> Result<Response<Body>, ApiError>
where
    F: Fn(&Scale) -> Result<Scale, ApiError> + Send + Sync,
{
    let options = WriteOptions::parse(call.query, Write::Update)?;
    let written = writes::update(call, Part::Spec, &options, |old| {
        let mut object = value(&old.bytes()?)?;
        let present = scale_of(&object)?;
        let wanted = make(&present)?;
        check(call, &wanted, old)?;
        let replicas = wanted.spec.and_then(|s| s.replicas).unwrap_or(0);
        object["spec"]["replicas"] = replicas.into();
        let mut new = reread(call, old, &object)?;
        if let Some(version) =
            wanted.metadata.resource_version.filter(|v| Some(v) != present.metadata.resource_version.as_ref())
        {
            new.meta_mut().resource_version = Some(version);
        }
        Ok(new)
    })
    .await?;
    let bytes: Bytes = match &written {
        Written::Stored(stored) => stored.bytes()?,
        Written::Unstored(_, bytes) => bytes.clone(),
    };
    answer(&scale_of(&value(&bytes)?)?)
}

fn check(call: &Call<'_>, wanted: &Scale, old: &Stored) -> Result<(), ApiError> {
    let name = &call.path.name;
    let mut errors = coracle_api::validation::Errors::new();
    let replicas = wanted.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    if replicas < 0 {
        let path = coracle_api::validation::FieldPath::new("spec").child("replicas");
        errors.invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid("autoscaling", "Scale", name, &errors));
    }
    if wanted.metadata.name.as_deref().is_some_and(|n| n != name) {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            wanted.metadata.name.as_deref().unwrap_or_default()
        )));
    }
    if let (Some(uid), have) = (wanted.metadata.uid.as_deref(), old.object().meta().uid.as_deref())
        && !uid.is_empty()
        && have != Some(uid)
    {
        return Err(ApiError::conflict(
            call.kind().resource(),
            name,
            "Precondition failed: UID in precondition differs",
        ));
    }
    Ok(())
}

fn value(bytes: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(&coracle_api::managed::without(bytes)).map_err(|e| ApiError::internal(e.to_string()))
}

/// The scale of any object with `spec.replicas`, `status.replicas` and a selector.
fn scale_of(object: &Value) -> Result<Scale, ApiError> {
    let number = |v: &Value| v.as_i64().and_then(|n| i32::try_from(n).ok());
    let metadata: ObjectMeta =
        serde_json::from_value(object["metadata"].clone()).map_err(|e| ApiError::internal(e.to_string()))?;
    Ok(Scale {
        metadata: ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            creation_timestamp: metadata.creation_timestamp,
            ..Default::default()
        },
        spec: Some(ScaleSpec { replicas: Some(number(&object["spec"]["replicas"]).unwrap_or(0)) }),
        status: Some(ScaleStatus {
            replicas: number(&object["status"]["replicas"]).unwrap_or(0),
            selector: Some(selector_text(&object["spec"]["selector"])),
        }),
    })
}

/// The selector as a query's text: a ReplicationController has a plain map, the others a `LabelSelector`.
fn selector_text(selector: &Value) -> String {
    let is_label_selector = selector.get("matchLabels").is_some_and(Value::is_object)
        || selector.get("matchExpressions").is_some_and(Value::is_array);
    let parsed = if is_label_selector {
        serde_json::from_value::<LabelSelector>(selector.clone())
            .ok()
            .and_then(|s| Selector::from_label_selector(&s).ok())
    } else {
        serde_json::from_value(selector.clone()).ok().map(|map| Selector::from_map(&map))
    };
    parsed.map(|s| s.to_string()).unwrap_or_default()
}

fn answer(scale: &Scale) -> Result<Response<Body>, ApiError> {
    let mut value = serde_json::to_value(scale).map_err(|e| ApiError::internal(e.to_string()))?;
    if value["spec"]["replicas"].is_null() {
        value["spec"] = json!({});
    }
    Ok(render::json(StatusCode::OK, Body::full(render::to_bytes(&value)?)))
}
