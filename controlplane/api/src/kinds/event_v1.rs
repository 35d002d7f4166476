//! Event of `events.k8s.io`: the same objects as the core group's Events under other names of fields. They are kept in the
//! core's form.

use k8s_openapi::api::events::v1::Event;
use serde_json::{Map, Value};

use crate::kind::{DecodeError, Info, Resource, Storage};

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
        create_on_update: true,
        ..Info::namespaced("events", "event")
    };
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
