//! The rolling update: the new set grows as far as maxSurge allows, the old ones shrink as far as maxUnavailable allows
//! (pkg/controller/deployment/rolling.go).

use super::limits::{available_of, replicas_of};
use super::sets::Rollout;

impl Rollout<'_> {
    /// One move of a rolling update: up, or down, or nothing.
    pub(super) fn roll(&mut self) {
        if self.new.is_none() {
            self.create_new();
            return;
        }
        if self.grow_new() || self.shrink_old() {
            return;
        }
        self.clean_up_if_complete();
    }

    /// How many replicas the new set may have, given that it has `current` (deploymentutil.NewRSNewReplicas).
    pub(super) fn room_for_new(&self, current: i32) -> i32 {
        let total: i32 = self.all().map(|set| replicas_of(&set.wanted)).sum();
        let most = self.desired() + self.limits.surge;
        if total >= most {
            return current;
        }
        current + (most - total).min(self.desired() - current)
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new.as_ref() else { return false };
        let (current, desired) = (replicas_of(&new.wanted), self.desired());
        let next = if current >= desired { desired } else { self.room_for_new(current) };
        let spec = self.spec;
        if let Some(new) = self.new.as_mut().filter(|_| next != current) {
            new.scale_to(next, spec);
        }
        next != current
    }

    fn shrink_old(&mut self) -> bool {
        let old_pods: i32 = self.old.iter().map(|set| replicas_of(&set.wanted)).sum();
        if old_pods == 0 {
            return false;
        }
        let all_pods: i32 = self.all().map(|set| replicas_of(&set.wanted)).sum();
        let least_available = self.desired() - self.limits.unavailable;
        let new_unavailable = self.new.as_ref().map_or(0, |new| replicas_of(&new.wanted) - available_of(&new.seen));
        let most_removed = all_pods - least_available - new_unavailable;
        if most_removed <= 0 {
            return false;
        }
        // Unhealthy pods go first: they hold up the rollout and serve nobody.
        let unhealthy = self.take_from_old(most_removed, |wanted, available| wanted - available);
        // A set's status may be older than its spec; pods it was told to delete no longer count.
        let available: i32 = self.all().map(|set| available_of(&set.seen).min(replicas_of(&set.wanted))).sum();
        let healthy = self.take_from_old(available - least_available, |wanted, _| wanted);
        unhealthy + healthy > 0
    }

    /// Takes up to `budget` replicas from the old sets, oldest first; `may_take` says how many one set can give, by its
    /// wanted and its available replicas.
    fn take_from_old(&mut self, budget: i32, may_take: fn(i32, i32) -> i32) -> i32 {
        let mut taken = 0;
        let spec = self.spec;
        for set in &mut self.old {
            let wanted = replicas_of(&set.wanted);
            let take = may_take(wanted, available_of(&set.seen)).min(budget - taken).min(wanted);
            if take > 0 {
                set.scale_to(wanted - take, spec);
                taken += take;
            }
        }
        taken
    }
}
