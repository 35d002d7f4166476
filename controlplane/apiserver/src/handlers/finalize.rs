//! `namespaces/finalize`: takes away `spec.finalizers`; with the last one an emptied namespace goes.

use coracle_api::ApiError;
use coracle_api::kind::Subresource;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::Namespace;

use crate::api::Call;
use crate::body::Body;
use crate::options::{Write, WriteOptions};
use crate::render;
use crate::writes::{self, Part};

/// Replaces the finalizers of the namespace of the path.
pub(crate) async fn put(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(call.query, Write::Update)?;
    let wanted = writes::decode_body(call, call.kind(), body, &options)?;
    let wanted = wanted.as_any().downcast_ref::<Namespace>().ok_or_else(ApiError::no_such_path)?;
    let part = Part::Through(Subresource::Finalize);
    let written = writes::update(call, part, &options, |old| {
        let mut namespace = old.typed::<Namespace>().ok_or_else(ApiError::no_such_path)?.clone();
        namespace.spec.clone_from(&wanted.spec);
        namespace.metadata.resource_version.clone_from(&wanted.metadata.resource_version);
        namespace.metadata.uid = wanted.metadata.uid.clone().or(namespace.metadata.uid);
        Ok(coracle_api::kind::boxed(namespace))
    })
    .await?;
    Ok(render::json(StatusCode::OK, Body::full(written.render(call)?)))
}
