//! The controllers' view of the cluster: objects from the store's mirror, found by the indexes.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::selector::Selector;
use coracle_controllers::{Cache, Identity, Key, Kind, Lookup, Object, Scope, Typed};
use coracle_store::{ListRange, Revision, Store};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::catalog::{Catalog, Row, decode, event_times, identity};
use crate::clock::instant;
use crate::index::{Index, Name, RowNumber};

/// Objects looked at in one go where the first few mostly tell.
const PAGE: usize = 32;

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

    fn pods<'n>(&self, names: impl Iterator<Item = &'n Name>) -> Vec<Arc<Pod>> {
        let Some(row) = self.catalog.of_kind(Kind::Pod) else { return Vec::new() };
        names.filter_map(|name| Pod::from_object(self.read(row, name)?)).collect()
    }

    fn identity_in(&self, row: RowNumber, name: &str) -> Option<Arc<Identity>> {
        let row = &self.catalog.rows[row];
        let entry = self.store.get(&key_in(row, name))?;
        identity(row, &entry).map(Arc::new)
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
        // Of Events only the age is asked for.
        let read = |entry| if kind == Kind::Event { event_times(entry) } else { decode(kind, entry) };
        self.store.list(&row.collection, &range).entries.iter().filter_map(|entry| read(entry)).collect()
    }

    fn any(&self, kind: Kind, test: &dyn Fn(&Object) -> bool) -> bool {
        let Some(row) = self.catalog.of_kind(kind) else { return false };
        let mut range = ListRange { limit: Some(PAGE), ..ListRange::all() };
        loop {
            let page = self.store.list(&row.collection, &range);
            if page.entries.iter().filter_map(|entry| decode(kind, entry)).any(|object| test(&object)) {
                return true;
            }
            range.start_after = page.entries.last().map(|entry| entry.key.name.to_string());
            if page.remaining == 0 || range.start_after.is_none() {
                return false;
            }
        }
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

    fn unmanaged(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object> {
        let is_orphan = |object: &Object| {
            let mut owners = object.meta().owner_references.iter().flatten();
            !owners.any(|owner| owner.controller == Some(true))
        };
        let matches = |object: &Object| selector.matches_opt(object.meta().labels.as_ref()) && is_orphan(object);
        let Some(candidates) = self.index.unmanaged_candidates(kind, namespace, selector) else {
            return self.list(kind, Some(namespace)).into_iter().filter(matches).collect();
        };
        let Some(row) = self.catalog.of_kind(kind) else { return Vec::new() };
        candidates.iter().filter_map(|name| self.read(row, name)).filter(matches).collect()
    }

    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.pods(self.index.on_node(node))
    }

    fn ended_pods(&self, more_than: usize) -> Option<Vec<Arc<Pod>>> {
        let ended = self.index.ended();
        (ended.len() > more_than).then(|| self.pods(ended.iter())).filter(|pods| pods.len() > more_than)
    }

    fn unchanged_for(&self, kind: Kind, key: &Key) -> Duration {
        instant().saturating_duration_since(self.index.changed_at(kind, &key.to_string()))
    }

    fn look_up(&self, namespace: &str, owner: &OwnerReference) -> Lookup {
        let Some(row) = self.catalog.of_reference(&owner.api_version, &owner.kind) else { return Lookup::UnknownKind };
        let namespace = match (row.resource.scope, namespace) {
            (Scope::Cluster, _) => "",
            (Scope::Namespaced, "") => return Lookup::NamespaceMismatch,
            (Scope::Namespaced, namespace) => namespace,
        };
        let entry = self.store.get(&row.collection.key(namespace, &owner.name));
        match entry.and_then(|entry| identity(row, &entry)) {
            Some(found) if found.uid == owner.uid => Lookup::Found(Arc::new(found)),
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

    fn reached(&self, resource_version: &str) -> bool {
        resource_version.parse().is_ok_and(|version: u64| self.store.revision() >= Revision(version))
    }

    fn contents(&self, namespace: &str, limit: usize) -> Vec<Arc<Identity>> {
        let mut found = Vec::new();
        for row in self.catalog.rows.iter().filter(|row| row.resource.scope == Scope::Namespaced) {
            let range = ListRange { limit: Some(limit - found.len()), ..ListRange::namespace(namespace) };
            if found.len() < limit {
                let entries = self.store.list(&row.collection, &range).entries;
                found.extend(entries.iter().filter_map(|entry| identity(row, entry)).map(Arc::new));
            }
        }
        found
    }
}
