//! NodeName: a pod that names its node goes there or nowhere.

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal};
use crate::event::Events;
use crate::ids::NodeName;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};

pub(super) static FILTER: Filter =
    Filter { name: "NodeName", events: Events::NODE_ADDED, hint: Hint::NodePasses, prepare };

struct Wanted<'a>(&'a NodeName);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    match &pod.node {
        None => Prepared::Skip,
        Some(name) => Prepared::Check(Box::new(Wanted(name))),
    }
}

impl Check for Wanted<'_> {
    fn check(&self, node: &Node, _: &[&PodInfo]) -> Result<(), Refusal> {
        if self.0 == node.name() { Ok(()) } else { Err(Refusal::unresolvable(Reason::NodeName)) }
    }
}
