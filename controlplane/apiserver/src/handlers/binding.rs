//! `pods/binding`: gives a pod to a node. The scheduler's one write, so it takes the typed object and no patch.

use coracle_api::ApiError;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use serde_json::json;

use crate::api::Call;
use crate::body::Body;
use crate::meta::whole_seconds;
use crate::options::{Write, WriteOptions};
use crate::render;
use crate::writes::{self, Part};

/// Binds a pod. `path_name` is empty for the old `bindings` resource, where the body alone names the pod.
pub(crate) async fn bind(call: &Call<'_>, path_name: &str, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let binding: Binding = serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("Binding in version \"v1\" cannot be handled as a Binding: {e}")))?;
    let named = binding.metadata.name.as_deref().unwrap_or_default();
    if path_name.is_empty() {
        return bind_by_body(call, named, &binding).await;
    }
    if !named.is_empty() && named != path_name {
        return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
    }
    carry_out(call, &binding).await
}

async fn bind_by_body(call: &Call<'_>, name: &str, binding: &Binding) -> Result<Response<Body>, ApiError> {
    if name.is_empty() {
        return Err(ApiError::bad_request("name is required"));
    }
    let path = crate::request::ResourcePath {
        resource: "pods".to_owned(),
        name: name.to_owned(),
        subresource: "binding".to_owned(),
        ..call.path.clone()
    };
    let pods = call.with(&path, call.api.registry.of::<Pod>());
    carry_out(&pods, binding).await
}

async fn carry_out(call: &Call<'_>, binding: &Binding) -> Result<Response<Body>, ApiError> {
    let node = binding.target.name.as_deref().unwrap_or_default();
    let kind = binding.target.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "" | "Node") || node.is_empty() {
        let mut errors = coracle_api::validation::Errors::new();
        let target = coracle_api::validation::FieldPath::new("target");
        if !matches!(kind, "" | "Node") {
            errors.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
        }
        if node.is_empty() {
            errors.required(&target.child("name"), "");
        }
        return Err(ApiError::invalid("", "Binding", &call.path.name, &errors));
    }
    let options = WriteOptions::parse(call.query, Write::Create)?;
    writes::update(call, Part::Through(coracle_api::kind::Subresource::Binding), &options, |old| {
        let pod = old.typed::<Pod>().ok_or_else(|| ApiError::internal("a pod is no pod"))?;
        check(call, binding, pod)?;
        let mut pod = pod.clone();
        assign(&mut pod, node, binding, call.now);
        Ok(coracle_api::kind::boxed(pod))
    })
    .await?;
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(render::json(StatusCode::CREATED, Body::full(render::to_bytes(&done)?)))
}

fn check(call: &Call<'_>, binding: &Binding, pod: &Pod) -> Result<(), ApiError> {
    let name = &call.path.name;
    let conflict = |why: &str| {
        let resource = coracle_api::status::ResourceName { group: "", plural: "pods/binding" };
        ApiError::conflict(resource, name, why)
    };
    if binding.metadata.uid.as_ref().is_some_and(|uid| Some(uid) != pod.metadata.uid.as_ref()) {
        let (want, have) = (binding.metadata.uid.as_deref(), pod.metadata.uid.as_deref());
        return Err(conflict(&format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            want.unwrap_or_default(),
            have.unwrap_or_default()
        )));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let spec = pod.spec.as_ref();
    if let Some(node) = spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()) {
        return Err(conflict(&format!("pod {name} is already assigned to node {node:?}")));
    }
    if spec.and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|g| !g.is_empty()) {
        return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    Ok(())
}

fn assign(pod: &mut Pod, node: &str, binding: &Binding, now: jiff::Timestamp) {
    pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
    if let Some(annotations) = &binding.metadata.annotations {
        pod.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    let status = pod.status.get_or_insert_default();
    status.nominated_node_name = None;
    let conditions = status.conditions.get_or_insert_default();
    let generation = pod.metadata.generation;
    let scheduled = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(whole_seconds(now)),
        observed_generation: generation,
        ..Default::default()
    };
    match conditions.iter_mut().find(|c| c.type_ == "PodScheduled") {
        Some(condition) if condition.status == "True" => {}
        Some(condition) => *condition = scheduled,
        None => conditions.push(scheduled),
    }
}
