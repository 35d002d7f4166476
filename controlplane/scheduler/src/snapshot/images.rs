//! Which nodes hold which image. Sizes are as the first node to report the image gave them.

use hashbrown::HashMap;

use crate::ids::NodeId;
use crate::node::NodeImage;

/// An image somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageState {
    /// Bytes.
    pub(crate) size: i64,
    nodes: Vec<NodeId>,
}

impl ImageState {
    /// Whether the node holds it.
    pub(crate) fn is_on(&self, node: NodeId) -> bool {
        self.nodes.binary_search(&node).is_ok()
    }

    /// How many nodes hold it.
    pub(crate) fn spread(&self) -> usize {
        self.nodes.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Images(HashMap<Box<str>, ImageState>);

impl Images {
    pub(super) fn get(&self, name: &str) -> Option<&ImageState> {
        self.0.get(name)
    }

    pub(super) fn add(&mut self, node: NodeId, images: &[NodeImage]) {
        for image in images {
            for name in &image.names {
                let state =
                    self.0.entry_ref(&**name).or_insert_with(|| ImageState { size: image.size, nodes: Vec::new() });
                if let Err(at) = state.nodes.binary_search(&node) {
                    state.nodes.insert(at, node);
                }
            }
        }
    }

    pub(super) fn remove(&mut self, node: NodeId, images: &[NodeImage]) {
        for name in images.iter().flat_map(|image| &image.names) {
            let Some(state) = self.0.get_mut(name) else { continue };
            if let Ok(at) = state.nodes.binary_search(&node) {
                state.nodes.remove(at);
            }
            if state.nodes.is_empty() {
                self.0.remove(name);
            }
        }
    }
}
