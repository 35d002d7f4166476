//! Which collections of the store hold which kinds, and how their texts become objects.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_api::kind::{Kind as ApiKind, Storage};
use coracle_controllers::{Kind, KindVisitor, Object, Resource, Scope, Typed};
use coracle_store::{Collection, Entry};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

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
        // The API server decodes stored texts into the same types, so the form is shared with it.
        match self.0.decoded(|bytes| serde_json::from_slice::<K>(bytes)) {
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

/// The typed form of an entry for this reader alone.
pub(crate) fn decode_once(kind: Kind, entry: &Entry) -> Option<Object> {
    kind.decode(&entry.bytes).ok()
}

/// The metadata of an entry of any kind.
pub(crate) fn metadata(entry: &Entry) -> Option<ObjectMeta> {
    #[derive(Deserialize)]
    struct Shape {
        #[serde(default)]
        metadata: ObjectMeta,
    }
    serde_json::from_slice::<Shape>(&entry.bytes).ok().map(|shape| shape.metadata)
}
