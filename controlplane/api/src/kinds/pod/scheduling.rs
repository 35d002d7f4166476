//! The rules for where a pod may run: affinity, tolerations, spreading, gates.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    PodSchedulingGate, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::kinds::fields::{list, text};
use crate::validation::{
    Errors, Path, dns1123_label, dns1123_subdomain, label_value, qualified_name, validate_label_selector,
};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn validate_affinity(affinity: &Affinity, at: &Path<'_>, errors: &mut Errors) {
    if let Some(node) = &affinity.node_affinity {
        validate_node_affinity(node, &at.child("nodeAffinity"), errors);
    }
    let pod = affinity.pod_affinity.as_ref().map(|a| {
        (
            "podAffinity",
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let anti = affinity.pod_anti_affinity.as_ref().map(|a| {
        (
            "podAntiAffinity",
            &a.required_during_scheduling_ignored_during_execution,
            &a.preferred_during_scheduling_ignored_during_execution,
        )
    });
    for (field, required, preferred) in [pod, anti].into_iter().flatten() {
        let at = at.child(field);
        for (i, term) in list(required).iter().enumerate() {
            validate_pod_term(term, &at.child(REQUIRED).index(i), errors);
        }
        for (i, term) in list(preferred).iter().enumerate() {
            let WeightedPodAffinityTerm { pod_affinity_term, weight } = term;
            let list_at = at.child(PREFERRED);
            let at = list_at.index(i);
            validate_weight(*weight, &at.child("weight"), errors);
            validate_pod_term(pod_affinity_term, &at.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(weight: i32, at: &Path<'_>, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.invalid(at, weight, "must be in the range 1-100");
    }
}

/// Whether the values of labels are checked: not where a term only prefers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Checked,
    Any,
}

fn validate_node_affinity(affinity: &NodeAffinity, at: &Path<'_>, errors: &mut Errors) {
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        validate_node_selector(required, &at.child(REQUIRED), errors);
    }
    for (i, term) in list(&affinity.preferred_during_scheduling_ignored_during_execution).iter().enumerate() {
        let list_at = at.child(PREFERRED);
        let at = list_at.index(i);
        validate_weight(term.weight, &at.child("weight"), errors);
        validate_node_term(&term.preference, Values::Any, &at.child("preference"), errors);
    }
}

/// Terms of which a node must meet one.
pub(crate) fn validate_node_selector(selector: &NodeSelector, at: &Path<'_>, errors: &mut Errors) {
    let at = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&at, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        validate_node_term(term, Values::Checked, &at.index(i), errors);
    }
}

fn validate_node_term(term: &NodeSelectorTerm, values: Values, at: &Path<'_>, errors: &mut Errors) {
    for (i, requirement) in list(&term.match_expressions).iter().enumerate() {
        validate_node_requirement(requirement, values, &at.child("matchExpressions").index(i), errors);
    }
    for (i, requirement) in list(&term.match_fields).iter().enumerate() {
        validate_node_field(requirement, &at.child("matchFields").index(i), errors);
    }
}

fn validate_node_requirement(r: &NodeSelectorRequirement, check: Values, at: &Path<'_>, errors: &mut Errors) {
    let values = list(&r.values);
    let values_at = at.child("values");
    match r.operator.as_str() {
        "In" | "NotIn" => {
            if values.is_empty() {
                errors.required(&values_at, "must be specified when `operator` is 'In' or 'NotIn'");
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                errors.forbidden(&values_at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                errors.required(&values_at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
        }
        other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
    }
    errors.invalid_each(&at.child("key"), &r.key, qualified_name(&r.key));
    if check == Values::Checked {
        for (i, value) in values.iter().enumerate() {
            errors.invalid_each(&values_at.index(i), value, label_value(value));
        }
    }
}

fn validate_node_field(r: &NodeSelectorRequirement, at: &Path<'_>, errors: &mut Errors) {
    let values = list(&r.values);
    match r.operator.as_str() {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&at.child("values"), detail);
            }
        }
        other => errors.invalid(&at.child("operator"), other, "not a valid selector operator"),
    }
    if r.key == "metadata.name" {
        for (i, value) in values.iter().enumerate() {
            errors.invalid_each(&at.child("values").index(i), value, dns1123_subdomain(value));
        }
    } else {
        errors.invalid(&at.child("key"), &r.key, "not a valid field selector key");
    }
}

fn validate_pod_term(term: &PodAffinityTerm, at: &Path<'_>, errors: &mut Errors) {
    if let Some(selector) = &term.label_selector {
        validate_label_selector(selector, &at.child("labelSelector"), errors);
    }
    if let Some(selector) = &term.namespace_selector {
        validate_label_selector(selector, &at.child("namespaceSelector"), errors);
    }
    for name in list(&term.namespaces) {
        errors.invalid_each(&at.child("namespace"), name, dns1123_label(name));
    }
    validate_label_keys(term, at, errors);
    if term.topology_key.is_empty() {
        errors.required(&at.child("topologyKey"), "can not be empty");
    }
    errors.invalid_each(&at.child("topologyKey"), &term.topology_key, qualified_name(&term.topology_key));
}

fn validate_label_keys(term: &PodAffinityTerm, at: &Path<'_>, errors: &mut Errors) {
    let (same, other) = (list(&term.match_label_keys), list(&term.mismatch_label_keys));
    for (field, keys) in [("matchLabelKeys", same), ("mismatchLabelKeys", other)] {
        let at = at.child(field);
        if !keys.is_empty() && term.label_selector.is_none() {
            errors.forbidden(&at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            errors.invalid_each(&at.index(i), key, qualified_name(key));
        }
    }
    if let Some(selector) = &term.label_selector {
        // The server itself adds one expression for each key, so a second mention is the client's.
        for (i, key) in same.iter().enumerate() {
            if mentions(selector, key) > 1 {
                errors.invalid(&at.index(i), key, "exists in both matchLabelKeys and labelSelector");
            }
        }
    }
    for (i, key) in same.iter().enumerate().filter(|(_, k)| other.contains(k)) {
        let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.invalid(&at.child("matchLabelKeys").index(i), key, detail);
    }
}

fn mentions(selector: &LabelSelector, key: &str) -> usize {
    let labels = selector.match_labels.as_ref().is_some_and(|l| l.contains_key(key));
    usize::from(labels) + list(&selector.match_expressions).iter().filter(|e| e.key == key).count()
}

/// The effect of a taint.
pub(crate) fn validate_effect(effect: &str, at: &Path<'_>, errors: &mut Errors) {
    if !EFFECTS.contains(&effect) {
        errors.not_supported(at, effect, &EFFECTS);
    }
}

pub(super) fn validate_tolerations(tolerations: &[Toleration], at: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = at.index(i);
        let (key, operator) = (text(&toleration.key), text(&toleration.operator));
        let (value, effect) = (text(&toleration.value), text(&toleration.effect));
        if !key.is_empty() {
            errors.invalid_each(&at.child("key"), key, qualified_name(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&at.child("operator"), operator, detail);
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&at.child("effect"), effect, detail);
        }
        match operator {
            "Equal" | "" => {
                let broken = label_value(value);
                if !broken.is_empty() {
                    errors.invalid(&at.child("operator"), value, broken.join(";"));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    errors.invalid(&at.child("operator"), value, "value must be empty when `operator` is 'Exists'");
                }
            }
            other => errors.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            validate_effect(effect, &at.child("effect"), errors);
        }
    }
}

pub(super) fn validate_gates(gates: &[PodSchedulingGate], at: &Path<'_>, errors: &mut Errors) {
    for (i, gate) in gates.iter().enumerate() {
        errors.invalid_each(&at.index(i), &gate.name, qualified_name(&gate.name));
        if gates[..i].iter().any(|g| g.name == gate.name) {
            errors.duplicate(&at.index(i), &gate.name);
        }
    }
}

pub(super) fn validate_spread(constraints: &[TopologySpreadConstraint], at: &Path<'_>, errors: &mut Errors) {
    for (i, c) in constraints.iter().enumerate() {
        let at = at.index(i);
        if c.max_skew <= 0 {
            errors.invalid(&at.child("maxSkew"), c.max_skew, "must be greater than zero");
        }
        if c.topology_key.is_empty() {
            errors.required(&at.child("topologyKey"), "can not be empty");
        }
        let action = c.when_unsatisfiable.as_str();
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            errors.not_supported(&at.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let twin = |o: &&TopologySpreadConstraint| o.topology_key == c.topology_key && o.when_unsatisfiable == action;
        if constraints[i + 1..].iter().any(|o| twin(&o)) {
            let pair = format!("{{{}, {action}}}", c.topology_key);
            errors.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(domains) = c.min_domains {
            if domains <= 0 {
                errors.invalid(&at.child("minDomains"), domains, "must be greater than zero");
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&at.child("minDomains"), domains, detail);
            }
        }
        for (field, policy) in
            [("nodeAffinityPolicy", &c.node_affinity_policy), ("nodeTaintsPolicy", &c.node_taints_policy)]
        {
            if let Some(policy) = policy.as_deref().filter(|p| !matches!(*p, "Honor" | "Ignore")) {
                errors.not_supported(&at.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        validate_spread_keys(c, &at.child("matchLabelKeys"), errors);
        if let Some(selector) = &c.label_selector {
            validate_label_selector(selector, &at.child("labelSelector"), errors);
        }
    }
}

fn validate_spread_keys(c: &TopologySpreadConstraint, at: &Path<'_>, errors: &mut Errors) {
    let keys = list(&c.match_label_keys);
    if !keys.is_empty() && c.label_selector.is_none() {
        errors.forbidden(at, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys.iter().enumerate() {
        errors.invalid_each(&at.index(i), key, qualified_name(key));
        if c.label_selector.as_ref().is_some_and(|s| mentions(s, key) > 1) {
            errors.invalid(&at.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

/// Adds to the selectors of affinity and spreading what `matchLabelKeys` and `mismatchLabelKeys` mean for a pod with these
/// labels. It is done once, when the pod is made.
pub(super) fn merge_label_keys(pod: &mut k8s_openapi::api::core::v1::Pod) {
    let Some(labels) = pod.metadata.labels.as_ref() else { return };
    let Some(spec) = pod.spec.as_mut() else { return };
    let merge = |selector: &mut Option<LabelSelector>, keys: &Option<Vec<String>>, operator: &str| {
        let Some(selector) = selector else { return };
        for key in list(keys) {
            if let Some(value) = labels.get(key) {
                selector.match_expressions.get_or_insert_default().push(
                    k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement {
                        key: key.clone(),
                        operator: operator.to_owned(),
                        values: Some(vec![value.clone()]),
                    },
                );
            }
        }
    };
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        merge(&mut constraint.label_selector, &constraint.match_label_keys, "In");
    }
    let Some(affinity) = spec.affinity.as_mut() else { return };
    let (pod, anti) = (affinity.pod_affinity.as_mut(), affinity.pod_anti_affinity.as_mut());
    let mut terms: Vec<&mut PodAffinityTerm> = Vec::new();
    if let Some(a) = pod {
        terms.extend(a.required_during_scheduling_ignored_during_execution.iter_mut().flatten());
        let preferred = a.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        terms.extend(preferred.map(|w| &mut w.pod_affinity_term));
    }
    if let Some(a) = anti {
        terms.extend(a.required_during_scheduling_ignored_during_execution.iter_mut().flatten());
        let preferred = a.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        terms.extend(preferred.map(|w| &mut w.pod_affinity_term));
    }
    for term in terms {
        merge(&mut term.label_selector, &term.match_label_keys, "In");
        merge(&mut term.label_selector, &term.mismatch_label_keys, "NotIn");
    }
}
