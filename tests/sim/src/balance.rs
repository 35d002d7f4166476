//! No node is promised more than it has, at any commit.

use std::sync::Arc;

use coracle_api::quantity::Amount;
use k8s_openapi::api::core::v1::Pod;

use crate::books::Commit;
use crate::node::NODE_MILLI_CPU;
use crate::objects::{all, is_ended, is_of, node_of, typed};

/// The check; it remembers nothing.
pub(crate) struct Balance;

impl Balance {
    pub(crate) fn look(&self, commit: &Commit<'_>) -> Result<(), String> {
        let Some(new) = commit.new.filter(|_| is_of::<Pod>(commit.key)) else { return Ok(()) };
        let home = |pod: &Arc<Pod>| node_of(pod).map(str::to_owned);
        let node = typed::<Pod>(new).as_ref().and_then(home);
        let before = commit.old.and_then(|old| typed::<Pod>(old)).as_ref().and_then(home);
        let Some(node) = node.filter(|node| Some(node) != before.as_ref()) else { return Ok(()) };
        let pods = all::<Pod>(commit.store);
        let there = pods.iter().filter(|pod| node_of(pod) == Some(&node) && !is_ended(pod));
        let used: i64 = there.map(|pod| milli_cpu(pod)).sum();
        if used > NODE_MILLI_CPU {
            return Err(format!("{node} is over-committed: {used}m of {NODE_MILLI_CPU}m"));
        }
        Ok(())
    }
}

fn milli_cpu(pod: &Pod) -> i64 {
    let requests = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .filter_map(|container| container.resources.as_ref()?.requests.as_ref());
    requests.filter_map(|requests| requests.get("cpu")).filter_map(|cpu| Amount::of(cpu).ok()).map(Amount::milli).sum()
}
