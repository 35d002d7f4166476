//! Taints and tolerations, parsed, and the rule by which one meets the other. Knows no pod and no node.

use k8s_openapi::api::core::v1 as core;

/// What a taint does to pods that do not tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods go elsewhere if they can.
    PreferNoSchedule,
    /// New pods stay away and running ones are evicted.
    NoExecute,
}

impl TaintEffect {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "NoSchedule" => Some(Self::NoSchedule),
            "PreferNoSchedule" => Some(Self::PreferNoSchedule),
            "NoExecute" => Some(Self::NoExecute),
            _ => None,
        }
    }

    /// Whether the taint keeps intolerant pods off the node.
    pub fn repels(self) -> bool {
        self != Self::PreferNoSchedule
    }
}

/// One taint of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// The taint's key.
    pub key: Box<str>,
    /// The taint's value, or nothing.
    pub value: Box<str>,
    /// What it does.
    pub effect: TaintEffect,
}

impl Taint {
    /// Reads a taint; one with an unknown effect has none.
    pub fn parse(taint: &core::Taint) -> Option<Self> {
        Some(Self {
            key: taint.key.as_str().into(),
            value: taint.value.as_deref().unwrap_or_default().into(),
            effect: TaintEffect::parse(&taint.effect)?,
        })
    }

    /// The taint that `spec.unschedulable` stands for.
    pub fn unschedulable() -> Self {
        Self { key: "node.kubernetes.io/unschedulable".into(), value: "".into(), effect: TaintEffect::NoSchedule }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TolerationOperator {
    Equal,
    Exists,
    Lt,
    Gt,
}

/// One toleration of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toleration {
    key: Box<str>,
    operator: TolerationOperator,
    value: Box<str>,
    effect: Option<TaintEffect>,
}

impl Toleration {
    /// Reads a toleration; one that can never match has none.
    pub fn parse(toleration: &core::Toleration) -> Option<Self> {
        let effect = match toleration.effect.as_deref() {
            None | Some("") => None,
            Some(text) => Some(TaintEffect::parse(text)?),
        };
        let operator = match toleration.operator.as_deref() {
            None | Some("" | "Equal") => TolerationOperator::Equal,
            Some("Exists") => TolerationOperator::Exists,
            Some("Lt") => TolerationOperator::Lt,
            Some("Gt") => TolerationOperator::Gt,
            Some(_) => return None,
        };
        Some(Self {
            key: toleration.key.as_deref().unwrap_or_default().into(),
            operator,
            value: toleration.value.as_deref().unwrap_or_default().into(),
            effect,
        })
    }

    /// Whether it covers the taint. No key covers every key, no effect every effect.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|e| e != taint.effect) || (!self.key.is_empty() && self.key != taint.key) {
            return false;
        }
        match self.operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => self.value == taint.value,
            TolerationOperator::Lt => numbers(&taint.value, &self.value).is_some_and(|(t, v)| t < v),
            TolerationOperator::Gt => numbers(&taint.value, &self.value).is_some_and(|(t, v)| t > v),
        }
    }

    /// Whether it can cover a PreferNoSchedule taint.
    pub fn covers_preferences(&self) -> bool {
        matches!(self.effect, None | Some(TaintEffect::PreferNoSchedule))
    }
}

fn numbers(a: &str, b: &str) -> Option<(i64, i64)> {
    Some((a.parse().ok()?, b.parse().ok()?))
}

/// Whether every repelling taint is tolerated.
pub fn tolerates_all(tolerations: &[Toleration], taints: &[Taint]) -> bool {
    taints.iter().filter(|t| t.effect.repels()).all(|taint| tolerations.iter().any(|t| t.tolerates(taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toleration: (&str, &str, &str, &str), taint: (&str, &str, &str), expect: bool) {
        let some = |s: &str| (!s.is_empty()).then(|| s.to_owned());
        let (key, operator, value, effect) = toleration;
        let parsed = Toleration::parse(&core::Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        });
        let taint = Taint {
            key: taint.0.into(),
            value: taint.1.into(),
            effect: TaintEffect::parse(taint.2).expect("an effect"),
        };
        assert_eq!(parsed.is_some_and(|t| t.tolerates(&taint)), expect, "{toleration:?} {taint:?}");
    }

    #[test]
    fn tolerations() {
        check(("k", "Equal", "v", "NoSchedule"), ("k", "v", "NoSchedule"), true);
        check(("k", "", "v", ""), ("k", "v", "NoExecute"), true);
        check(("k", "Equal", "w", "NoSchedule"), ("k", "v", "NoSchedule"), false);
        check(("k", "Exists", "", "NoSchedule"), ("k", "v", "NoSchedule"), true);
        check(("k", "Exists", "", "NoExecute"), ("k", "v", "NoSchedule"), false);
        check(("", "Exists", "", ""), ("any", "v", "NoExecute"), true);
        check(("k", "Gt", "5", ""), ("k", "6", "NoSchedule"), true);
        check(("k", "Lt", "5", ""), ("k", "6", "NoSchedule"), false);
        check(("k", "Odd", "", ""), ("k", "v", "NoSchedule"), false);
    }
}
