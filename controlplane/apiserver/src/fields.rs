//! The managed fields of a write: who the manager is, and the text in which they are kept beside the object. What a
//! write does to them is decided in the API crate.

use std::borrow::Cow;

use coracle_api::ApiError;
use coracle_api::kind::{Kind, Object, Subresource};
use coracle_api::managed::{self, Given, Outcome, Writer};
use coracle_store::Value;
use http::header;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

use crate::admission;
use crate::api::Call;
use crate::registry::{self, Stored};
use crate::writes::Part;

/// An object that is to be written, with what becomes of its managed fields.
pub(crate) struct Draft<'a> {
    /// The object's text before admission, if it was needed.
    json: Option<Vec<u8>>,
    stored: Option<&'a [u8]>,
    outcome: Outcome,
}

impl<'a> Draft<'a> {
    /// A new object, with the defaults and without what the server itself adds. `given` is what the client sent.
    pub(crate) fn of_new(call: &Call<'_>, object: &mut dyn Object, given: &[ManagedFieldsEntry]) -> Self {
        let json = registry::text(object);
        let change =
            managed::Change { kind: call.kind(), old: None, new: &json, managed: None, given: Given::Entries(given) };
        Self { outcome: decide(call, change, None), json: Some(json), stored: None }
    }

    /// A changed object, before admission.
    pub(crate) fn of_change(
        call: &Call<'_>,
        part: Part,
        old: &'a Stored,
        new: &mut dyn Object,
        given: &[ManagedFieldsEntry],
    ) -> Result<Self, ApiError> {
        let mut draft = Self { json: None, stored: old.managed(), outcome: Outcome::Same };
        // Through a subresource nobody sets them, and a binding is the scheduler's without being recorded.
        let given = if part == Part::Spec { Given::Entries(given) } else { Given::Nothing };
        let has_given = matches!(given, Given::Entries([_, ..]));
        if part == Part::Through(Subresource::Binding) || (!has_given && new.equals(old.object())) {
            return Ok(draft);
        }
        let (before, after) = (old.bytes()?, registry::text(new));
        let change =
            managed::Change { kind: call.kind(), old: Some(&before), new: &after, managed: draft.stored, given };
        draft.outcome = decide(call, change, part.subresource());
        draft.json = Some(after);
        Ok(draft)
    }

    /// The managed fields as they will be stored.
    pub(crate) fn managed(&self) -> Option<&[u8]> {
        match &self.outcome {
            Outcome::Same => self.stored,
            Outcome::New(text) => text.as_deref(),
        }
    }

    /// Whether they change.
    pub(crate) fn is_news(&self) -> bool {
        self.outcome != Outcome::Same
    }

    /// The text of a new object as it was before admission.
    pub(crate) fn before_admission(&self) -> &[u8] {
        self.json.as_deref().unwrap_or_default()
    }

    /// What to store, for `object` as it came out of admission.
    pub(crate) fn into_value(
        mut self,
        kind: &Kind,
        object: Box<dyn Object>,
        admission: admission::Change,
    ) -> Result<Value, ApiError> {
        match self.json.take().filter(|_| admission == admission::Change::None) {
            Some(json) => registry::to_store(kind, json, object, self.managed()),
            None => registry::encode(kind, object, self.managed()),
        }
    }
}

fn decide(call: &Call<'_>, change: managed::Change<'_>, subresource: Option<Subresource>) -> Outcome {
    // A scale is no part of the path's kind but of all its own.
    let subresource = match call.path.subresource.as_str() {
        "scale" => Some(Subresource::Scale),
        _ => subresource,
    };
    managed::update(change, Writer { manager: &manager(call), subresource, now: call.now })
}

/// The `fieldManager` of the query, or what the user agent calls itself (`managerOrUserAgent`).
fn manager<'a>(call: &'a Call<'_>) -> Cow<'a, str> {
    if let Some(name) = call.query.get("fieldManager").filter(|name| !name.is_empty()) {
        return Cow::Borrowed(name);
    }
    let agent = call.headers.get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes()));
    Cow::Owned(managed::manager_of_user_agent(agent.as_deref().unwrap_or_default()))
}
