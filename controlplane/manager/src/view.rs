//! The controllers' view of the cluster: objects from the store's mirror, found by the indexes.

use std::sync::Arc;

use coracle_api::selector::Selector;
use coracle_controllers::{Cache, Identity, Key, Kind, Lookup, Object, Scope};
use coracle_store::{ListRange, Store};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::catalog::{Catalog, Row, decode, decode_once, metadata};
use crate::index::{Index, RowNumber, identity_of};

/// Kinds of which lists are read in passing: their decoded form is not kept, as nobody else asks for it.
const PASSING: [Kind; 1] = [Kind::Event];

/// One look at the cluster.
pub(crate) struct View<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) catalog: &'a Catalog,
    pub(crate) index: &'a Index,
}

impl View<'_> {
    fn read(&self, row: &Row, name: &str) -> Option<Object> {
        let entry = self.store.get(&key_in(row, name))?;
        decode(row.kind?, &entry)
    }

    fn identity_in(&self, row: RowNumber, name: &str) -> Option<Arc<Identity>> {
        let row = &self.catalog.rows[row];
        let entry = self.store.get(&key_in(row, name))?;
        let meta = metadata(&entry)?;
        Some(Arc::new(identity_of(&row.resource, &meta)))
    }
}

fn key_in(row: &Row, name: &str) -> coracle_store::Key {
    coracle_store::Key { collection: row.collection.clone(), name: name.into() }
}

fn names(object: &Object, uid: &str) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

impl Cache for View<'_> {
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object> {
        let row = self.catalog.of_kind(kind)?;
        let entry = self.store.get(&row.collection.key(namespace, name))?;
        decode(kind, &entry)
    }

    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Object> {
        let Some(row) = self.catalog.of_kind(kind) else { return Vec::new() };
        let range = namespace.map(ListRange::namespace).unwrap_or_default();
        let read = if PASSING.contains(&kind) { decode_once } else { decode };
        self.store.list(&row.collection, &range).entries.iter().filter_map(|entry| read(kind, entry)).collect()
    }

    fn owned_by(&self, kind: Kind, uid: &str) -> Vec<Object> {
        let Some(number) = self.catalog.number_of(kind) else { return Vec::new() };
        let row = &self.catalog.rows[number];
        let names_of_kind = self.index.owned(uid).filter(|(row, _)| *row == number);
        names_of_kind.filter_map(|(_, name)| self.read(row, name)).filter(|object| names(object, uid)).collect()
    }

    fn selected(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object> {
        let matches = |object: &Object| selector.matches_opt(object.meta().labels.as_ref());
        let Some(candidates) = self.index.candidates(kind, namespace, selector) else {
            return self.list(kind, Some(namespace)).into_iter().filter(matches).collect();
        };
        let Some(row) = self.catalog.of_kind(kind) else { return Vec::new() };
        candidates.iter().filter_map(|name| self.read(row, name)).filter(matches).collect()
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        let Some(row) = self.catalog.of_kind(Kind::Pod) else { return Vec::new() };
        let pods = self.index.on_node(node).filter_map(|name| self.read(row, name));
        pods.filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
        .collect()
    }

    fn changed_at(&self, kind: Kind, key: &Key) -> Timestamp {
        self.index.changed_at(kind, &key.to_string())
    }

    fn look_up(&self, namespace: &str, owner: &OwnerReference) -> Lookup {
        let Some(row) = self.catalog.of_reference(&owner.api_version, &owner.kind) else { return Lookup::UnknownKind };
        let namespace = match (row.resource.scope, namespace) {
            (Scope::Cluster, _) => "",
            (Scope::Namespaced, "") => return Lookup::NamespaceMismatch,
            (Scope::Namespaced, namespace) => namespace,
        };
        let entry = self.store.get(&row.collection.key(namespace, &owner.name));
        match entry.and_then(|entry| metadata(&entry)) {
            Some(meta) if meta.uid.as_deref() == Some(&owner.uid) => {
                Lookup::Found(Arc::new(identity_of(&row.resource, &meta)))
            }
            _ => Lookup::Absent,
        }
    }

    fn identity(&self, uid: &str) -> Option<Arc<Identity>> {
        let (row, name) = self.index.identity(uid)?;
        self.identity_in(*row, name).filter(|identity| identity.uid == uid)
    }

    fn dependents(&self, uid: &str) -> Vec<Arc<Identity>> {
        let found = self.index.owned(uid).filter_map(|(row, name)| self.identity_in(*row, name));
        found.filter(|identity| identity.owners.iter().any(|owner| owner.uid == uid)).collect()
    }

    fn contents(&self, namespace: &str, limit: usize) -> Vec<Arc<Identity>> {
        let mut found = Vec::new();
        for row in self.catalog.rows.iter().filter(|row| row.resource.scope == Scope::Namespaced) {
            let range = ListRange { limit: Some(limit - found.len()), ..ListRange::namespace(namespace) };
            if found.len() < limit {
                let entries = self.store.list(&row.collection, &range).entries;
                let metas = entries.iter().filter_map(|entry| metadata(entry));
                found.extend(metas.map(|meta| Arc::new(identity_of(&row.resource, &meta))));
            }
        }
        found
    }
}
