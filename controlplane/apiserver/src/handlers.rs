//! One handler per verb and subresource. They know the table of kinds, and no kind but where a subresource is about one.

mod approval;
mod binding;
mod delete;
mod eviction;
mod finalize;
mod measured;
mod patch;
mod read;
mod reviews;
mod scale;
mod select;
pub(crate) mod streams;
mod token;
pub(crate) mod watch;

use bytes::Bytes;
use coracle_api::ApiError;
use coracle_api::kind::{Storage, Subresource};
use coracle_api::validation::{Errors, Path};
use http::{Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::{Call, is_stored};
use crate::body::Body;
use crate::meta;
use crate::options::{Write, WriteOptions};
use crate::render;
use crate::request::Verb;
use crate::writes::{self, Part};

/// Hands a request to its handler.
pub(crate) async fn dispatch(call: &Call<'_>, verb: Verb, body: Bytes) -> Result<Response<Body>, ApiError> {
    if call.path.subresource.is_empty() {
        return object(call, verb, body).await;
    }
    let subresource = call
        .kind()
        .info
        .subresources
        .iter()
        .copied()
        .find(|s| s.as_str() == call.path.subresource)
        .ok_or_else(ApiError::no_such_path)?;
    match (subresource, verb) {
        (Subresource::Status, Verb::Get) => read::get(call),
        (Subresource::Status, Verb::Update) => put(call, Part::Status, &body).await,
        (Subresource::Status, Verb::Patch) => patch::patch(call, Part::Status, &body).await,
        (Subresource::Scale, Verb::Get) => scale::get(call),
        (Subresource::Scale, Verb::Update) => scale::put(call, &body).await,
        (Subresource::Scale, Verb::Patch) => scale::patch(call, &body).await,
        (Subresource::Binding, Verb::Create) => binding::bind(call, &call.path.name, &body).await,
        (Subresource::Eviction, Verb::Create) => eviction::evict(call, &body).await,
        (Subresource::Token, Verb::Create) => token::create(call, &body).await,
        (Subresource::Finalize, Verb::Update) => finalize::put(call, &body).await,
        (Subresource::Approval, Verb::Get) => read::get(call),
        (Subresource::Approval, Verb::Update) => approval::put(call, &body).await,
        (Subresource::Approval, Verb::Patch) => approval::patch(call, &body).await,
        (Subresource::EphemeralContainers | Subresource::Resize, Verb::Get) => read::get(call),
        (s @ (Subresource::EphemeralContainers | Subresource::Resize), Verb::Update) => {
            put(call, Part::Through(s), &body).await
        }
        (s @ (Subresource::EphemeralContainers | Subresource::Resize), Verb::Patch) => {
            patch::patch(call, Part::Through(s), &body).await
        }
        (_, verb) => Err(ApiError::method_not_allowed(call.kind().resource(), verb.as_str())),
    }
}

async fn object(call: &Call<'_>, verb: Verb, body: Bytes) -> Result<Response<Body>, ApiError> {
    if matches!(call.kind().info.storage, Storage::Measured) {
        return measured::answer(call, verb).await;
    }
    if !is_stored(call.kind()) {
        return match verb {
            Verb::Create if call.kind().kind == "Binding" => binding::bind(call, "", &body).await,
            Verb::Create => reviews::create(call, &body),
            verb => Err(ApiError::method_not_allowed(call.kind().resource(), verb.as_str())),
        };
    }
    match verb {
        Verb::Get => read::get(call),
        Verb::List => read::list(call).await,
        Verb::Create => post(call, &body).await,
        Verb::Update => put(call, Part::Spec, &body).await,
        Verb::Patch => patch::patch(call, Part::Spec, &body).await,
        Verb::Delete => delete::delete(call, &body).await,
        Verb::DeleteCollection if call.kind().info.has_delete_collection => {
            delete::delete_collection(call, &body).await
        }
        Verb::DeleteCollection | Verb::Options => Err(ApiError::method_not_known()),
        Verb::Watch => Err(ApiError::internal("watches are answered before they get here")),
    }
}

async fn post(call: &Call<'_>, body: &[u8]) -> Result<Response<Body>, ApiError> {
    if !call.path.name.is_empty() {
        return Err(ApiError::method_not_known());
    }
    let options = WriteOptions::parse(call.query, Write::Create)?;
    let object = writes::decode_body(call, call.kind(), body, &options)?;
    let written = writes::create(call, object, &options).await?;
    Ok(render::json(StatusCode::CREATED, Body::full(written.render(call)?)))
}

async fn put(call: &Call<'_>, part: Part, body: &[u8]) -> Result<Response<Body>, ApiError> {
    let options = WriteOptions::parse(call.query, Write::Update)?;
    let object = writes::decode_body(call, call.kind(), body, &options)?;
    let kind = call.kind();
    if object.meta().name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            call.path.name
        )));
    }
    // Kubernetes looks at the names before it looks for the object (`checkName`).
    writes::check_names(call, object.meta())?;
    let exists = || call.api.store.get(&call.served.key(&call.path.namespace, &call.path.name)).is_some();
    if part == Part::Spec && kind.info.create_on_update && !exists() {
        return create_by_put(call, object, &options).await;
    }
    let mut first = Some(object);
    let written = writes::update(call, part, &options, |old| {
        let mut new = match first.take() {
            Some(object) => object,
            // Another write came between: what the client sent is read once more.
            None => crate::registry::decode_client(kind, body)?,
        };
        if kind.info.needs_version && !names_version(new.meta()) {
            let mut errors = Errors::new();
            errors.invalid(&Path::new("metadata").child("resourceVersion"), 0, "must be specified for an update");
            return Err(ApiError::invalid(kind.group, kind.kind, &call.path.name, &errors));
        }
        keep_rest(part, new.as_mut(), old.object());
        Ok(new)
    })
    .await?;
    Ok(render::json(StatusCode::OK, Body::full(written.render(call)?)))
}

fn names_version(meta: &ObjectMeta) -> bool {
    meta.resource_version.as_deref().is_some_and(|version| !version.is_empty() && version != "0")
}

/// A PUT of an object that is not there makes it, for the kinds that Kubernetes allows it for.
async fn create_by_put(
    call: &Call<'_>,
    object: Box<dyn coracle_api::Object>,
    options: &WriteOptions,
) -> Result<Response<Body>, ApiError> {
    if object.meta().uid.as_deref().is_some_and(|u| !u.is_empty()) {
        return Err(ApiError::conflict(
            call.kind().resource(),
            &call.path.name,
            "Precondition failed: UID in precondition, but the object does not exist",
        ));
    }
    let written = writes::create(call, object, options).await?;
    Ok(render::json(StatusCode::CREATED, Body::full(written.render(call)?)))
}

/// Through a narrow subresource only its own part of the object changes.
fn keep_rest(part: Part, new: &mut dyn coracle_api::Object, old: &dyn coracle_api::Object) {
    if let Part::Through(subresource) = part {
        crate::pods::keep_rest(subresource, new, old);
        meta::carry_over(new.meta_mut(), old.meta());
    }
}
