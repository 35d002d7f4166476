//! NodeResourcesFit: the node must have free what the pod requests, and room for one pod more.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal, Remedy};
use crate::event::Events;
use crate::pod::PodInfo;
use crate::resources::Resources;
use crate::snapshot::{Node, Snapshot};

pub(super) static FILTER: Filter = Filter {
    name: "NodeResourcesFit",
    events: Events::NODE_ADDED.or(Events::NODE_ALLOCATABLE).or(Events::POD_CHANGED).or(Events::POD_REMOVED),
    hint: Hint::NodePasses,
    prepare,
};

struct Fits<'a>(&'a Resources);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    Prepared::Check(Box::new(Fits(&pod.placed.requests.exact)))
}

impl Check for Fits<'_> {
    fn check(&self, node: &Node, reserved: &[&PodInfo]) -> Result<(), Refusal> {
        let pods = node.pods().len() + reserved.len() + 1;
        let too_many = i64::try_from(pods).unwrap_or(i64::MAX) > node.info().allowed_pods;
        let (want, offer, used) = (self.0, &node.info().allocatable, node.requested());
        let reserved_sum =
            |amount: fn(&Resources) -> i64| -> i64 { reserved.iter().map(|p| amount(&p.placed.requests.exact)).sum() };
        let short = |want: i64, offer: i64, used: i64| want > 0 && want > offer - used;
        let cpu = short(want.milli_cpu, offer.milli_cpu, used.milli_cpu + reserved_sum(|r| r.milli_cpu));
        let memory = short(want.memory, offer.memory, used.memory + reserved_sum(|r| r.memory));
        let scratch = short(
            want.ephemeral_storage,
            offer.ephemeral_storage,
            used.ephemeral_storage + reserved_sum(|r| r.ephemeral_storage),
        );
        let mut refusal = Refusal { remedy: Remedy::Preemption, reasons: SmallVec::new() };
        if too_many {
            refusal.reasons.push(Reason::TooManyPods);
        }
        for (is_short, name, want, offer) in [
            (cpu, "cpu", want.milli_cpu, offer.milli_cpu),
            (memory, "memory", want.memory, offer.memory),
            (scratch, "ephemeral-storage", want.ephemeral_storage, offer.ephemeral_storage),
        ] {
            if is_short {
                lacks(&mut refusal, Cow::Borrowed(name), want > offer);
            }
        }
        for (name, want) in &want.extended {
            let reserved: i64 = reserved.iter().map(|p| p.placed.requests.exact.extended(name)).sum();
            let offer = offer.extended(name);
            if short(*want, offer, used.extended(name) + reserved) {
                lacks(&mut refusal, Cow::Owned(name.to_string()), *want > offer);
            }
        }
        if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
    }
}

/// Notes a shortage; on a node that could not serve the pod even if it were empty, evicting pods is of no use.
fn lacks(refusal: &mut Refusal, name: Cow<'static, str>, beyond_the_node: bool) {
    refusal.reasons.push(Reason::Insufficient(name));
    if beyond_the_node {
        refusal.remedy = Remedy::None;
    }
}
