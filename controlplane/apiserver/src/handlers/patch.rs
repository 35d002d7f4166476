//! PATCH: JSON, merge and strategic merge patches of the present object.

mod misfit;

use coracle_api::kind::{Kind, Object};
use coracle_api::validation::{Errors, FieldPath};
use coracle_api::{ApiError, managed, patch};
use http::{HeaderMap, Response, StatusCode, header};
use serde_json::Value;

use crate::api::Call;
use crate::body::Body;
use crate::options::{Write, WriteOptions};
use crate::registry::Stored;
use crate::render;
use crate::writes::{self, Part};

const MEDIA_TYPES: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Json,
    Merge,
    Strategic,
}

impl Dialect {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match media.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            _ => Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
        }
    }
}

/// Patches the object of the path.
pub(crate) async fn patch(call: &Call<'_>, part: Part, body: &[u8]) -> Result<Response<Body>, ApiError> {
    // The form is looked at before the options: those of another form are none of this one's.
    let patch = Patch::read(call.headers, body)?;
    let options = WriteOptions::parse(call.query, Write::Patch)?;
    let written = writes::update(call, part, &options, |old| {
        let patched = patch.apply(call.kind(), &old.bytes()?)?;
        let mut new = decode(call, &patched, &options).map_err(|error| patch.misfit(error))?;
        super::keep_rest(part, new.as_mut(), old.object());
        // The present version came with the present text: only a patch that names one itself insists on it.
        let meta = new.meta_mut();
        meta.resource_version.take_if(|v| *v == old.entry.revision.to_string());
        Ok(new)
    })
    .await?;
    Ok(render::json(StatusCode::OK, Body::full(written.render(call)?)))
}

fn decode(call: &Call<'_>, patched: &Value, options: &WriteOptions) -> Result<Box<dyn Object>, ApiError> {
    let text = serde_json::to_vec(patched).map_err(|e| ApiError::bad_request(e.to_string()))?;
    writes::decode_body(call, call.kind(), &text, options)
}

/// A patch that has been read and not applied yet.
pub(crate) struct Patch {
    dialect: Dialect,
    value: Value,
    /// It says something of `metadata.managedFields`, which are cut off for all others: they are a good part of the text.
    needs_managed: bool,
}

impl Patch {
    /// Reads the patch of a request.
    ///
    /// # Errors
    /// The media type is none of a patch, or the text is no JSON.
    pub(crate) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let dialect = Dialect::of(headers)?;
        const NAME: &[u8] = b"managedFields";
        let value: Value =
            serde_json::from_slice(body).map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        let needs_managed = body.windows(NAME.len()).any(|part| part == NAME)
            || (dialect == Dialect::Json && takes_all_metadata(&value));
        Ok(Self { dialect, value, needs_managed })
    }

    /// Applies it to the text of an object of `kind`.
    ///
    /// # Errors
    /// The patch does not fit the object.
    pub(crate) fn apply(&self, kind: &Kind, text: &[u8]) -> Result<Value, ApiError> {
        let text = if self.needs_managed { text.into() } else { managed::without(text) };
        let target: Value = serde_json::from_slice(&text).map_err(|e| ApiError::internal(e.to_string()))?;
        let patched = match self.dialect {
            Dialect::Json => patch::json_patch(&target, &self.value),
            Dialect::Merge => patch::merge_patch(&target, &self.value),
            Dialect::Strategic => patch::strategic_merge(kind, &target, &self.value),
        };
        patched.map_err(ApiError::from)
    }
}

impl Patch {
    /// The words for a strategic patch that gives a field a value of another type: it fits no object, so it is the patch that
    /// is invalid (`applyPatchToObject`).
    fn misfit(&self, error: ApiError) -> ApiError {
        let why = (self.dialect == Dialect::Strategic).then(|| misfit::conversion(&error.message)).flatten();
        let Some(why) = why else { return error };
        let mut errors = Errors::new();
        errors.invalid(&FieldPath::new("patch"), misfit::shown(&self.value), why);
        ApiError::invalid("", "", "", &errors)
    }
}

/// Whether an operation of a JSON patch is about the metadata as a whole.
fn takes_all_metadata(patch: &Value) -> bool {
    let is_whole = |v: Option<&Value>| v.and_then(Value::as_str).is_some_and(|p| matches!(p, "" | "/metadata"));
    patch.as_array().into_iter().flatten().any(|o| is_whole(o.get("path")) || is_whole(o.get("from")))
}

/// The object as it stands after a patch made by this server itself.
pub(crate) fn reread(call: &Call<'_>, old: &Stored, value: &Value) -> Result<Box<dyn Object>, ApiError> {
    let text = serde_json::to_vec(value).map_err(|e| ApiError::internal(e.to_string()))?;
    let mut object = crate::registry::decode_client(call.kind(), &text)?;
    object.meta_mut().resource_version.take_if(|v| *v == old.entry.revision.to_string());
    Ok(object)
}
