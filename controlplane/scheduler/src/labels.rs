//! Label sets and compiled label queries.
//! A query is parsed once at the edge and can be hashed and compared, so that equal queries of many pods are one entry in
//! the snapshot. Nothing here knows pods or nodes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// An immutable label set, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    /// Copies the labels of an object's metadata.
    pub fn from_map(map: Option<&BTreeMap<String, String>>) -> Self {
        let pairs = map.into_iter().flatten();
        Self(pairs.map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether there are no labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (&**k, &**v))
    }
}

/// How a requirement judges the value of its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The key is present with one of these values.
    In(Box<[Box<str>]>),
    /// The key is absent or has none of these values.
    NotIn(Box<[Box<str>]>),
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: Box<str>,
    operator: Operator,
}

impl Requirement {
    /// A condition on `key`.
    pub fn new(key: &str, operator: Operator) -> Self {
        Self { key: key.into(), operator }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.iter().any(|w| **w == *v)),
            Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| **w != *v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// A compiled `metav1.LabelSelector`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LabelQuery {
    /// Matches no labels: what an absent (or unreadable) selector means.
    Nothing,
    /// Matches labels that meet every requirement; with none, all labels.
    All(Box<[Requirement]>),
}

impl LabelQuery {
    /// Compiles a selector. Absent, or with an unknown operator, it matches nothing, as in Kubernetes' scheduler.
    pub fn from_selector(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self::Nothing };
        let mut all = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            all.push(Requirement::new(key, Operator::In([value.as_str().into()].into())));
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = || expression.values.iter().flatten().map(|v| v.as_str().into()).collect();
            let operator = match expression.operator.as_str() {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Self::Nothing,
            };
            all.push(Requirement::new(&expression.key, operator));
        }
        Self::All(all.into())
    }

    /// The query of a Service's selector: every pair must be there.
    pub fn from_pairs(pairs: &BTreeMap<String, String>) -> Self {
        let all = pairs.iter().map(|(k, v)| Requirement::new(k, Operator::In([v.as_str().into()].into())));
        Self::All(all.collect())
    }

    /// A query that wants both `self` and the further requirements.
    pub fn and(self, more: impl IntoIterator<Item = Requirement>) -> Self {
        match self {
            Self::Nothing => Self::Nothing,
            Self::All(all) => {
                let mut all = all.into_vec();
                for requirement in more {
                    if !all.contains(&requirement) {
                        all.push(requirement);
                    }
                }
                Self::All(all.into())
            }
        }
    }

    /// A query that wants what both want.
    pub fn and_query(self, other: Self) -> Self {
        match other {
            Self::Nothing => Self::Nothing,
            Self::All(more) => self.and(more.into_vec()),
        }
    }

    /// Whether the labels meet the query.
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(all) => all.iter().all(|r| r.matches(labels)),
        }
    }

    /// Whether the query has no requirement and so matches everything.
    pub fn is_unconditional(&self) -> bool {
        matches!(self, Self::All(all) if all.is_empty())
    }

    /// A pair that every match must have, if the query names one: the way into an index.
    pub fn pinned_pair(&self) -> Option<(&str, &str)> {
        let Self::All(all) = self else { return None };
        all.iter().find_map(|r| match &r.operator {
            Operator::In(values) if values.len() == 1 => Some((&*r.key, &*values[0])),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        Labels::from_map(Some(&map))
    }

    fn query(key: &str, operator: &str, values: &[&str]) -> LabelQuery {
        LabelQuery::from_selector(Some(&LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| v.to_string()).collect()),
            }]),
        }))
    }

    #[test]
    fn operators() {
        let a = labels(&[("app", "a"), ("tier", "web")]);
        for (key, operator, values, expect) in [
            ("app", "In", &["a", "b"][..], true),
            ("app", "In", &["b"], false),
            ("none", "In", &["a"], false),
            ("app", "NotIn", &["a"], false),
            ("app", "NotIn", &["b"], true),
            ("none", "NotIn", &["a"], true),
            ("tier", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("none", "DoesNotExist", &[], true),
            ("tier", "DoesNotExist", &[], false),
            ("tier", "Nonsense", &[], false),
        ] {
            assert_eq!(query(key, operator, values).matches(&a), expect, "{key} {operator} {values:?}");
        }
    }

    #[test]
    fn absent_matches_nothing_and_empty_matches_all() {
        assert!(!LabelQuery::from_selector(None).matches(&Labels::default()));
        let empty = LabelQuery::from_selector(Some(&LabelSelector::default()));
        assert!(empty.matches(&Labels::default()) && empty.is_unconditional());
    }
}
