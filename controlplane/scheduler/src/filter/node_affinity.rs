//! NodeAffinity: the pod's node selector and its required node affinity.

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal};
use crate::event::Events;
use crate::node_selector::NodeSelection;
use crate::pod::PodInfo;
use crate::snapshot::{Node, Snapshot};

pub(super) static FILTER: Filter = Filter {
    name: "NodeAffinity",
    events: Events::NODE_ADDED.or(Events::NODE_LABELS),
    hint: Hint::NodePasses,
    prepare,
};

struct Selected<'a>(&'a NodeSelection);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    let selection = &pod.node_selection;
    if selection.is_unconditional() {
        return Prepared::Skip;
    }
    let check = Box::new(Selected(selection));
    match selection.pinned_names() {
        None => Prepared::Check(check),
        Some(names) if names.is_empty() => Prepared::Never(Reason::NodeAffinityConflict),
        Some(names) => Prepared::Only(names, check),
    }
}

impl Check for Selected<'_> {
    fn check(&self, node: &Node, _: &[&PodInfo]) -> Result<(), Refusal> {
        let matches = self.0.matches(node.name(), &node.info().labels);
        if matches { Ok(()) } else { Err(Refusal::unresolvable(Reason::NodeAffinity)) }
    }
}
