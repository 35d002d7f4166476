//! The affinity terms of pods that have a node, each distinct term once, with how many pods on each node carry it.
//! A new pod is checked against distinct terms, not against pods.

use std::sync::Arc;

use hashbrown::HashMap;

use super::counts::NodeCounts;
use crate::affinity::{RoleTerm, TermRole};
use crate::ids::NodeId;

/// A term and who carries it.
#[derive(Debug)]
pub(crate) struct CarriedTerm {
    /// The term.
    pub(crate) term: Arc<RoleTerm>,
    /// How many pods of each node carry it.
    pub(crate) carriers: NodeCounts,
}

#[derive(Debug, Default)]
pub(super) struct Terms {
    required_apart: Table,
    others: Table,
}

#[derive(Debug, Default)]
struct Table {
    by_term: HashMap<Arc<RoleTerm>, usize>,
    all: Vec<CarriedTerm>,
}

impl Terms {
    /// Counts one more carrier and returns the shared copy of the term.
    pub(super) fn join(&mut self, term: &Arc<RoleTerm>, node: NodeId) -> Arc<RoleTerm> {
        let table = self.table(term);
        let at = match table.by_term.get(term) {
            Some(at) => *at,
            None => {
                table.all.push(CarriedTerm { term: term.clone(), carriers: NodeCounts::default() });
                table.by_term.insert(term.clone(), table.all.len() - 1);
                table.all.len() - 1
            }
        };
        table.all[at].carriers.increment(node);
        table.all[at].term.clone()
    }

    /// Counts one carrier less.
    pub(super) fn leave(&mut self, term: &Arc<RoleTerm>, node: NodeId) {
        let table = self.table(term);
        let Some(at) = table.by_term.get(term).copied() else { return };
        table.all[at].carriers.decrement(node);
        if table.all[at].carriers.is_empty() {
            table.by_term.remove(term);
            table.all.swap_remove(at);
            if let Some(moved) = table.all.get(at) {
                table.by_term.insert(moved.term.clone(), at);
            }
        }
    }

    fn table(&mut self, term: &RoleTerm) -> &mut Table {
        match term.role {
            TermRole::AntiAffinity => &mut self.required_apart,
            _ => &mut self.others,
        }
    }

    /// Required anti-affinity terms.
    pub(super) fn required_apart(&self) -> &[CarriedTerm] {
        &self.required_apart.all
    }

    /// Preferences and required affinity: what scoring looks at.
    pub(super) fn attractions(&self) -> &[CarriedTerm] {
        &self.others.all
    }
}
