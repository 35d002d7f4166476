//! Reading and building object metadata: owners, names, labels. No decision of any controller is in here.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use rand::{Rng, RngCore};
use serde_json::{Value, json};

use crate::object::{Object, Typed};
use crate::plan::Action;

/// The letters of generated names: no vowels, so that no words come about (k8s.io/apimachinery/pkg/util/rand).
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters in a generated suffix.
const SUFFIX_LENGTH: usize = 5;
/// The longest base that keeps a generated name within a DNS label (k8s.io/apiserver/pkg/storage/names).
const LONGEST_BASE: usize = 63 - SUFFIX_LENGTH;

/// Short ways to read metadata that the API server always fills in.
pub(crate) trait MetaExt {
    /// The metadata itself.
    fn object_meta(&self) -> &ObjectMeta;

    /// The namespace; empty for the cluster's objects.
    fn namespace(&self) -> &str {
        self.object_meta().namespace.as_deref().unwrap_or_default()
    }
    /// The name.
    fn name(&self) -> &str {
        self.object_meta().name.as_deref().unwrap_or_default()
    }
    /// The uid.
    fn uid(&self) -> &str {
        self.object_meta().uid.as_deref().unwrap_or_default()
    }
    /// Whether the object was asked to go.
    fn is_deleting(&self) -> bool {
        self.object_meta().deletion_timestamp.is_some()
    }
    /// The labels, empty where there are none.
    fn label_map(&self) -> &BTreeMap<String, String> {
        static EMPTY: BTreeMap<String, String> = BTreeMap::new();
        self.object_meta().labels.as_ref().unwrap_or(&EMPTY)
    }
    /// One annotation.
    fn annotation(&self, key: &str) -> Option<&str> {
        self.object_meta().annotations.as_ref()?.get(key).map(String::as_str)
    }
    /// The owner that manages the object.
    fn controller(&self) -> Option<&OwnerReference> {
        self.object_meta().owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
    }
    /// Whether `uid` manages the object.
    fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|owner| owner.uid == uid)
    }
    /// When the object was created, in seconds since 1970; far ahead for one that has not been.
    fn created_second(&self) -> i64 {
        self.object_meta().creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second())
    }
}

impl MetaExt for ObjectMeta {
    fn object_meta(&self) -> &ObjectMeta {
        self
    }
}

impl<K: Typed> MetaExt for K {
    fn object_meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// The reference that makes `owner` the manager of another object.
pub(crate) fn controller_reference<K: Typed>(owner: &K) -> OwnerReference {
    let resource = K::ROW.resource();
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether `reference` points to an object of kind `K`, whatever the version.
pub(crate) fn refers_to_kind<K: Typed>(reference: &OwnerReference) -> bool {
    let resource = K::ROW.resource();
    let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
    reference.kind == resource.kind && group == resource.group
}

/// Takes an object without a manager into the care of `owner`.
pub(crate) fn adopt<C: Typed, O: Typed>(child: &Arc<C>, owner: &O) -> Action {
    let mut owners = child.metadata().owner_references.clone().unwrap_or_default();
    owners.push(controller_reference(owner));
    patch_owners(child.clone().into_object(), &owners)
}

/// Lets go of an object that the owner's selector no longer matches.
pub(crate) fn release<C: Typed>(child: &Arc<C>, owner_uid: &str) -> Action {
    let mut owners = child.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|owner| owner.uid != owner_uid);
    patch_owners(child.clone().into_object(), &owners)
}

fn patch_owners(child: Object, owners: &[OwnerReference]) -> Action {
    let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
    let uid = child.meta().uid.clone();
    Action::patch(&child, json!({ "metadata": { "uid": uid, "ownerReferences": owners } }))
}

/// A name that starts with `base`, as `generateName` would make it.
///
/// The controllers choose names themselves, so that a plan says all that will be written and its Events can name it.
pub(crate) fn generated_name(base: &str, rng: &mut dyn RngCore) -> String {
    let mut name: String = base.chars().take(LONGEST_BASE).collect();
    for _ in 0..SUFFIX_LENGTH {
        name.push(char::from(NAME_LETTERS[rng.random_range(0..NAME_LETTERS.len())]));
    }
    name
}

/// Writes decimal digits in the letters of generated names, so that a hash reads like one (rand.SafeEncodeString).
pub(crate) fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| char::from(NAME_LETTERS[usize::from(byte) % NAME_LETTERS.len()])).collect()
}

/// A 32-bit FNV-1a hash of the JSON form of `value`, with Kubernetes' collision counter mixed in. The types serialise
/// their fields in a fixed order and their maps sorted, so equal values always give the same hash.
pub(crate) fn stable_hash<T: serde::Serialize>(value: &T, collision_count: Option<i32>) -> u32 {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let json = serde_json::to_vec(value).expect("k8s-openapi types always have a JSON form");
    let salt = collision_count.map(|count| count.to_string()).unwrap_or_default();
    json.iter().chain(salt.as_bytes()).fold(OFFSET, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let mut rng = StdRng::seed_from_u64(1);
        let short = generated_name("web-", &mut rng);
        assert_eq!(short.len(), "web-".len() + SUFFIX_LENGTH);
        assert!(short.starts_with("web-"));
        assert_eq!(generated_name(&"x".repeat(200), &mut rng).len(), 63);
        assert_ne!(short, generated_name("web-", &mut rng));
    }

    #[test]
    fn hashes_are_stable_and_salted() {
        assert_eq!(stable_hash(&json!({"a": 1}), None), stable_hash(&json!({"a": 1}), None));
        assert_ne!(stable_hash(&json!({"a": 1}), None), stable_hash(&json!({"a": 1}), Some(1)));
        assert_eq!(safe_encode("0123456789").len(), 10);
        assert!(safe_encode("0123456789").bytes().all(|byte| NAME_LETTERS.contains(&byte)));
    }
}
