//! Event of `events.k8s.io`: the same objects as the core group's Events under other names of fields. They are kept in the
//! core's form.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Map, Value};

use super::event;
use super::fields::text as value_of;
use crate::kind::{DecodeError, Info, Resource, Storage};
use crate::table::Cell;
use crate::validation::{Errors, IMMUTABLE, Path, json};

/// Fields with two names: the core's and this group's (`pkg/apis/events/v1/conversion.go`).
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

impl Resource for Event {
    const INFO: Info = Info {
        short_names: &["ev"],
        storage: Storage::SharedWith { group: "", version: "v1", from_stored, to_stored },
        selectable_fields: &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ],
        columns: event::COLUMNS,
        create_on_update: true,
        ..Info::namespaced("events", "event")
    };

    fn validate(&self, errors: &mut Errors) {
        core_form(self).validate(errors);
    }

    fn validate_create(&self, errors: &mut Errors) {
        if self.event_time.is_none() {
            errors.required(&Path::new("eventTime"), "");
        }
        let kind = value_of(&self.type_);
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
        }
        for (field, set) in [
            ("firstTimestamp", self.deprecated_first_timestamp.is_some()),
            ("lastTimestamp", self.deprecated_last_timestamp.is_some()),
            ("count", self.deprecated_count.unwrap_or_default() != 0),
            ("source", self.deprecated_source.as_ref().is_some_and(|s| *s != Default::default())),
        ] {
            if set {
                errors.invalid(&Path::new(field), "", "needs to be unset");
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        for (field, changed) in [
            ("involvedObject", self.regarding != old.regarding),
            ("reason", self.reason != old.reason),
            ("message", self.note != old.note),
            ("source", self.deprecated_source != old.deprecated_source),
            ("firstTimestamp", self.deprecated_first_timestamp != old.deprecated_first_timestamp),
            ("lastTimestamp", self.deprecated_last_timestamp != old.deprecated_last_timestamp),
            ("count", self.deprecated_count != old.deprecated_count),
            ("reportingInstance", self.reporting_instance != old.reporting_instance),
            ("type", self.type_ != old.type_),
            ("eventTime", self.event_time != old.event_time),
            ("action", self.action != old.action),
            ("related", self.related != old.related),
            ("reportingController", self.reporting_controller != old.reporting_controller),
        ] {
            if changed {
                errors.invalid(&Path::new(field), json(&""), IMMUTABLE);
            }
        }
    }

    fn selectable_field(&self, name: &str) -> Cow<'_, str> {
        let core = name.replace("regarding.", "involvedObject.").replace("reportingController", "reportingComponent");
        Cow::Owned(core_form(self).selectable_field(&core).into_owned())
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        core_form(self).row(now)
    }
}

fn core_form(event: &Event) -> CoreEvent {
    let e = event.clone();
    CoreEvent {
        action: e.action,
        count: e.deprecated_count,
        event_time: e.event_time,
        first_timestamp: e.deprecated_first_timestamp,
        involved_object: e.regarding.unwrap_or_default(),
        last_timestamp: e.deprecated_last_timestamp,
        message: e.note,
        metadata: e.metadata,
        reason: e.reason,
        related: e.related,
        reporting_component: e.reporting_controller,
        reporting_instance: e.reporting_instance,
        series: e.series.map(|s| k8s_openapi::api::core::v1::EventSeries {
            count: Some(s.count),
            last_observed_time: Some(s.last_observed_time),
        }),
        source: e.deprecated_source,
        type_: e.type_,
    }
}

fn object(json: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    serde_json::from_slice(json).map_err(|e| DecodeError(e.to_string()))
}

fn text(fields: Map<String, Value>, api_version: &str) -> Vec<u8> {
    let mut fields = fields;
    fields.insert("apiVersion".to_owned(), api_version.into());
    Value::Object(fields).to_string().into_bytes()
}

fn from_stored(json: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut fields = object(json)?;
    for (core, new) in RENAMED {
        if let Some(value) = fields.remove(core) {
            fields.insert(new.to_owned(), value);
        }
    }
    Ok(text(fields, "events.k8s.io/v1"))
}

fn to_stored(json: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut fields = object(json)?;
    for (core, new) in RENAMED {
        if let Some(value) = fields.remove(new) {
            fields.insert(core.to_owned(), value);
        }
    }
    // The core's form always names its object.
    fields.entry("involvedObject").or_insert_with(|| Value::Object(Map::new()));
    Ok(text(fields, "v1"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_are_one_event() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"name": "p"},
            "message": "m", "count": 2, "source": {"component": "c"}, "reportingComponent": "r"});
        let new = from_stored(core.to_string().as_bytes()).unwrap();
        let event: Event = serde_json::from_slice(&new).unwrap();
        assert_eq!((event.note.as_deref(), event.deprecated_count), (Some("m"), Some(2)));
        assert_eq!(event.reporting_controller.as_deref(), Some("r"));
        let back: Value = serde_json::from_slice(&to_stored(&new).unwrap()).unwrap();
        assert_eq!(back, core);
        assert!(from_stored(b"[]").is_err());
    }
}
