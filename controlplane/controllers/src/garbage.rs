//! The garbage collector: objects whose owners are gone go too, in the background, in the foreground, or are let go
//! (pkg/controller/garbagecollector). A key's name is the uid of the object to look at.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::cache::{Cache, Identity, Lookup};
use crate::plan::{Action, Plan, Preconditions, Propagation, Target};
use crate::table::{Context, Controller, IdentityChange, Key, Watch, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "garbage-collector-controller",
    watches: &[Watch::Everything(keys_of)],
    reconcile,
    initial_keys: no_keys,
};

/// Holds an object until its blocking dependents are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Holds an object until its dependents no longer name it.
const ORPHAN: &str = "orphan";
/// Dependents let go in one run.
const BATCH: usize = 500;

/// The object itself; its dependents when it goes; its owners when it goes, as they may wait for it.
fn keys_of(change: IdentityChange<'_>, cache: &dyn Cache) -> Vec<Key> {
    let Some(latest) = change.new.or(change.old) else { return Vec::new() };
    let mut keys = Vec::new();
    let goes = change.new.is_none_or(|new| new.deletion_timestamp.is_some());
    if change.new.is_some() {
        keys.push(key_of(latest));
    }
    if goes {
        keys.extend(cache.dependents(&latest.uid).iter().map(|dependent| key_of(dependent)));
    }
    // An owner may wait for this object: when it goes, and when it stops naming the owner. It waits for none that comes.
    let owners = change.old.into_iter().flat_map(|identity| &identity.owners);
    keys.extend(owners.map(|owner| Key::new("", &owner.uid)));
    keys.sort();
    keys.dedup();
    keys
}

fn key_of(identity: &Identity) -> Key {
    Key::new("", &identity.uid)
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(item) = context.cache.identity(&key.name) else { return plan };
    if item.deletion_timestamp.is_some() {
        if has(&item, ORPHAN) {
            let_dependents_go(&item, context.cache, &mut plan);
        } else if has(&item, FOREGROUND) {
            wait_for_dependents(&item, context.cache, &mut plan);
        }
    } else if !item.owners.is_empty() {
        judge(&item, context.cache, &mut plan);
    }
    plan
}

fn has(identity: &Identity, finalizer: &str) -> bool {
    identity.finalizers.iter().any(|one| one == finalizer)
}

fn let_dependents_go(owner: &Arc<Identity>, cache: &dyn Cache, plan: &mut Plan) {
    let dependents = cache.dependents(&owner.uid);
    if dependents.is_empty() {
        plan.push(without_finalizer(owner, ORPHAN));
    }
    for dependent in dependents.iter().take(BATCH) {
        plan.push(without_owners(dependent, |reference| reference.uid == owner.uid));
    }
}

fn wait_for_dependents(owner: &Arc<Identity>, cache: &dyn Cache, plan: &mut Plan) {
    let blocks = |dependent: &Arc<Identity>| {
        dependent
            .owners
            .iter()
            .any(|reference| reference.uid == owner.uid && reference.block_owner_deletion == Some(true))
    };
    if !cache.dependents(&owner.uid).iter().any(blocks) {
        plan.push(without_finalizer(owner, FOREGROUND));
    }
}

/// What an owner reference points to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// An object that stays, or of which nothing can be said.
    Solid,
    /// Nothing.
    Absent,
    /// An object that waits for its dependents to go first.
    Waiting,
}

fn classify(item: &Identity, reference: &OwnerReference, cache: &dyn Cache) -> Owner {
    match cache.look_up(&item.namespace, reference) {
        Lookup::Found(owner) if owner.deletion_timestamp.is_some() && has(&owner, FOREGROUND) => Owner::Waiting,
        Lookup::Found(_) | Lookup::UnknownKind | Lookup::NamespaceMismatch => Owner::Solid,
        Lookup::Absent => Owner::Absent,
    }
}

fn judge(item: &Arc<Identity>, cache: &dyn Cache, plan: &mut Plan) {
    let owners: Vec<(Owner, &OwnerReference)> =
        item.owners.iter().map(|reference| (classify(item, reference, cache), reference)).collect();
    let any = |kind: Owner| owners.iter().any(|(owner, _)| *owner == kind);
    if any(Owner::Solid) {
        if any(Owner::Absent) || any(Owner::Waiting) {
            let gone: Vec<&str> = owners
                .iter()
                .filter(|(owner, _)| *owner != Owner::Solid)
                .map(|(_, reference)| reference.uid.as_str())
                .collect();
            plan.push(without_owners(item, |reference| gone.contains(&reference.uid.as_str())));
        }
        return;
    }
    let dependents = cache.dependents(&item.uid);
    let propagation = if any(Owner::Waiting) && !dependents.is_empty() {
        // The owner waits for this object, and this one waits for its own dependents. Where those wait too, the ring
        // would never end, so this object stops holding up its owners.
        if dependents.iter().any(|dependent| dependent.deletion_timestamp.is_some() && has(dependent, FOREGROUND))
            && blocks_any(item)
        {
            plan.push(unblock(item));
            return;
        }
        Propagation::Foreground
    } else if has(item, ORPHAN) {
        Propagation::Orphan
    } else if has(item, FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    plan.push(Action::Delete {
        target: Target::from(item.as_ref()),
        preconditions: Preconditions {
            uid: Some(item.uid.clone()),
            resource_version: Some(item.resource_version.clone()),
        },
        propagation: Some(propagation),
        grace_period_seconds: None,
    });
}

fn blocks_any(item: &Identity) -> bool {
    item.owners.iter().any(|reference| reference.block_owner_deletion == Some(true))
}

fn unblock(item: &Identity) -> Action {
    let owners: Vec<OwnerReference> = item
        .owners
        .iter()
        .map(|reference| OwnerReference { block_owner_deletion: Some(false), ..reference.clone() })
        .collect();
    patch_metadata(item, "ownerReferences", json!(owners))
}

fn without_owners(item: &Identity, gone: impl Fn(&OwnerReference) -> bool) -> Action {
    let owners: Vec<&OwnerReference> = item.owners.iter().filter(|reference| !gone(reference)).collect();
    patch_metadata(item, "ownerReferences", if owners.is_empty() { Value::Null } else { json!(owners) })
}

fn without_finalizer(item: &Identity, finalizer: &str) -> Action {
    let finalizers: Vec<&String> = item.finalizers.iter().filter(|one| *one != finalizer).collect();
    patch_metadata(item, "finalizers", if finalizers.is_empty() { Value::Null } else { json!(finalizers) })
}

fn patch_metadata(item: &Identity, field: &str, value: Value) -> Action {
    Action::patch_identity(item, json!({ "metadata": { "uid": item.uid, field: value } }))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::model::{Model, meta, time};
    use crate::object::{Kind, Object};

    struct Thing {
        name: &'static str,
        owners: &'static [&'static str],
        finalizers: &'static [&'static str],
        deleting: bool,
        blocks: bool,
    }

    fn thing(name: &'static str) -> Thing {
        Thing { name, owners: &[], finalizers: &[], deleting: false, blocks: true }
    }

    impl From<Thing> for Object {
        fn from(thing: Thing) -> Object {
            let reference = |owner: &&str| OwnerReference {
                api_version: "v1".into(),
                kind: "ConfigMap".into(),
                name: (*owner).into(),
                uid: format!("uid-{owner}"),
                controller: None,
                block_owner_deletion: Some(thing.blocks),
            };
            let owners: Vec<OwnerReference> = thing.owners.iter().map(reference).collect();
            ConfigMap {
                metadata: ObjectMeta {
                    owner_references: (!owners.is_empty()).then_some(owners),
                    finalizers: Some(thing.finalizers.iter().map(|text| (*text).to_owned()).collect()),
                    deletion_timestamp: thing.deleting.then(|| time("2026-01-01T00:59:00Z")),
                    ..meta("ns", thing.name)
                },
                ..ConfigMap::default()
            }
            .into()
        }
    }

    /// The outcome of looking at the object `x`, in a word.
    fn check(things: Vec<Thing>, expect: &str) {
        let mut model = Model::new();
        for thing in things {
            model.put(thing);
        }
        let plan = model.plan(&CONTROLLER, "", "uid-x");
        let seen: Vec<String> = plan
            .steps
            .iter()
            .map(|step| match &step.action {
                Action::Delete { propagation, target, .. } => {
                    format!("delete {} {}", target.name, propagation.unwrap().as_str())
                }
                Action::Patch { target, patch, .. } => {
                    let metadata = &patch["metadata"];
                    let owners = &metadata["ownerReferences"];
                    match metadata.get("finalizers") {
                        Some(_) => format!("unfinalize {}", target.name),
                        None if owners.is_null() => format!("disown {}", target.name),
                        None if owners[0]["blockOwnerDeletion"] == false => format!("unblock {}", target.name),
                        None => format!("keep {} of {}", owners[0]["name"].as_str().unwrap(), target.name),
                    }
                }
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(seen.join(", "), expect);
    }

    #[test]
    fn owners_decide() {
        let x = |owners| Thing { owners, ..thing("x") };
        check(vec![thing("x")], "");
        check(vec![x(&["a"]), thing("a")], "");
        check(vec![x(&["gone"])], "delete x Background");
        check(vec![x(&["a", "gone"]), thing("a")], "keep a of x");
        let waiting = || Thing { deleting: true, finalizers: &[FOREGROUND], ..thing("a") };
        check(vec![x(&["a"]), waiting()], "delete x Background");
        check(vec![x(&["a"]), waiting(), Thing { owners: &["x"], ..thing("child") }], "delete x Foreground");
        check(vec![x(&["a", "b"]), waiting(), thing("b")], "keep b of x");
        // A deleted owner that does not wait for its dependents is still there.
        check(vec![x(&["a"]), Thing { deleting: true, finalizers: &["other"], ..thing("a") }], "");
        check(vec![Thing { owners: &["gone"], finalizers: &[ORPHAN], ..thing("x") }], "delete x Orphan");
        check(vec![Thing { owners: &["gone"], deleting: true, finalizers: &["other"], ..thing("x") }], "");
    }

    #[test]
    fn finalizers_are_served() {
        let x = |finalizer| Thing { deleting: true, finalizers: finalizer, ..thing("x") };
        let child = |blocks| Thing { owners: &["x"], blocks, ..thing("child") };
        check(vec![x(&[ORPHAN])], "unfinalize x");
        check(vec![x(&[ORPHAN]), child(true)], "disown child");
        check(vec![x(&[FOREGROUND])], "unfinalize x");
        check(vec![x(&[FOREGROUND]), child(true)], "");
        check(vec![x(&[FOREGROUND]), child(false)], "unfinalize x");
    }

    #[test]
    fn a_ring_of_waiting_objects_is_broken() {
        let things = vec![
            Thing { owners: &["a"], ..thing("x") },
            Thing { owners: &["x"], deleting: true, finalizers: &[FOREGROUND], ..thing("a") },
        ];
        check(things, "unblock x");
    }

    #[test]
    fn an_owner_of_an_unknown_kind_keeps_its_dependents() {
        let mut model = Model::new();
        let mut object: Object = Thing { owners: &["a"], ..thing("x") }.into();
        object.meta_mut().owner_references.as_mut().unwrap()[0].kind = "Widget".into();
        model.put(object);
        assert_eq!(model.plan(&CONTROLLER, "", "uid-x"), Plan::none());
    }

    #[test]
    fn a_foreground_deletion_runs_from_the_leaves() {
        let mut model = Model::new()
            .with(Thing { deleting: true, finalizers: &[FOREGROUND], ..thing("root") })
            .with(Thing { owners: &["root"], ..thing("mid") })
            .with(Thing { owners: &["mid"], ..thing("leaf") });
        let mut order = Vec::new();
        for _ in 0..10 {
            for name in ["root", "mid", "leaf"] {
                let before = model.objects.len();
                model.run(&CONTROLLER, "", &format!("uid-{name}"));
                if model.objects.len() < before {
                    order.push(name);
                }
            }
        }
        assert_eq!(order, ["leaf", "mid", "root"]);
        assert!(model.objects.keys().all(|key| key.0 != Kind::ConfigMap));
    }
}
