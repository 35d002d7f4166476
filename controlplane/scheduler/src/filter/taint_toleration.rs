//! TaintToleration: a node with a NoSchedule or NoExecute taint takes only pods that tolerate it.

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal};
use crate::event::Events;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};
use crate::taint::{Toleration, tolerates_all};

pub(super) static FILTER: Filter = Filter {
    name: "TaintToleration",
    events: Events::NODE_ADDED.or(Events::NODE_TAINTS),
    hint: Hint::NodePasses,
    prepare,
};

struct Tolerates<'a>(&'a [Toleration]);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    Prepared::Check(Box::new(Tolerates(&pod.tolerations)))
}

impl Check for Tolerates<'_> {
    fn check(&self, node: &Node, _: &[&PodInfo]) -> Result<(), Refusal> {
        if tolerates_all(self.0, &node.info().taints) { Ok(()) } else { Err(Refusal::unresolvable(Reason::Taint)) }
    }
}
