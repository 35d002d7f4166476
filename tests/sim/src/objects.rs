//! Typed objects out of the store, for those who look at it without asking the API.

use std::sync::Arc;

use coracle_store::{Collection, Entry, Key, ListRange, Store};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, Resource};
use serde::Deserialize;

/// A kind that is kept in a collection of its own.
pub(crate) trait Kept:
    Resource + Metadata<Ty = ObjectMeta> + k8s_openapi::serde::de::DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Kept for K where
    K: Resource + Metadata<Ty = ObjectMeta> + k8s_openapi::serde::de::DeserializeOwned + Send + Sync + 'static
{
}

/// The collection of a kind.
pub(crate) fn collection<K: Kept>() -> Collection {
    Collection::new(K::GROUP, K::URL_PATH_SEGMENT)
}

/// Whether a key is one of a kind.
pub(crate) fn is_of<K: Kept>(key: &Key) -> bool {
    key.collection == collection::<K>()
}

/// An entry in typed form, shared with everybody who reads it so.
pub(crate) fn typed<K: Kept>(entry: &Entry) -> Option<Arc<K>> {
    entry.decoded(|bytes| serde_json::from_slice::<K>(bytes)).ok()
}

/// All objects of a kind.
pub(crate) fn all<K: Kept>(store: &dyn Store) -> Vec<Arc<K>> {
    let listing = store.list(&collection::<K>(), &ListRange::all());
    listing.entries.iter().filter_map(|entry| typed::<K>(entry)).collect()
}

/// One object.
pub(crate) fn one<K: Kept>(store: &dyn Store, namespace: &str, name: &str) -> Option<Arc<K>> {
    store.get(&collection::<K>().key(namespace, name)).and_then(|entry| typed::<K>(&entry))
}

/// The metadata of an entry of any kind.
pub(crate) fn meta_of(entry: &Entry) -> ObjectMeta {
    #[derive(Deserialize)]
    struct Partial {
        metadata: ObjectMeta,
    }
    serde_json::from_slice(&entry.bytes).map(|object: Partial| object.metadata).unwrap_or_default()
}

/// The uid of an object.
pub(crate) fn uid_of(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// The name of an object.
pub(crate) fn name_of(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// The namespace of an object.
pub(crate) fn namespace_of(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// Whether an object is on its way out.
pub(crate) fn is_ending(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// Whether an object names `uid` as an owner.
pub(crate) fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

/// Whether a condition of the pod is `True`.
pub(crate) fn has_condition(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Whether traffic may be sent to a pod: it is ready and nobody has asked for its end.
pub(crate) fn is_serving(pod: &Pod) -> bool {
    has_condition(pod, "Ready") && !is_ending(&pod.metadata) && !is_ended(pod)
}

/// Whether every container of the pod has ended for good.
pub(crate) fn is_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a pod is a task, which ends by itself.
pub(crate) fn is_task(pod: &Pod) -> bool {
    label(&pod.metadata, crate::apps::TASK).is_some()
}

/// The node a pod is bound to.
pub(crate) fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

/// The value of a label.
pub(crate) fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}
