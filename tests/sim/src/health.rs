//! How the containers of a node answer probes: a container needs a moment after its start before it is ready, and a
//! fault can make those of a node busy (not ready) or hung (not alive).

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_agent_core::effect::Outcome;
use coracle_agent_core::effect::ProbeKind;
use coracle_agent_core::workload::ContainerKey;
use rand::{Rng, SeedableRng, rngs::SmallRng};

/// The longest a container takes to become ready.
const WARM_UP_MILLIS: u64 = 3_000;

/// What ails the containers of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ailment {
    #[default]
    None,
    /// They live, and can take no traffic.
    Busy,
    /// They do nothing any more.
    Hung,
}

/// The health of a node's containers.
pub(crate) struct Health {
    rng: SmallRng,
    ready_at: BTreeMap<ContainerKey, Duration>,
    pub(crate) ailment: Ailment,
}

impl Health {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: SmallRng::seed_from_u64(seed), ready_at: BTreeMap::new(), ailment: Ailment::None }
    }

    /// A container began to run.
    pub(crate) fn started(&mut self, key: &ContainerKey, now: Duration) {
        let warm_up = Duration::from_millis(self.rng.random_range(0..=WARM_UP_MILLIS));
        self.ready_at.insert(key.clone(), now + warm_up);
    }

    /// What a probe says.
    pub(crate) fn answer(&self, key: &ContainerKey, kind: ProbeKind, now: Duration) -> Outcome {
        let warm = self.ready_at.get(key).is_none_or(|at| *at <= now);
        let well = match (self.ailment, kind) {
            (Ailment::Hung, _) => false,
            (Ailment::Busy, ProbeKind::Readiness) => false,
            (_, ProbeKind::Liveness) => true,
            (_, ProbeKind::Readiness | ProbeKind::Startup) => warm,
        };
        if well { Outcome::Success } else { Outcome::Failure { output: "not now".into() } }
    }
}
