//! Which collections of the store hold which kinds, and how their texts become objects.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_api::kind::{DecodeError, Kind as ApiKind, Storage};
use coracle_controllers::{Identity, Kind, KindVisitor, Object, Resource, Scope, Typed};
use coracle_store::{Collection, Entry};
use k8s_openapi::api::core::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use serde::Deserialize;

use crate::index::identity_of;

/// One collection of the store.
pub(crate) struct Row {
    pub(crate) collection: Collection,
    pub(crate) resource: Arc<Resource>,
    /// The kind, if controllers know it in typed form.
    pub(crate) kind: Option<Kind>,
}

/// Every collection that holds objects of its own.
pub(crate) struct Catalog {
    pub(crate) rows: Vec<Row>,
    by_kind: HashMap<Kind, usize>,
    /// By API version and kind: also those that are stored under another version.
    by_name: HashMap<(String, String), usize>,
}

impl Catalog {
    /// The catalog of the built-in kinds.
    pub(crate) fn new(kinds: &'static [ApiKind]) -> Self {
        let mut catalog = Self { rows: Vec::new(), by_kind: HashMap::new(), by_name: HashMap::new() };
        for api in kinds.iter().filter(|api| matches!(api.info.storage, Storage::Own)) {
            let resource = resource_of(api);
            let kind = Kind::ALL.iter().copied().find(|kind| kind.resource() == resource);
            let index = catalog.rows.len();
            if let Some(kind) = kind {
                catalog.by_kind.insert(kind, index);
            }
            catalog.by_name.insert((api.api_version.to_owned(), api.kind.to_owned()), index);
            let collection = Collection::from_prefix(&api.collection());
            catalog.rows.push(Row { collection, resource: Arc::new(resource), kind });
        }
        for api in kinds {
            if let Storage::SharedWith { group, version, .. } = api.info.storage {
                let same = |row: &Row| {
                    row.resource.group == group && row.resource.version == version && row.resource.kind == api.kind
                };
                if let Some(index) = catalog.rows.iter().position(same) {
                    catalog.by_name.insert((api.api_version.to_owned(), api.kind.to_owned()), index);
                }
            }
        }
        catalog
    }

    /// The row of a typed kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> Option<&Row> {
        self.by_kind.get(&kind).map(|index| &self.rows[*index])
    }

    /// The number of a typed kind's row.
    pub(crate) fn number_of(&self, kind: Kind) -> Option<usize> {
        self.by_kind.get(&kind).copied()
    }

    /// The row that an owner reference's kind is in.
    pub(crate) fn of_reference(&self, api_version: &str, kind: &str) -> Option<&Row> {
        self.by_name.get(&(api_version.to_owned(), kind.to_owned())).map(|index| &self.rows[*index])
    }
}

fn resource_of(api: &ApiKind) -> Resource {
    Resource {
        group: api.group.into(),
        version: api.version.into(),
        kind: api.kind.into(),
        plural: api.info.plural.into(),
        scope: if api.namespaced() { Scope::Namespaced } else { Scope::Cluster },
    }
}

struct Decode<'a>(&'a Entry);

impl KindVisitor for Decode<'_> {
    type Output = Option<Object>;

    fn visit<K: Typed>(self) -> Option<Object> {
        // The API server decodes stored texts in the same way, so the form is shared with it.
        let shared = self.0.decoded_any(|bytes| coracle_api::kind::row_of::<K>().decode_shared(bytes));
        let typed = shared.and_then(|shared| shared.downcast::<K>().map_err(|_| DecodeError("another type".into())));
        match typed {
            Ok(object) => Some(object.into_object()),
            Err(error) => {
                tracing::error!(key = %self.0.key, %error, "a stored object can't be read; controllers don't see it");
                None
            }
        }
    }
}

/// The typed form of an entry, decoded once for all readers.
pub(crate) fn decode(kind: Kind, entry: &Entry) -> Option<Object> {
    kind.visit(Decode(entry))
}

/// An Event as far as its age goes, for this reader alone: who sweeps looks at all of them, and at nothing else.
pub(crate) fn event_times(entry: &Entry) -> Option<Object> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Times {
        metadata: Named,
        event_time: Option<MicroTime>,
        last_timestamp: Option<Time>,
        series: Option<EventSeries>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
    }
    let times: Times = serde_json::from_slice(&entry.bytes).ok()?;
    let Named { name, namespace, uid, resource_version, creation_timestamp } = times.metadata;
    let metadata = ObjectMeta { name, namespace, uid, resource_version, creation_timestamp, ..ObjectMeta::default() };
    let (event_time, last_timestamp, series) = (times.event_time, times.last_timestamp, times.series);
    Some(Event { metadata, event_time, last_timestamp, series, ..Event::default() }.into())
}

/// What is known of an entry whatever its kind: from its decoded form if somebody has made one, else from the few fields
/// of its text that tell.
pub(crate) fn identity(row: &Row, entry: &Entry) -> Option<Identity> {
    match row.kind.and_then(|kind| kind.visit(Known(entry))) {
        Some(object) => Some(identity_of(&row.resource, object.meta())),
        None => identity_in_text(&row.resource, &entry.bytes),
    }
}

struct Known<'a>(&'a Entry);

impl KindVisitor for Known<'_> {
    type Output = Option<Object>;

    fn visit<K: Typed>(self) -> Option<Object> {
        self.0.known_as::<K>().map(Typed::into_object)
    }
}

fn identity_in_text(resource: &Arc<Resource>, text: &[u8]) -> Option<Identity> {
    #[derive(Deserialize)]
    struct Shape {
        metadata: Fields,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        #[serde(default)]
        namespace: String,
        #[serde(default)]
        name: String,
        #[serde(default)]
        uid: String,
        #[serde(default)]
        resource_version: String,
        deletion_timestamp: Option<Time>,
        deletion_grace_period_seconds: Option<i64>,
        #[serde(default)]
        finalizers: Vec<String>,
        #[serde(default)]
        owner_references: Vec<OwnerReference>,
    }
    let Fields {
        namespace,
        name,
        uid,
        resource_version,
        deletion_timestamp,
        deletion_grace_period_seconds,
        finalizers,
        owner_references: owners,
    } = serde_json::from_slice::<Shape>(text).ok()?.metadata;
    Some(Identity {
        resource: Arc::clone(resource),
        namespace,
        name,
        uid,
        resource_version,
        deletion_timestamp: deletion_timestamp.map(|time| time.0),
        deletion_grace_period_seconds,
        finalizers,
        owners,
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_tells_what_the_decoded_form_tells() {
        let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u0", "controller": true });
        let check = |metadata: serde_json::Value| {
            let text =
                json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "metadata": "{}" }, "metadata": metadata });
            let typed: ConfigMap = serde_json::from_value(text.clone()).unwrap();
            let resource = Arc::new(Kind::Pod.resource());
            let expect = identity_of(&resource, &typed.metadata);
            assert_eq!(identity_in_text(&resource, text.to_string().as_bytes()), Some(expect));
        };
        check(json!({}));
        check(json!({
            "namespace": "ns", "name": "n", "uid": "u", "resourceVersion": "7", "labels": { "a": "b" },
            "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30,
            "finalizers": ["orphan"], "ownerReferences": [owner], "managedFields": [{ "manager": "m" }],
        }));
    }
}
