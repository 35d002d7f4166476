//! Label and field selectors of a request, matched against stored objects.

use std::borrow::Cow;
use std::sync::Arc;

use coracle_api::ApiError;
use coracle_api::kind::{Kind, Object};
use coracle_api::selector::{FieldSelector, Selector};
use coracle_store::Entry;

use crate::api::Call;
use crate::registry::Stored;

/// The selectors of a list, a watch or a deletion of many.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    kind: &'static Kind,
    labels: Selector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(call: &Call<'_>) -> Result<Self, ApiError> {
        let text = |name| call.query.get(name).unwrap_or_default();
        let labels = Selector::parse(text("labelSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let mut fields =
            FieldSelector::parse(text("fieldSelector")).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let kind = call.kind();
        for requirement in fields.requirements() {
            let field = requirement.field.as_str();
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && kind.namespaced())
                || kind.info.selectable_fields.contains(&field);
            if !known {
                return Err(unknown_field(kind, field));
            }
        }
        // The deprecated `/watch/.../name` path follows one object.
        if !call.path.name.is_empty() {
            let own = format!("metadata.name={}", call.path.name);
            let all = [text("fieldSelector"), &own].join(",");
            fields = FieldSelector::parse(&all).map_err(|e| ApiError::bad_request(e.to_string()))?;
        }
        Ok(Self { kind, labels, fields })
    }

    /// Everything is selected.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name that can be selected, if the selectors name one.
    pub(crate) fn only_name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }

    pub(crate) fn matches(&self, entry: &Arc<Entry>) -> Result<bool, ApiError> {
        if self.is_everything() {
            return Ok(true);
        }
        Ok(self.matches_object(Stored::of(self.kind, Arc::clone(entry))?.object()))
    }

    pub(crate) fn matches_object(&self, object: &dyn Object) -> bool {
        self.labels.matches_opt(object.meta().labels.as_ref())
            && self.fields.matches(|field| {
                Some(match field {
                    "metadata.name" => Cow::Borrowed(object.meta().name.as_deref().unwrap_or_default()),
                    "metadata.namespace" => Cow::Borrowed(object.meta().namespace.as_deref().unwrap_or_default()),
                    other => object.selectable_field(other),
                })
            })
    }
}

/// The words of the kinds' own conversions, and of the one for kinds that have none.
fn unknown_field(kind: &Kind, field: &str) -> ApiError {
    ApiError::bad_request(if kind.info.selectable_fields.is_empty() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    })
}
