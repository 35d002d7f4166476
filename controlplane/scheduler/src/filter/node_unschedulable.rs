//! NodeUnschedulable: a cordoned node takes only pods that tolerate the taint a cordon stands for.

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal};
use crate::event::Events;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};
use crate::taint::Taint;

pub(super) static FILTER: Filter = Filter {
    name: "NodeUnschedulable",
    events: Events::NODE_ADDED.or(Events::NODE_TAINTS),
    hint: Hint::NodePasses,
    prepare,
};

struct NotCordoned;

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    let cordon = Taint::unschedulable();
    if pod.tolerations.iter().any(|t| t.tolerates(&cordon)) {
        return Prepared::Skip;
    }
    Prepared::Check(Box::new(NotCordoned))
}

impl Check for NotCordoned {
    fn check(&self, node: &Node, _: &[&PodInfo]) -> Result<(), Refusal> {
        if node.info().cordoned { Err(Refusal::unresolvable(Reason::Cordoned)) } else { Ok(()) }
    }
}
