//! The table of controllers and what a row is made of. A row says what a controller watches and how a change becomes the
//! keys to look at again; it never says what to do about the change.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use rand::RngCore;

use crate::cache::{Cache, Identity};
use crate::config::Config;
use crate::object::{Kind, Object, Typed};
use crate::plan::{Failure, Plan};

/// What one run of a controller is about: mostly an object of its primary kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The namespace; empty for the cluster's.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

/// A change of one object as the cache saw it: created without `old`, deleted without `new`.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The state before.
    pub old: Option<&'a Object>,
    /// The state after.
    pub new: Option<&'a Object>,
}

/// The same for an object of any kind.
#[derive(Clone, Copy, Debug)]
pub struct IdentityChange<'a> {
    /// The state before.
    pub old: Option<&'a Identity>,
    /// The state after.
    pub new: Option<&'a Identity>,
}

/// What one run of a controller is given.
pub struct Context<'a> {
    /// What is observed.
    pub cache: &'a dyn Cache,
    /// The time of this run.
    pub now: Timestamp,
    /// Where chance comes from: name suffixes.
    pub rng: &'a mut dyn RngCore,
    /// The operator's settings.
    pub config: &'a Config,
    /// The first write of the last run for this key that was refused, if one was.
    pub failure: Option<&'a Failure>,
}

/// What makes a controller look at a key.
#[derive(Clone, Copy)]
pub enum Watch {
    /// Changes of one kind, and the keys that each touches.
    Objects(Kind, fn(Change<'_>, &dyn Cache) -> Vec<Key>),
    /// Changes of those objects of a kind that have this name; others of the kind need not be decoded for it.
    Named(Kind, &'static str, fn(Change<'_>, &dyn Cache) -> Vec<Key>),
    /// Of every kind: objects that vanish, and those with owners, finalizers or a deletion as they come and when any of
    /// these changes.
    Everything(fn(IdentityChange<'_>, &dyn Cache) -> Vec<Key>),
}

/// A row of the table.
#[derive(Clone, Copy)]
pub struct Controller {
    /// Its name in logs, metrics and Events.
    pub name: &'static str,
    /// What it watches.
    pub watches: &'static [Watch],
    /// What it does.
    pub reconcile: fn(&mut Context<'_>, &Key) -> Plan,
    /// Keys to look at once at the start, besides those that the objects found then bring about.
    pub initial_keys: fn() -> Vec<Key>,
}

/// Every controller.
pub const CONTROLLERS: &[Controller] = &[
    crate::replica_set::CONTROLLER,
    crate::replication_controller::CONTROLLER,
    crate::deployment::CONTROLLER,
    crate::namespace::CONTROLLER,
    crate::garbage::CONTROLLER,
    crate::endpoints::CONTROLLER,
    crate::endpoint_slice::CONTROLLER,
    crate::endpoint_mirror::CONTROLLER,
    crate::service_account::CONTROLLER,
    crate::root_ca::CONTROLLER,
    crate::node_lifecycle::CONTROLLER,
    crate::taint_eviction::CONTROLLER,
    crate::pod_gc::CONTROLLER,
    crate::node_ipam::CONTROLLER,
    crate::event_ttl::CONTROLLER,
    crate::disruption::CONTROLLER,
    crate::resource_quota::CONTROLLER,
    crate::ip_addresses::CONTROLLER,
];

impl Key {
    /// A key from its parts; an empty namespace for an object of the cluster.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub fn of(object: &Object) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }

    /// The key of a typed object.
    pub fn of_typed<K: Typed>(object: &K) -> Self {
        let meta = object.metadata();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_ref() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl<'a> Change<'a> {
    /// The newest state there is.
    pub fn latest(&self) -> Option<&'a Object> {
        self.new.or(self.old)
    }

    /// Both states, the older first.
    pub fn states(&self) -> impl Iterator<Item = &'a Object> {
        self.old.into_iter().chain(self.new)
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The mapping of a controller's primary kind: the object's own key.
pub(crate) fn itself(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    change.latest().map(Key::of).into_iter().collect()
}

/// No key at the start but those of the objects found.
pub(crate) fn no_keys() -> Vec<Key> {
    Vec::new()
}
