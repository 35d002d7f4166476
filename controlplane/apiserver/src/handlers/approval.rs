//! `certificatesigningrequests/approval`: changes the conditions of a request and nothing else.

use coracle_api::ApiError;
use coracle_api::kind::{Object, Subresource};
use http::{Response, StatusCode};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::patch::{Patch, reread};
use crate::api::Call;
use crate::body::Body;
use crate::options::{Write, WriteOptions};
use crate::registry::Stored;
use crate::render;
use crate::writes::{self, Part};

const PART: Part = Part::Through(Subresource::Approval);

/// Replaces the conditions.
pub(crate) async fn put(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(call.query, Write::Update)?;
    let wanted = writes::decode_body(call, call.kind(), body, &options)?;
    approve(call, &options, |_| Ok(wanted.boxed_clone())).await
}

/// Patches the conditions.
pub(crate) async fn patch(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(call.query, Write::Patch)?;
    let patch = Patch::read(call.headers, body)?;
    approve(call, &options, |old| reread(call, old, &patch.apply(call.kind(), &old.bytes()?)?)).await
}

async fn approve<F>(call: &Call<'_>, options: &WriteOptions, make: F) -> Result<Response<Body>, ApiError>
where
    F: Fn(&Stored) -> Result<Box<dyn Object>, ApiError> + Send + Sync,
{
    let written = writes::update(call, PART, options, |old| {
        let wanted = make(old)?;
        let wanted = wanted.as_any().downcast_ref::<CertificateSigningRequest>().ok_or_else(ApiError::no_such_path)?;
        let mut new = old.typed::<CertificateSigningRequest>().ok_or_else(ApiError::no_such_path)?.clone();
        new.metadata.resource_version.clone_from(&wanted.metadata.resource_version);
        let conditions = wanted.status.as_ref().and_then(|s| s.conditions.clone());
        new.status.get_or_insert_default().conditions = conditions;
        Ok(coracle_api::kind::boxed(new))
    })
    .await?;
    Ok(render::json(StatusCode::OK, Body::full(written.render(call)?)))
}
