//! Which nodes a pod selects: `nodeSelector`, required and preferred node affinity, compiled.
//! It judges names and labels only, never what a node has free.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as core;

use crate::ids::NodeName;
use crate::labels::{LabelQuery, Labels, Operator, Requirement};

/// One selector term; its parts are ANDed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTerm {
    labels: LabelQuery,
    comparisons: Box<[Comparison]>,
    names: Box<[NameRule]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    key: Box<str>,
    order: std::cmp::Ordering,
    bound: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NameRule {
    In(Box<[Box<str>]>),
    NotIn(Box<[Box<str>]>),
}

impl NodeTerm {
    /// Compiles a term. One without conditions, or with one that cannot be read, matches no node.
    fn parse(term: &core::NodeSelectorTerm) -> Self {
        Self::try_parse(term).unwrap_or(Self {
            labels: LabelQuery::Nothing,
            comparisons: Box::default(),
            names: Box::default(),
        })
    }

    fn try_parse(term: &core::NodeSelectorTerm) -> Option<Self> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let mut requirements = Vec::new();
        let mut comparisons = Vec::new();
        for e in expressions {
            let values = || e.values.iter().flatten().map(|v| v.as_str().into()).collect();
            let operator = match e.operator.as_str() {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" | "Lt" => {
                    let order = if e.operator == "Gt" { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
                    let bound = e.values.as_ref()?.first()?.parse().ok()?;
                    comparisons.push(Comparison { key: e.key.as_str().into(), order, bound });
                    continue;
                }
                _ => return None,
            };
            requirements.push(Requirement::new(&e.key, operator));
        }
        let mut names = Vec::new();
        for f in fields {
            let values = || f.values.iter().flatten().map(|v| v.as_str().into()).collect();
            names.push(match (f.key.as_str(), f.operator.as_str()) {
                ("metadata.name", "In") => NameRule::In(values()),
                ("metadata.name", "NotIn") => NameRule::NotIn(values()),
                _ => return None,
            });
        }
        let labels = LabelQuery::All(requirements.into());
        Some(Self { labels, comparisons: comparisons.into(), names: names.into() })
    }

    /// Whether the node meets the term.
    pub fn matches(&self, name: &NodeName, labels: &Labels) -> bool {
        self.labels.matches(labels)
            && self.comparisons.iter().all(|c| {
                labels.get(&c.key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v.cmp(&c.bound) == c.order)
            })
            && self.names.iter().all(|rule| match rule {
                NameRule::In(names) => names.iter().any(|n| **n == *name.as_str()),
                NameRule::NotIn(names) => names.iter().all(|n| **n != *name.as_str()),
            })
    }

    /// The only names this term can match, if it says so.
    fn pinned_names(&self) -> Option<BTreeSet<&str>> {
        let mut pinned: Option<BTreeSet<&str>> = None;
        for rule in &self.names {
            if let NameRule::In(names) = rule {
                let names: BTreeSet<&str> = names.iter().map(|n| &**n).collect();
                pinned = Some(match pinned {
                    None => names,
                    Some(before) => before.intersection(&names).copied().collect(),
                });
            }
        }
        pinned
    }
}

/// A preferred term with its weight (1–100).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferredNodes {
    /// What a matching node gains.
    pub weight: i64,
    /// Which nodes match.
    pub term: NodeTerm,
}

/// All that a pod says about nodes' names and labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSelection {
    selector: Option<LabelQuery>,
    required: Option<Box<[NodeTerm]>>,
    /// Preferences, for scoring.
    pub preferred: Box<[PreferredNodes]>,
}

impl NodeSelection {
    /// Compiles a pod's `nodeSelector` and node affinity.
    pub fn parse(selector: Option<&BTreeMap<String, String>>, affinity: Option<&core::NodeAffinity>) -> Self {
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_deref());
        let preferred = preferred.unwrap_or_default().iter();
        Self {
            selector: selector.filter(|s| !s.is_empty()).map(LabelQuery::from_pairs),
            required: required.map(|r| r.node_selector_terms.iter().map(NodeTerm::parse).collect()),
            // A preferred term without conditions matches every node, unlike a required one; it then prefers none.
            preferred: preferred
                .filter(|p| p.weight != 0)
                .filter_map(|p| {
                    Some(PreferredNodes { weight: p.weight.into(), term: NodeTerm::try_parse(&p.preference)? })
                })
                .collect(),
        }
    }

    /// Whether every node will do.
    pub fn is_unconditional(&self) -> bool {
        self.selector.is_none() && self.required.is_none()
    }

    /// Whether the node meets the selector and any of the required terms.
    pub fn matches(&self, name: &NodeName, labels: &Labels) -> bool {
        self.selector.as_ref().is_none_or(|s| s.matches(labels))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }

    /// The only nodes that can match, if every required term names them (as a DaemonSet's pods do).
    pub fn pinned_names(&self) -> Option<BTreeSet<&str>> {
        let terms = self.required.as_ref().filter(|terms| !terms.is_empty())?;
        let mut all = BTreeSet::new();
        for term in terms {
            all.extend(term.pinned_names()?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(selector: Value, affinity: Value, expect: bool) {
        let selector: Option<BTreeMap<String, String>> = serde_json::from_value(selector.clone()).expect("a selector");
        let affinity: core::NodeAffinity =
            serde_json::from_value(json!({"requiredDuringSchedulingIgnoredDuringExecution": affinity}))
                .expect("an affinity");
        let labels = [("zone", "a"), ("cores", "8")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let got = NodeSelection::parse(selector.as_ref(), Some(&affinity))
            .matches(&"n1".into(), &Labels::from_map(Some(&labels)));
        assert_eq!(got, expect, "{selector:?} {affinity:?}");
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]})
    }

    fn field(operator: &str, values: &[&str]) -> Value {
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": operator, "values": values}]}]})
    }

    #[test]
    fn required() {
        check(json!({"zone": "a"}), Value::Null, true);
        check(json!({"zone": "b"}), Value::Null, false);
        check(Value::Null, expression("zone", "In", &["a", "b"]), true);
        check(Value::Null, expression("zone", "NotIn", &["a"]), false);
        check(Value::Null, expression("other", "NotIn", &["a"]), true);
        check(Value::Null, expression("zone", "Exists", &[]), true);
        check(Value::Null, expression("zone", "DoesNotExist", &[]), false);
        check(Value::Null, expression("cores", "Gt", &["7"]), true);
        check(Value::Null, expression("cores", "Gt", &["8"]), false);
        check(Value::Null, expression("cores", "Lt", &["9"]), true);
        check(Value::Null, expression("zone", "Lt", &["9"]), false);
        check(Value::Null, expression("cores", "Gt", &["many"]), false);
        check(Value::Null, field("In", &["n1"]), true);
        check(Value::Null, field("NotIn", &["n1"]), false);
        // Both the selector and the affinity must hold.
        check(json!({"zone": "b"}), field("In", &["n1"]), false);
        // Terms are ORed; none, or an empty one, matches nothing.
        check(Value::Null, json!({"nodeSelectorTerms": []}), false);
        check(Value::Null, json!({"nodeSelectorTerms": [{}]}), false);
        let mut either = expression("zone", "In", &["b"]);
        either["nodeSelectorTerms"]
            .as_array_mut()
            .expect("terms")
            .push(field("In", &["n1"])["nodeSelectorTerms"][0].clone());
        check(Value::Null, either, true);
    }

    #[test]
    fn pinned_names() {
        let parse = |required: Value| {
            let affinity: core::NodeAffinity =
                serde_json::from_value(json!({"requiredDuringSchedulingIgnoredDuringExecution": required}))
                    .expect("an affinity");
            NodeSelection::parse(None, Some(&affinity))
        };
        assert_eq!(parse(field("In", &["n1", "n2"])).pinned_names(), Some(["n1", "n2"].into()));
        assert_eq!(parse(expression("a", "Exists", &[])).pinned_names(), None);
        let clash = json!({"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n1"]},
            {"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]});
        assert_eq!(parse(clash).pinned_names(), Some(BTreeSet::new()));
    }
}
