//! Decides a batch of transactions before the disk sees it: which hold, and what they change.
//! It compares against the mirror and against what earlier transactions of the same batch will have changed.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::mirror::{Change, Mirror};
use crate::store::{MAX_TRANSACTION_OPS, MAX_VALUE_BYTES};
use crate::{Durability, Entry, Key, Op, Revision, StoreError, Value, WatchEvent};

/// What one caller asks for.
pub(super) struct Transaction {
    pub(super) ops: Vec<Op>,
    pub(super) durability: Durability,
}

impl Transaction {
    /// Creates and deletes must survive: only an update has an older state to fall back to.
    pub(super) fn is_durable(&self) -> bool {
        self.durability != Durability::Volatile
            || self.ops.iter().any(|op| matches!(op, Op::Create { .. } | Op::Delete { .. }))
    }

    /// Whether it makes room, if not at once: it makes nothing, and changes only what is being deleted.
    pub(super) fn frees(&self) -> bool {
        self.ops.iter().all(|op| match op {
            Op::Create { .. } => false,
            Op::Update { .. } => self.durability == Durability::Freeing,
            Op::Delete { .. } | Op::Check { .. } => true,
        })
    }

    /// Its bytes in memory, to bound a queue.
    pub(super) fn size(&self) -> usize {
        self.ops
            .iter()
            .map(|op| match op {
                Op::Create { value, .. } | Op::Update { value, .. } => value.max_len(),
                Op::Delete { .. } | Op::Check { .. } => 0,
            })
            .sum()
    }

    fn check_size(&self) -> Result<(), StoreError> {
        if self.ops.len() > MAX_TRANSACTION_OPS {
            return Err(StoreError::TooLarge { size: self.ops.len(), limit: MAX_TRANSACTION_OPS });
        }
        for op in &self.ops {
            if let Op::Create { value, .. } | Op::Update { value, .. } = op
                && value.max_len() > MAX_VALUE_BYTES
            {
                return Err(StoreError::TooLarge { size: value.max_len(), limit: MAX_VALUE_BYTES });
            }
        }
        Ok(())
    }
}

pub(super) type Outcome = Result<Vec<Arc<Entry>>, StoreError>;

/// A decided batch.
pub(super) struct Plan {
    /// One per transaction, in order.
    pub(super) outcomes: Vec<Outcome>,
    /// In the order of revisions.
    pub(super) changes: Vec<Change>,
    /// The first revision left over.
    pub(super) next: Revision,
}

/// Decides `transactions`; those that `refuse` names an error for fail with it.
pub(super) fn plan<'a>(
    mirror: &Mirror,
    next: Revision,
    transactions: impl Iterator<Item = &'a Transaction>,
    refuse: impl Fn(&Transaction) -> Option<StoreError>,
) -> Plan {
    let mut planner = Planner { mirror, pending: HashMap::new(), changes: Vec::new(), next };
    let outcomes = transactions
        .map(|transaction| match refuse(transaction) {
            Some(error) => Err(error),
            None => planner.transaction(transaction),
        })
        .collect();
    Plan { outcomes, changes: planner.changes, next: planner.next }
}

/// What an operation comes to.
enum Step {
    Change(WatchEvent),
    Unchanged(Arc<Entry>),
}

struct Planner<'a> {
    mirror: &'a Mirror,
    /// Keys changed by this batch; `None` is gone.
    pending: HashMap<Key, Option<Arc<Entry>>>,
    changes: Vec<Change>,
    next: Revision,
}

impl Planner<'_> {
    fn transaction(&mut self, transaction: &Transaction) -> Outcome {
        transaction.check_size()?;
        let begin = (self.changes.len(), self.next);
        let on_disk = transaction.is_durable();
        let mut entries = Vec::with_capacity(transaction.ops.len());
        for op in &transaction.ops {
            match self.op(op) {
                Ok(Step::Change(event)) => {
                    entries.push(Arc::clone(event.entry()));
                    self.changes.push(Change { event, on_disk });
                }
                Ok(Step::Unchanged(entry)) => entries.push(entry),
                Err(error) => {
                    self.undo(begin);
                    return Err(error);
                }
            }
        }
        Ok(entries)
    }

    fn undo(&mut self, (changes, next): (usize, Revision)) {
        for change in self.changes.drain(changes..).rev() {
            let key = change.event.entry().key.clone();
            self.pending.insert(key, change.event.previous().cloned());
        }
        self.next = next;
    }

    fn op(&mut self, op: &Op) -> Result<Step, StoreError> {
        let current = match self.pending.get(op.key()) {
            Some(pending) => pending.clone(),
            None => self.mirror.get(op.key()),
        };
        let event = match op {
            Op::Create { key, value } => self.create(key, value, current)?,
            Op::Update { key, expected, value } => {
                let previous = matching(key, *expected, current)?;
                let entry = Entry::render(previous.key.clone(), previous.created, self.next, value);
                WatchEvent::Put { entry, previous: Some(previous) }
            }
            Op::Delete { key, expected } => {
                let previous = matching(key, *expected, current)?;
                WatchEvent::Deleted { entry: previous.buried(self.next), previous }
            }
            Op::Check { key, expected } => return matching(key, *expected, current).map(Step::Unchanged),
        };
        self.next = self.next.next();
        let state = match &event {
            WatchEvent::Put { entry, .. } => Some(Arc::clone(entry)),
            WatchEvent::Deleted { .. } => None,
        };
        self.pending.insert(event.entry().key.clone(), state);
        Ok(Step::Change(event))
    }

    fn create(&self, key: &Key, value: &Value, current: Option<Arc<Entry>>) -> Result<WatchEvent, StoreError> {
        if let Some(current) = current {
            return Err(StoreError::AlreadyExists { current });
        }
        // All keys of a collection share one text.
        let collection = self.mirror.shelf(&key.collection).collection().clone();
        let key = Key { collection, name: Arc::clone(&key.name) };
        let entry = Entry::render(key, self.next, self.next, value);
        Ok(WatchEvent::Put { entry, previous: None })
    }
}

fn matching(key: &Key, expected: Revision, current: Option<Arc<Entry>>) -> Result<Arc<Entry>, StoreError> {
    match current {
        None => Err(StoreError::NotFound { key: key.clone() }),
        Some(current) if current.revision != expected => Err(StoreError::Conflict { current }),
        Some(current) => Ok(current),
    }
}
