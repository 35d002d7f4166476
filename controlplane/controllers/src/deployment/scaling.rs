//! Scaling a deployment in the middle of a rollout: what is added or taken is spread over its sets in proportion
//! (pkg/controller/deployment/sync.go, scale).

use super::limits::{available_of, replicas_of};
use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, Rollout, Set};
use crate::meta::MetaExt;

impl Rollout<'_> {
    /// Whether the wanted number of replicas changed since some set was scaled.
    pub(super) fn was_scaled(&self) -> bool {
        let desired = self.desired();
        let stale = |set: &Set| set.annotated(DESIRED_REPLICAS).is_some_and(|annotated| annotated != desired);
        self.all().any(|set| replicas_of(&set.seen) > 0 && stale(set))
    }

    /// Brings the sets to the wanted number without moving the rollout on.
    pub(super) fn scale_all(&mut self) {
        let (desired, spec) = (self.desired(), self.spec);
        if let Some(only) = self.active_or_latest() {
            only.scale_to(desired, spec);
            return;
        }
        if self.is_saturated() {
            for set in self.old.iter_mut().filter(|set| replicas_of(&set.wanted) > 0) {
                set.scale_to(0, spec);
            }
            return;
        }
        let recreate = spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
        if !recreate {
            self.scale_in_proportion();
        }
    }

    /// The only set with replicas, or the newest if none has any; nothing if several have.
    fn active_or_latest(&mut self) -> Option<&mut Set> {
        match self.all().filter(|set| replicas_of(&set.wanted) > 0).count() {
            0 if self.new.is_some() => self.new.as_mut(),
            0 => self.old.last_mut(),
            1 => self.all_mut().find(|set| replicas_of(&set.wanted) > 0),
            _ => None,
        }
    }

    fn is_saturated(&self) -> bool {
        let desired = self.desired();
        self.new.as_ref().is_some_and(|new| {
            new.annotated(DESIRED_REPLICAS) == Some(desired)
                && replicas_of(&new.wanted) == desired
                && available_of(&new.seen) == desired
        })
    }

    fn scale_in_proportion(&mut self) {
        let desired = self.desired();
        let surge = self.limits.surge;
        let fallback = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let spec = self.spec;
        let mut sets: Vec<&mut Set> = self.all_mut().filter(|set| replicas_of(&set.wanted) > 0).collect();
        let total: i32 = sets.iter().map(|set| replicas_of(&set.wanted)).sum();
        let allowed = if desired > 0 { desired + surge } else { 0 };
        let to_add = allowed - total;
        // The largest first; of equal ones the newest when growing, the oldest when shrinking.
        sets.sort_by_key(|set| {
            let created = set.seen.created_second();
            (-replicas_of(&set.wanted), if to_add > 0 { -created } else { created })
        });
        let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
        let mut added = 0;
        for set in &sets {
            let size = replicas_of(&set.wanted);
            let share = proportion(size, set.annotated(MAX_REPLICAS), fallback, Wanted { desired, surge });
            let left = to_add - added;
            let step = match to_add.signum() {
                0 => 0,
                1 => share.min(left),
                _ => share.max(left),
            };
            added += step;
            sizes.push(size + step);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (set, size) in sets.into_iter().zip(sizes) {
            set.resize(size, spec);
        }
    }
}

/// The size that a deployment is to have.
#[derive(Clone, Copy)]
struct Wanted {
    desired: i32,
    surge: i32,
}

/// How many replicas a set of `size` gains or loses when the deployment's whole size changes
/// (deploymentutil.getReplicaSetFraction).
fn proportion(size: i32, max_before: Option<i32>, fallback: i32, wanted: Wanted) -> i32 {
    if wanted.desired == 0 {
        return -size;
    }
    let before = max_before.filter(|before| *before != 0).unwrap_or(fallback);
    if before == 0 {
        return 0;
    }
    let next = f64::from(size) * f64::from(wanted.desired + wanted.surge) / f64::from(before);
    #[expect(clippy::cast_possible_truncation, reason = "replica counts fit an i32 many times over")]
    let next = next.round() as i32;
    next - size
}
