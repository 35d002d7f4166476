//! `serviceaccounts/token`: signs a token for a service account, bound to an object if the request names one.

use coracle_api::ApiError;
use coracle_api::validation::{Errors, FieldPath};
use http::{Response, StatusCode};
use jiff::SignedDuration;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::admission::node_restriction::admit_token;
use crate::api::Call;
use crate::auth::token::{BoundTo, Claims, Named};
use crate::body::Body;
use crate::options::{DryRun, Write, WriteOptions};
use crate::registry::Stored;
use crate::render;
use crate::writes::current;

/// Shorter tokens are refused (`--service-account-max-token-expiration` aside).
const MIN_SECONDS: i64 = 600;
/// 2^32, Kubernetes' bound.
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

/// Signs a token for the service account of the path.
pub(crate) async fn create(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(call.query, Write::Create)?;
    let mut request: TokenRequest = serde_json::from_slice(body).map_err(|e| {
        ApiError::bad_request(format!("TokenRequest in version \"v1\" cannot be handled as a TokenRequest: {e}"))
    })?;
    admit_token(call, request.spec.as_ref())?;
    let stored = current(call)?;
    let account = stored.typed::<ServiceAccount>().ok_or_else(ApiError::no_such_path)?;
    let uid = account.metadata.uid.clone().unwrap_or_default();
    let spec = request.spec.get_or_insert_default();
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    validate(call, seconds)?;
    let audiences = spec.audiences.get_or_insert_default();
    if audiences.is_empty() {
        *audiences = call.api.authenticator.signer().audiences().to_vec();
    }
    let audiences = audiences.clone();
    spec.expiration_seconds = Some(seconds);
    let bound = match &spec.bound_object_ref {
        Some(reference) => Some(bound_to(call, reference)?),
        None => None,
    };
    let expires = call.now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(call.now);
    let claims = Claims {
        namespace: call.path.namespace.clone(),
        service_account: call.path.name.clone(),
        service_account_uid: uid,
        audiences,
        issued: call.now,
        expires,
        bound,
    };
    let token = if options.dry_run == DryRun::All {
        String::new()
    } else {
        call.api.authenticator.signer().sign(&claims).map_err(|e| ApiError::internal(e.to_string()))?
    };
    request.metadata.name = Some(call.path.name.clone());
    request.metadata.namespace = Some(call.path.namespace.clone());
    request.metadata.creation_timestamp = Some(crate::meta::whole_seconds(call.now));
    request.status = Some(TokenRequestStatus { expiration_timestamp: Some(Time(expires)), token: Some(token) });
    Ok(render::json(StatusCode::CREATED, Body::full(render::to_bytes(&request)?)))
}

fn validate(call: &Call<'_>, seconds: i64) -> Result<(), ApiError> {
    let mut errors = Errors::new();
    let path = FieldPath::new("spec").child("expirationSeconds");
    if seconds < MIN_SECONDS {
        errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > MAX_SECONDS {
        errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", &call.path.name, &errors))
    }
}

/// A pod's node. One that is not there has no uid; the token is good all the same.
fn named_node(call: &Call<'_>, name: String) -> Result<Named, ApiError> {
    let served = call.api.registry.of::<Node>();
    let stored = call.api.store.get(&served.key("", &name)).map(|entry| Stored::of(served.kind, entry)).transpose()?;
    let uid = stored.and_then(|stored| stored.object().meta().uid.clone()).unwrap_or_default();
    Ok(Named { name, uid })
}

/// The object a token is bound to must exist now; it ceases to work when the object goes.
fn bound_to(call: &Call<'_>, reference: &BoundObjectReference) -> Result<BoundTo, ApiError> {
    let registry = &call.api.registry;
    let kind = reference.kind.as_deref().unwrap_or_default();
    let served = match (reference.api_version.as_deref(), kind) {
        (Some("v1"), "Pod") => registry.of::<Pod>(),
        (Some("v1"), "Secret") => registry.of::<Secret>(),
        (Some("v1"), "Node") => registry.of::<Node>(),
        (version, kind) => {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount to {}, Kind={kind}",
                version.unwrap_or_default()
            )));
        }
    };
    let name = reference.name.as_deref().unwrap_or_default();
    let key = served.key(&call.path.namespace, name);
    let entry = call.api.store.get(&key).ok_or_else(|| ApiError::not_found(served.kind.resource(), name))?;
    let stored = Stored::of(served.kind, entry)?;
    let uid = stored.object().meta().uid.clone().unwrap_or_default();
    if let Some(wanted) = reference.uid.as_ref().filter(|u| **u != uid) {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(served.kind.resource(), name, &why));
    }
    let mut bound = BoundTo { kind: kind.to_owned(), name: name.to_owned(), uid, node: None };
    if let Some(pod) = stored.typed::<Pod>() {
        let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
        if account != call.path.name {
            return Err(ApiError::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                call.path.name
            )));
        }
        let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        bound.node = node.map(|name| named_node(call, name)).transpose()?;
    }
    Ok(bound)
}
