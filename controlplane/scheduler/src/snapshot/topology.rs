//! Topology domains: for a label key, which nodes share a value. The keys in use are kept as columns of small numbers, so
//! that counting per domain is array work.

use std::borrow::Cow;

use hashbrown::HashMap;

use super::Node;
use crate::ids::NodeId;
use crate::spread::{HOSTNAME, REGION, ZONE};

/// How many keys are kept as columns. Others still work; they are computed for each pod that uses them.
const MAX_COLUMNS: usize = 32;
const NONE: u32 = u32::MAX;

/// One label key's domains.
#[derive(Debug, Clone, Default)]
pub struct Column {
    key: Box<str>,
    of_node: Vec<u32>,
    domains: HashMap<Box<str>, u32>,
    /// By domain: its value, and how many nodes share it.
    members: Vec<(Box<str>, u32)>,
    free: Vec<u32>,
}

impl Column {
    /// The domain of a node, as an index below [`Column::domains`]; none if the node lacks the label.
    pub fn of(&self, node: NodeId) -> Option<usize> {
        self.of_node.get(node.index()).copied().filter(|d| *d != NONE).map(|d| d as usize)
    }

    /// One more than the largest domain index.
    pub fn domains(&self) -> usize {
        self.members.len()
    }

    /// The label value that makes a domain.
    #[cfg(test)]
    pub(super) fn value(&self, domain: usize) -> &str {
        &self.members[domain].0
    }

    fn set(&mut self, node: NodeId, value: Option<&str>) {
        if self.of_node.len() <= node.index() {
            self.of_node.resize(node.index() + 1, NONE);
        }
        let before = self.of_node[node.index()];
        let after = value.map_or(NONE, |v| self.domain(v));
        if after != NONE {
            self.members[after as usize].1 += 1;
        }
        self.of_node[node.index()] = after;
        if before != NONE {
            let (value, members) = &mut self.members[before as usize];
            *members -= 1;
            if *members == 0 {
                self.domains.remove(value);
                self.free.push(before);
            }
        }
    }

    fn domain(&mut self, value: &str) -> u32 {
        if let Some(domain) = self.domains.get(value) {
            return *domain;
        }
        let domain = self.free.pop().unwrap_or_else(|| {
            self.members.push(Default::default());
            u32::try_from(self.members.len() - 1).expect("fewer than 2^32 nodes")
        });
        self.members[domain as usize].0 = value.into();
        self.domains.insert(value.into(), domain);
        domain
    }
}

#[derive(Debug)]
pub(super) struct Topology(Vec<Column>);

impl Default for Topology {
    fn default() -> Self {
        Self([HOSTNAME, ZONE, REGION].map(|key| Column { key: key.into(), ..Column::default() }).into())
    }
}

impl Topology {
    /// Keeps a column for `key` from now on.
    pub(super) fn track<'a>(&mut self, key: &str, nodes: impl Iterator<Item = &'a Node>) {
        if self.0.len() < MAX_COLUMNS && !self.0.iter().any(|c| *c.key == *key) {
            self.0.push(compute(key, nodes));
        }
    }

    /// Notes a node's labels; `None` when the node is gone.
    pub(super) fn set(&mut self, node: &Node) {
        for column in &mut self.0 {
            let value = node.exists().then(|| node.info().labels.get(&column.key)).flatten();
            column.set(node.id(), value);
        }
    }

    /// The column of `key`.
    pub(super) fn column<'a, 'b>(&'a self, key: &str, nodes: impl Iterator<Item = &'b Node>) -> Cow<'a, Column> {
        match self.0.iter().find(|c| *c.key == *key) {
            Some(column) => Cow::Borrowed(column),
            None => Cow::Owned(compute(key, nodes)),
        }
    }
}

fn compute<'a>(key: &str, nodes: impl Iterator<Item = &'a Node>) -> Column {
    let mut column = Column { key: key.into(), ..Column::default() };
    for node in nodes {
        column.set(node.id(), node.info().labels.get(key));
    }
    column
}
