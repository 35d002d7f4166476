//! What controllers read: the port behind which somebody keeps objects and indexes up to date. It answers from memory, at
//! once. It never writes.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::object::{Kind, Object, Resource, Typed};
use crate::table::Key;

/// The objects of the cluster as far as the reader has seen them. A controller that wrote something is not run again for
/// the same key before that write is visible here.
pub trait Cache {
    /// One object; `namespace` is empty for the cluster's.
    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Object>;
    /// All objects of a namespace, or of all with `None`, in the order of their keys. Of Events, names and times only.
    fn list(&self, kind: Kind, namespace: Option<&str>) -> Vec<Object>;
    /// Whether any object of a kind passes the test; it need not look at all of them to say yes.
    fn any(&self, kind: Kind, test: &dyn Fn(&Object) -> bool) -> bool;
    /// The objects of a kind that name `uid` in an owner reference, controller or not.
    fn owned_by(&self, kind: Kind, uid: &str) -> Vec<Object>;
    /// The objects of a namespace whose labels match.
    fn selected(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object>;
    /// Those of them that no object manages.
    fn unmanaged(&self, kind: Kind, namespace: &str, selector: &Selector) -> Vec<Object>;
    /// The pods bound to a node.
    fn pods_on(&self, node: &str) -> Vec<Arc<Pod>>;
    /// The pods that have ended, if they are more than so many.
    fn ended_pods(&self, more_than: usize) -> Option<Vec<Arc<Pod>>>;
    /// How long ago this cache last saw a Lease change, or a Node appear, vanish or report another heartbeat; since its own
    /// start where it never did. By a clock that is never set, so that a jump of the time of day ages nothing.
    fn unchanged_for(&self, kind: Kind, key: &Key) -> Duration;
    /// Looks an owner up where writes land first, of any kind the server knows, so that "absent" is certain.
    fn look_up(&self, namespace: &str, owner: &OwnerReference) -> Lookup;
    /// The object with this uid, if it has owners, or finalizers that the garbage collector serves.
    fn identity(&self, uid: &str) -> Option<Arc<Identity>>;
    /// The objects of all kinds that name `uid` in an owner reference.
    fn dependents(&self, uid: &str) -> Vec<Arc<Identity>>;
    /// Whether all that was written up to a version can be seen in every kind, and not only where it was read from.
    fn reached(&self, resource_version: &str) -> bool;
    /// At most `limit` objects of all kinds in a namespace, read where writes land first.
    fn contents(&self, namespace: &str, limit: usize) -> Vec<Arc<Identity>>;
}

/// What is known of an object whatever its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Its resource.
    pub resource: Arc<Resource>,
    /// Its namespace; empty for the cluster's.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The version that was seen.
    pub resource_version: String,
    /// When it was asked to go.
    pub deletion_timestamp: Option<Timestamp>,
    /// How long it may take to go.
    pub deletion_grace_period_seconds: Option<i64>,
    /// What holds it back from going.
    pub finalizers: Vec<String>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
}

/// The answer to "does this owner exist".
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// It does, with the uid that was asked for.
    Found(Arc<Identity>),
    /// It does not, or another incarnation does.
    Absent,
    /// Its kind is not served here, so nothing can be said of it.
    UnknownKind,
    /// A namespaced kind was asked for by an owner reference of an object of the cluster.
    NamespaceMismatch,
}

impl dyn Cache + '_ {
    /// One object in typed form.
    pub fn one<K: Typed>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        K::from_object(self.get(K::ROW, namespace, name)?)
    }

    /// All objects of a namespace, or of all with `None`, in typed form.
    pub fn all<K: Typed>(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        typed(self.list(K::ROW, namespace))
    }

    /// The objects that name `uid` as an owner, in typed form.
    pub fn owned<K: Typed>(&self, uid: &str) -> Vec<Arc<K>> {
        typed(self.owned_by(K::ROW, uid))
    }

    /// The objects whose labels match, in typed form.
    pub fn matching<K: Typed>(&self, namespace: &str, selector: &Selector) -> Vec<Arc<K>> {
        typed(self.selected(K::ROW, namespace, selector))
    }

    /// The objects whose labels match and that no object manages, in typed form.
    pub fn orphans<K: Typed>(&self, namespace: &str, selector: &Selector) -> Vec<Arc<K>> {
        typed(self.unmanaged(K::ROW, namespace, selector))
    }
}

fn typed<K: Typed>(objects: Vec<Object>) -> Vec<Arc<K>> {
    objects.into_iter().filter_map(K::from_object).collect()
}
