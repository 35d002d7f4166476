//! NodePorts: two pods cannot take the same port of a host.

use super::{Check, Filter, Hint, Prepared};
use crate::diagnosis::{Reason, Refusal};
use crate::event::Events;
use crate::pod::{HostPort, PodInfo};
use crate::snapshot::{Node, Snapshot};

pub(super) static FILTER: Filter =
    Filter { name: "NodePorts", events: Events::NODE_ADDED.or(Events::POD_REMOVED), hint: Hint::NodePasses, prepare };

struct Free<'a>(&'a [HostPort]);

fn prepare<'a>(_: &'a Snapshot, pod: &'a PodInfo) -> Prepared<'a> {
    match &*pod.placed.host_ports {
        [] => Prepared::Skip,
        ports => Prepared::Check(Box::new(Free(ports))),
    }
}

impl Check for Free<'_> {
    fn check(&self, node: &Node, reserved: &[&PodInfo]) -> Result<(), Refusal> {
        let mut taken = node.ports().iter().chain(reserved.iter().flat_map(|p| &p.placed.host_ports));
        if taken.any(|used| self.0.iter().any(|wanted| wanted.conflicts(used))) {
            return Err(Refusal::resolvable(Reason::Ports));
        }
        Ok(())
    }
}
