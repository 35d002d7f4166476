//! Tokens that an agent asks for: each is for a pod of its node, and for nobody the pod does not speak to.

use coracle_api::ApiError;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::core::v1::Pod;

use crate::api::Call;
use crate::registry::Stored;

/// Refuses an agent's request for a token that is not for a pod of its own.
pub(crate) fn admit(call: &Call<'_>, spec: Option<&TokenRequestSpec>) -> Result<(), ApiError> {
    let Some(node) = call.user.node_name() else { return Ok(()) };
    let forbid = |why: &str| Err(ApiError::forbidden(call.kind().resource(), &call.path.name, why));
    let reference = spec.and_then(|spec| spec.bound_object_ref.as_ref());
    let bound = reference.filter(|to| to.api_version.as_deref() == Some("v1") && to.kind.as_deref() == Some("Pod"));
    let Some((bound, name)) = bound.and_then(|to| Some((to, to.name.as_deref().filter(|name| !name.is_empty())?)))
    else {
        return forbid("node requested token not bound to a pod");
    };
    let Some(uid) = bound.uid.as_deref().filter(|uid| !uid.is_empty()) else {
        return forbid("node requested token with a pod binding without a uid");
    };
    let pods = call.api.registry.of::<Pod>();
    let missing = || ApiError::not_found(pods.kind.resource(), name);
    let entry = call.api.store.get(&pods.key(&call.path.namespace, name)).ok_or_else(missing)?;
    let stored = Stored::of(pods.kind, entry)?;
    let pod = stored.typed::<Pod>().ok_or_else(missing)?;
    if pod.metadata.uid.as_deref() != Some(uid) {
        return forbid(&format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) != Some(node) {
        return forbid("node requested token bound to a pod scheduled on a different node");
    }
    let audience = match spec.and_then(|spec| spec.audiences.as_deref()).unwrap_or_default() {
        [] => "",
        [audience] => audience.as_str(),
        _ => return forbid("node may only request 0 or 1 audiences"),
    };
    if !speaks_to(pod, audience) {
        return forbid(&format!("audience {audience:?} not found in pod spec volume"));
    }
    Ok(())
}

/// Whether a volume of the pod holds a token for an audience; the empty one is the API itself.
fn speaks_to(pod: &Pod, audience: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources = volumes.filter_map(|volume| volume.projected.as_ref()).flat_map(|all| all.sources.iter().flatten());
    let mut tokens = sources.filter_map(|source| source.service_account_token.as_ref());
    tokens.any(|token| token.audience.as_deref().unwrap_or_default() == audience)
}
