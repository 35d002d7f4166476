//! Pods that scheduling cannot tell apart by label: one group per namespace, label set and "is terminating", with a count
//! per node. A selector is matched against groups, not pods, and an index by label pair finds the few groups worth trying.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap};

use super::counts::NodeCounts;
use crate::ids::NodeId;
use crate::labels::{LabelQuery, Labels};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupId(u32);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) namespace: Arc<str>,
    pub(super) labels: Arc<Labels>,
    pub(super) terminating: bool,
}

/// Pods alike.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) key: GroupKey,
    /// How many each node has.
    pub(crate) counts: NodeCounts,
}

impl Group {
    /// Whether its pods are being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        self.key.terminating
    }

    /// The namespace all its pods are in.
    pub(crate) fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// The labels all its pods have.
    pub(crate) fn labels(&self) -> &Labels {
        &self.key.labels
    }
}

#[derive(Debug, Default)]
pub(super) struct Groups {
    slots: Vec<Option<Group>>,
    free: Vec<GroupId>,
    by_key: HashMap<GroupKey, GroupId>,
    by_namespace: BTreeMap<Arc<str>, Vec<GroupId>>,
    /// By the hash of namespace, key and value. A collision only means one group more to try.
    by_pair: HashMap<u64, Vec<GroupId>>,
    hasher: DefaultHashBuilder,
}

impl Groups {
    /// Counts one more pod, and returns its group with the group's own copies of namespace and labels.
    pub(super) fn join(&mut self, key: GroupKey, node: NodeId) -> (GroupId, &GroupKey) {
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => self.create(key),
        };
        let group = self.slots[id.0 as usize].as_mut().expect("an indexed group is live");
        group.counts.increment(node);
        (id, &group.key)
    }

    /// Counts one pod less; the last one takes the group with it.
    pub(super) fn leave(&mut self, id: GroupId, node: NodeId) {
        let slot = &mut self.slots[id.0 as usize];
        let group = slot.as_mut().expect("a pod's group lives as long as the pod");
        group.counts.decrement(node);
        if !group.counts.is_empty() {
            return;
        }
        let Some(Group { key, .. }) = slot.take() else { return };
        self.by_key.remove(&key);
        self.free.push(id);
        if let Some(list) = self.by_namespace.get_mut(&key.namespace) {
            list.retain(|g| *g != id);
            if list.is_empty() {
                self.by_namespace.remove(&key.namespace);
            }
        }
        for (k, v) in key.labels.iter() {
            let hash = self.hasher.hash_one((&*key.namespace, k, v));
            if let Some(list) = self.by_pair.get_mut(&hash) {
                list.retain(|g| *g != id);
                if list.is_empty() {
                    self.by_pair.remove(&hash);
                }
            }
        }
    }

    fn create(&mut self, key: GroupKey) -> GroupId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            GroupId(u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 pods"))
        });
        for (k, v) in key.labels.iter() {
            self.by_pair.entry(self.hasher.hash_one((&*key.namespace, k, v))).or_default().push(id);
        }
        self.by_namespace.entry(key.namespace.clone()).or_default().push(id);
        self.by_key.insert(key.clone(), id);
        self.slots[id.0 as usize] = Some(Group { key, counts: NodeCounts::default() });
        id
    }

    /// The groups of a namespace whose labels meet the query.
    pub(super) fn matching<'a, 'q>(
        &'a self,
        namespace: &str,
        query: &'q LabelQuery,
    ) -> impl Iterator<Item = &'a Group> + use<'a, 'q> {
        let candidates = match query.pinned_pair() {
            Some((k, v)) => self.by_pair.get(&self.hasher.hash_one((namespace, k, v))),
            None => self.by_namespace.get(namespace),
        };
        // A hash collision can bring in a group of another namespace, whose labels may match too.
        let namespace = self.by_namespace.get_key_value(namespace).map(|(name, _)| &**name);
        candidates
            .into_iter()
            .flatten()
            .filter_map(|id| self.slots[id.0 as usize].as_ref())
            .filter(move |g| Some(&*g.key.namespace) == namespace && query.matches(&g.key.labels))
    }

    /// The namespaces that have pods.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.by_namespace.keys().map(|n| &**n)
    }

    /// All groups.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.slots.iter().flatten()
    }
}
