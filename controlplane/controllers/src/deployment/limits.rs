//! The arithmetic of a rolling update: how many pods may be too many, and how many may be missing.

use k8s_openapi::api::apps::v1::{DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// How far a rollout may stray from the wanted number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

/// The direction in which a percentage that is no whole number of pods goes.
#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

impl Limits {
    /// Resolves percentages against the wanted number (deploymentutil.ResolveFenceposts).
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let Some(rolling) = rolling_update(spec) else { return Self { surge: 0, unavailable: 0 } };
        let surge = resolve(rolling.0, replicas, Round::Up);
        let mut unavailable = resolve(rolling.1, replicas, Round::Down);
        if surge == 0 && unavailable == 0 {
            // Validation keeps both from being 0; rounding does not, and with neither nothing could move.
            unavailable = 1;
        }
        Self { surge, unavailable: if replicas == 0 { 0 } else { unavailable.min(replicas) } }
    }
}

fn rolling_update(spec: &DeploymentSpec) -> Option<(Option<&IntOrString>, Option<&IntOrString>)> {
    let strategy = spec.strategy.as_ref();
    if strategy.is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate")) {
        return None;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    Some((
        rolling.and_then(|rolling| rolling.max_surge.as_ref()),
        rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
    ))
}

fn resolve(value: Option<&IntOrString>, replicas: i32, round: Round) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(count)) => *count,
        Some(IntOrString::String(text)) => {
            let percent: i64 = text.strip_suffix('%').and_then(|number| number.parse().ok()).unwrap_or(0);
            let hundredths = percent * i64::from(replicas);
            let count = match round {
                Round::Up => (hundredths + 99).div_euclid(100),
                Round::Down => hundredths.div_euclid(100),
            };
            i32::try_from(count).unwrap_or(i32::MAX)
        }
    }
}

/// `spec.replicas` of a set.
pub(super) fn replicas_of(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.availableReplicas` of a set.
pub(super) fn available_of(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::{DeploymentStrategy, RollingUpdateDeployment};

    use super::*;

    #[test]
    fn percentages_round_as_kubernetes_does() {
        let percent = |text: &str| Some(IntOrString::String(text.into()));
        let number = |count| Some(IntOrString::Int(count));
        let check = |replicas, surge, unavailable, expect: (i32, i32)| {
            let rolling_update = Some(RollingUpdateDeployment { max_surge: surge, max_unavailable: unavailable });
            let strategy = Some(DeploymentStrategy { type_: Some("RollingUpdate".into()), rolling_update });
            let limits =
                Limits::of(&DeploymentSpec { replicas: Some(replicas), strategy, ..DeploymentSpec::default() });
            assert_eq!((limits.surge, limits.unavailable), expect);
        };
        check(10, percent("25%"), percent("25%"), (3, 2));
        check(1, percent("25%"), percent("25%"), (1, 0));
        check(4, percent("25%"), percent("25%"), (1, 1));
        check(3, number(0), percent("10%"), (0, 1));
        check(3, number(0), number(5), (0, 3));
        check(0, percent("25%"), percent("25%"), (0, 0));
        check(10, percent("100%"), number(0), (10, 0));
    }
}
