//! Inter-pod affinity terms, compiled. Equal terms of many pods compare equal, so the snapshot counts them once.
//! A term judges a pod's namespace and labels; where pods are is the snapshot's business.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use crate::labels::{LabelQuery, Labels, Operator, Requirement};

/// One (anti-)affinity term.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// The node label whose equal values make one domain.
    pub topology_key: Box<str>,
    /// Which pods it speaks of, by label.
    pub selector: LabelQuery,
    namespaces: Box<[Box<str>]>,
    namespace_query: LabelQuery,
}

impl AffinityTerm {
    fn parse(term: &core::PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces: Vec<Box<str>> = term.namespaces.iter().flatten().map(|n| n.as_str().into()).collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.into());
        }
        namespaces.sort();
        namespaces.dedup();
        let same = term
            .match_label_keys
            .iter()
            .flatten()
            .filter_map(|key| labels.get(key).map(|v| Requirement::new(key, Operator::In([v.into()].into()))));
        let other = term
            .mismatch_label_keys
            .iter()
            .flatten()
            .filter_map(|key| labels.get(key).map(|v| Requirement::new(key, Operator::NotIn([v.into()].into()))));
        Self {
            topology_key: term.topology_key.as_str().into(),
            selector: LabelQuery::from_selector(term.label_selector.as_ref()).and(same.chain(other)),
            namespaces: namespaces.into(),
            namespace_query: LabelQuery::from_selector(term.namespace_selector.as_ref()),
        }
    }

    /// Whether it speaks of pods in this namespace.
    pub fn covers_namespace(&self, name: &str, labels: &Labels) -> bool {
        self.namespaces.iter().any(|n| **n == *name) || self.namespace_query.matches(labels)
    }

    /// The namespaces it names, unless it also selects some by label.
    pub fn named_namespaces(&self) -> Option<&[Box<str>]> {
        (self.namespace_query == LabelQuery::Nothing).then_some(&self.namespaces)
    }
}

/// What part a term plays for the pod that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TermRole {
    /// Required affinity.
    Affinity,
    /// Required anti-affinity.
    AntiAffinity,
    /// Preferred: positive weight attracts, negative repels.
    Preference(i32),
}

/// A term and its role.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RoleTerm {
    /// Its role.
    pub role: TermRole,
    /// The term.
    pub term: AffinityTerm,
}

/// Compiles all terms of a pod.
pub(crate) fn parse(affinity: Option<&core::Affinity>, namespace: &str, labels: &Labels) -> Box<[Arc<RoleTerm>]> {
    let mut all = Vec::new();
    let Some(affinity) = affinity else { return Box::default() };
    let mut push = |role, term: &core::PodAffinityTerm| {
        all.push(Arc::new(RoleTerm { role, term: AffinityTerm::parse(term, namespace, labels) }));
    };
    if let Some(near) = &affinity.pod_affinity {
        for term in near.required_during_scheduling_ignored_during_execution.iter().flatten() {
            push(TermRole::Affinity, term);
        }
        for term in near.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            push(TermRole::Preference(term.weight), &term.pod_affinity_term);
        }
    }
    if let Some(apart) = &affinity.pod_anti_affinity {
        for term in apart.required_during_scheduling_ignored_during_execution.iter().flatten() {
            push(TermRole::AntiAffinity, term);
        }
        for term in apart.preferred_during_scheduling_ignored_during_execution.iter().flatten() {
            push(TermRole::Preference(-term.weight), &term.pod_affinity_term);
        }
    }
    all.into()
}

/// The labels of namespaces, for terms that select namespaces by label.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Namespaces(BTreeMap<Box<str>, Labels>);

impl Namespaces {
    /// Notes a namespace's labels. Returns whether that changed anything.
    pub fn upsert(&mut self, name: &str, labels: Labels) -> bool {
        self.0.get(name) != Some(&labels) && {
            self.0.insert(name.into(), labels);
            true
        }
    }

    /// Forgets a namespace.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Whether `term` speaks of a pod with these labels in `namespace`.
    pub fn term_matches(&self, term: &AffinityTerm, namespace: &str, labels: &Labels) -> bool {
        term.selector.matches(labels) && self.covers(term, namespace)
    }

    /// Whether `term` speaks of pods in `namespace`.
    pub fn covers(&self, term: &AffinityTerm, namespace: &str) -> bool {
        match self.0.get(namespace) {
            Some(labels) => term.covers_namespace(namespace, labels),
            // The namespace's event may come after its first pod's. Only its name is known until then.
            None => term.covers_namespace(namespace, &Labels::default()),
        }
    }
}
