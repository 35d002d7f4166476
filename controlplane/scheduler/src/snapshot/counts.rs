//! How many of something each node has: a sorted, sparse list. Compact for the many label sets that few pods share.

use crate::ids::NodeId;

/// Counts by node; only nodes with a count are held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeCounts(Vec<(NodeId, u32)>);

impl NodeCounts {
    pub(super) fn increment(&mut self, node: NodeId) {
        match self.0.binary_search_by_key(&node, |(n, _)| *n) {
            Ok(i) => self.0[i].1 += 1,
            Err(i) => self.0.insert(i, (node, 1)),
        }
    }

    pub(super) fn decrement(&mut self, node: NodeId) {
        if let Ok(i) = self.0.binary_search_by_key(&node, |(n, _)| *n) {
            self.0[i].1 -= 1;
            if self.0[i].1 == 0 {
                self.0.remove(i);
            }
        }
    }

    /// Whether all counts are zero.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nodes and their counts, by node.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, u32)> {
        self.0.iter().copied()
    }
}
