//! Indexes over the store's mirror: who owns what, which labels are where, which pods are on a node, what changed when. They
//! hold names, never objects: an object is read from the mirror when it is asked for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coracle_api::selector::{Requirement, Selector};
use coracle_controllers::{Identity, Kind, Object, Resource};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

/// The names of objects by the labels they carry.
type ByLabel = HashMap<(Arc<str>, Arc<str>), BTreeSet<Name>>;

/// The number of a collection in the catalog.
pub(crate) type RowNumber = usize;
/// `namespace/name`, or `name` for the cluster's objects: what the store calls them.
pub(crate) type Name = Arc<str>;

/// Kinds that are found by label.
const LABELLED: [Kind; 3] = [Kind::Pod, Kind::ReplicaSet, Kind::EndpointSlice];
/// Times of change that are kept before old ones are dropped, and how long they count. A living node's Lease changes far
/// more often; an older time means no more than that the object has been silent, or gone, for long.
const MOST_TIMES: usize = 20_000;
const TIMES_COUNT: Duration = Duration::from_secs(3600);
/// Finalizers that the garbage collector serves.
const COLLECTED: [&str; 2] = ["foregroundDeletion", "orphan"];

/// What ties an object to others: all that the garbage collector asks of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ties<'a> {
    uid: &'a str,
    owners: &'a [OwnerReference],
    finalizers: &'a [String],
    deleted: Option<Timestamp>,
}

impl<'a> From<&'a ObjectMeta> for Ties<'a> {
    fn from(meta: &'a ObjectMeta) -> Self {
        Self {
            uid: meta.uid.as_deref().unwrap_or_default(),
            owners: meta.owner_references.as_deref().unwrap_or_default(),
            finalizers: meta.finalizers.as_deref().unwrap_or_default(),
            deleted: meta.deletion_timestamp.as_ref().map(|time| time.0),
        }
    }
}

impl<'a> From<&'a Identity> for Ties<'a> {
    fn from(identity: &'a Identity) -> Self {
        Self {
            uid: &identity.uid,
            owners: &identity.owners,
            finalizers: &identity.finalizers,
            deleted: identity.deletion_timestamp,
        }
    }
}

impl Ties<'_> {
    /// Whether the garbage collector may have to look at the object.
    fn is_collected(&self) -> bool {
        !self.owners.is_empty() || self.finalizers.iter().any(|finalizer| COLLECTED.contains(&finalizer.as_str()))
    }

    /// Whether it means anything to others that the object comes or changes.
    pub(crate) fn shows(&self) -> bool {
        self.deleted.is_some() || self.is_collected()
    }
}

/// The indexes.
pub(crate) struct Index {
    owned: HashMap<Arc<str>, BTreeSet<(RowNumber, Name)>>,
    identities: HashMap<Arc<str>, (RowNumber, Name)>,
    labels: HashMap<(Kind, Arc<str>), ByLabel>,
    nodes: HashMap<Arc<str>, BTreeSet<Name>>,
    ended: BTreeSet<Name>,
    /// Objects of the labelled kinds that no object manages, by namespace.
    unmanaged: HashMap<(Kind, Arc<str>), BTreeSet<Name>>,
    changed: HashMap<(Kind, Name), Instant>,
    started: Instant,
}

impl Index {
    /// Empty indexes; times of change that are not known count from `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            owned: HashMap::new(),
            identities: HashMap::new(),
            labels: HashMap::new(),
            nodes: HashMap::new(),
            ended: BTreeSet::new(),
            unmanaged: HashMap::new(),
            changed: HashMap::new(),
            started,
        }
    }

    /// Takes in what ties an object to others now instead of before.
    pub(crate) fn apply_ties(&mut self, row: RowNumber, name: &Name, old: Option<Ties<'_>>, new: Option<Ties<'_>>) {
        if let Some(old) = old {
            for owner in old.owners {
                if let Some(set) = self.owned.get_mut(owner.uid.as_str()) {
                    set.remove(&(row, Arc::clone(name)));
                    if set.is_empty() {
                        self.owned.remove(owner.uid.as_str());
                    }
                }
            }
            self.identities.remove(old.uid);
        }
        if let Some(new) = new {
            for owner in new.owners {
                self.owned.entry(owner.uid.as_str().into()).or_default().insert((row, Arc::clone(name)));
            }
            if new.is_collected() {
                self.identities.insert(new.uid.into(), (row, Arc::clone(name)));
            }
        }
    }

    /// Takes in a typed object's labels, its node, and whether it has ended.
    pub(crate) fn apply_object(&mut self, name: &Name, old: Option<&Object>, new: Option<&Object>) {
        let Some(kind) = old.or(new).map(Object::kind) else { return };
        if LABELLED.contains(&kind) {
            if old.map(labels_of) != new.map(labels_of) {
                self.relabel(kind, name, old, new);
            }
            let (was, is) = (old.is_some_and(is_unmanaged), new.is_some_and(is_unmanaged));
            if was != is {
                self.set_unmanaged(kind, name, is);
            }
        }
        match (old.is_some_and(has_ended), new.is_some_and(has_ended)) {
            (false, true) => drop(self.ended.insert(Arc::clone(name))),
            (true, false) => drop(self.ended.remove(name)),
            _ => {}
        }
        let (before, after) = (old.and_then(node_of), new.and_then(node_of));
        if before != after {
            if let Some(before) = before
                && let Some(set) = self.nodes.get_mut(before)
            {
                set.remove(name);
                if set.is_empty() {
                    self.nodes.remove(before);
                }
            }
            if let Some(node) = after {
                self.nodes.entry(node.into()).or_default().insert(Arc::clone(name));
            }
        }
    }

    fn set_unmanaged(&mut self, kind: Kind, name: &Name, unmanaged: bool) {
        let key = (kind, namespace_of(name));
        let set = self.unmanaged.entry(key.clone()).or_default();
        if unmanaged {
            set.insert(Arc::clone(name));
        } else {
            set.remove(name);
        }
        if set.is_empty() {
            self.unmanaged.remove(&key);
        }
    }

    /// Notes when a Lease changed, and when a Node appeared, vanished or gave a sign of life.
    pub(crate) fn touch(&mut self, name: &Name, old: Option<&Object>, new: Option<&Object>, now: Instant) {
        let timed = match (old, new) {
            // Others write to Nodes too: that a label changed does not mean that the node lives.
            (Some(Object::Node(old)), Some(Object::Node(new))) => {
                (heartbeat(old) != heartbeat(new)).then_some(Kind::Node)
            }
            _ => old.or(new).map(Object::kind).filter(|kind| matches!(kind, Kind::Node | Kind::Lease)),
        };
        if let Some(kind) = timed {
            if self.changed.len() >= MOST_TIMES {
                self.changed.retain(|_, at| now.duration_since(*at) < TIMES_COUNT);
            }
            self.changed.insert((kind, Arc::clone(name)), now);
        }
    }

    fn relabel(&mut self, kind: Kind, name: &Name, old: Option<&Object>, new: Option<&Object>) {
        let namespace = namespace_of(name);
        let table = self.labels.entry((kind, Arc::clone(&namespace))).or_default();
        for (key, value) in old.into_iter().flat_map(labels_of).flatten() {
            let pair: (Arc<str>, Arc<str>) = (key.as_str().into(), value.as_str().into());
            if let Some(set) = table.get_mut(&pair) {
                set.remove(name);
                if set.is_empty() {
                    table.remove(&pair);
                }
            }
        }
        for (key, value) in new.into_iter().flat_map(labels_of).flatten() {
            table.entry((key.as_str().into(), value.as_str().into())).or_default().insert(Arc::clone(name));
        }
        if table.is_empty() {
            self.labels.remove(&(kind, namespace));
        }
    }

    /// The objects that name `uid` as an owner.
    pub(crate) fn owned(&self, uid: &str) -> impl Iterator<Item = &(RowNumber, Name)> {
        self.owned.get(uid).into_iter().flatten()
    }

    /// Where the object with this uid is, if the garbage collector may have to look at it.
    pub(crate) fn identity(&self, uid: &str) -> Option<&(RowNumber, Name)> {
        self.identities.get(uid)
    }

    /// A superset of the objects that match, or nothing if no index narrows them down.
    pub(crate) fn candidates(&self, kind: Kind, namespace: &str, selector: &Selector) -> Option<Vec<Name>> {
        if !LABELLED.contains(&kind) {
            return None;
        }
        let pairs: Vec<(Arc<str>, Arc<str>)> = selector.requirements().iter().filter_map(equality).collect();
        if pairs.is_empty() {
            return None;
        }
        let Some(table) = self.labels.get(&(kind, namespace.into())) else { return Some(Vec::new()) };
        let sets: Option<Vec<&BTreeSet<Name>>> = pairs.iter().map(|pair| table.get(pair)).collect();
        let smallest = sets.and_then(|sets| sets.into_iter().min_by_key(|set| set.len()));
        Some(smallest.map(|set| set.iter().cloned().collect()).unwrap_or_default())
    }

    /// The same of those that no object manages: a superset too.
    pub(crate) fn unmanaged_candidates(&self, kind: Kind, namespace: &str, selector: &Selector) -> Option<Vec<Name>> {
        if !LABELLED.contains(&kind) {
            return None;
        }
        let Some(unmanaged) = self.unmanaged.get(&(kind, namespace.into())) else { return Some(Vec::new()) };
        match self.candidates(kind, namespace, selector) {
            Some(found) if found.len() <= unmanaged.len() => {
                Some(found.into_iter().filter(|name| unmanaged.contains(name)).collect())
            }
            _ => Some(unmanaged.iter().cloned().collect()),
        }
    }

    /// The pods on a node.
    pub(crate) fn on_node(&self, node: &str) -> impl Iterator<Item = &Name> {
        self.nodes.get(node).into_iter().flatten()
    }

    /// The pods that have ended.
    pub(crate) fn ended(&self) -> &BTreeSet<Name> {
        &self.ended
    }

    /// When [`Index::touch`] last noted something.
    pub(crate) fn changed_at(&self, kind: Kind, name: &str) -> Instant {
        self.changed.get(&(kind, name.into())).copied().unwrap_or(self.started)
    }
}

/// The label and the value that a requirement asks for, if it asks for exactly one.
fn equality(requirement: &Requirement) -> Option<(Arc<str>, Arc<str>)> {
    match requirement {
        Requirement::In(key, values) if values.len() == 1 => {
            values.iter().next().map(|value| (key.as_str().into(), value.as_str().into()))
        }
        _ => None,
    }
}

/// When a node says that it last looked at itself, by its own clock: only that it changes means anything to others.
fn heartbeat(node: &Node) -> Option<&Time> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")?.last_heartbeat_time.as_ref()
}

fn labels_of(object: &Object) -> Option<&std::collections::BTreeMap<String, String>> {
    object.meta().labels.as_ref()
}

fn namespace_of(name: &Name) -> Arc<str> {
    name.split_once('/').map_or("", |(namespace, _)| namespace).into()
}

fn is_unmanaged(object: &Object) -> bool {
    !object.meta().owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
}

fn node_of(object: &Object) -> Option<&str> {
    match object {
        Object::Pod(pod) => pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty()),
        _ => None,
    }
}

fn has_ended(object: &Object) -> bool {
    let phase = match object {
        Object::Pod(pod) => pod.status.as_ref().and_then(|status| status.phase.as_deref()),
        _ => None,
    };
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What is known of an object whatever its kind.
pub(crate) fn identity_of(resource: &Arc<Resource>, meta: &ObjectMeta) -> Identity {
    Identity {
        resource: Arc::clone(resource),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        deletion_timestamp: meta.deletion_timestamp.as_ref().map(|time| time.0),
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        finalizers: meta.finalizers.clone().unwrap_or_default(),
        owners: meta.owner_references.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use coracle_controllers::Typed;
    use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};

    use super::*;

    fn pod(labels: &[(&str, &str)], node: Option<&str>, owner: Option<&str>) -> Object {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let reference = |uid: &str| OwnerReference { uid: uid.into(), ..OwnerReference::default() };
        let metadata = ObjectMeta {
            uid: Some("u".into()),
            labels: Some(labels),
            owner_references: owner.map(|uid| vec![reference(uid)]),
            ..ObjectMeta::default()
        };
        let spec = PodSpec { node_name: node.map(str::to_owned), ..PodSpec::default() };
        // The pod with a node has ended.
        let status = node.map(|_| PodStatus { phase: Some("Failed".into()), ..PodStatus::default() });
        Arc::new(Pod { metadata, spec: Some(spec), status }).into_object()
    }

    fn ties(object: Option<&Object>) -> Option<Ties<'_>> {
        object.map(|object| Ties::from(object.meta()))
    }

    #[test]
    fn every_index_follows_a_pod_through_its_life() {
        let mut index = Index::new(Instant::now());
        let name: Name = "ns/p".into();
        let selector = |text: &str| Selector::parse(text).unwrap();
        let states = [
            None,
            Some(pod(&[("app", "a"), ("tier", "x")], None, Some("set"))),
            Some(pod(&[("app", "b")], Some("n1"), None)),
            None,
        ];
        let expect = [(1, 0, 0, 1), (0, 1, 1, 0), (0, 0, 0, 0)];
        for (step, (a, b, on_node, owned)) in states.windows(2).zip(expect) {
            let (old, new) = (step[0].as_ref(), step[1].as_ref());
            index.apply_ties(3, &name, ties(old), ties(new));
            index.apply_object(&name, old, new);
            let found = |text: &str| index.candidates(Kind::Pod, "ns", &selector(text)).unwrap().len();
            assert_eq!(
                (found("app=a"), found("app=b"), index.on_node("n1").count(), index.owned("set").count()),
                (a, b, on_node, owned)
            );
            assert_eq!(index.identity("u").is_some(), owned == 1);
            assert_eq!(index.ended().len(), on_node);
        }
        let left = [index.owned.len(), index.labels.len(), index.nodes.len(), index.ended.len(), index.unmanaged.len()];
        assert_eq!(left, [0; 5], "nothing is left behind");
    }

    #[test]
    fn pods_that_nobody_manages_are_found_among_many() {
        let mut index = Index::new(Instant::now());
        let managed = |labels, managed| {
            let mut object = pod(labels, None, Some("set"));
            object.meta_mut().owner_references.as_mut().unwrap()[0].controller = Some(managed);
            object
        };
        let mut apply = |name: &str, old: Option<Object>, new: Option<Object>| {
            index.apply_object(&name.into(), old.as_ref(), new.as_ref());
            let found = |text: &str| {
                let names = index.unmanaged_candidates(Kind::Pod, "ns", &Selector::parse(text).unwrap()).unwrap();
                names.iter().map(|name| name.to_string()).collect::<Vec<_>>().join(" ")
            };
            (found("app=a"), found("app"))
        };
        let check = |found: (String, String), by_pair: &str, by_key: &str| {
            assert_eq!((found.0.as_str(), found.1.as_str()), (by_pair, by_key));
        };
        check(apply("ns/a", None, Some(managed(&[("app", "a")], true))), "", "");
        check(apply("ns/b", None, Some(managed(&[("app", "a")], false))), "ns/b", "ns/b");
        check(apply("ns/c", None, Some(pod(&[("app", "c")], None, None))), "ns/b", "ns/b ns/c");
        check(apply("other/d", None, Some(pod(&[("app", "a")], None, None))), "ns/b", "ns/b ns/c");
        let adopted = (managed(&[("app", "a")], false), managed(&[("app", "a")], true));
        check(apply("ns/b", Some(adopted.0), Some(adopted.1)), "ns/c", "ns/c");
        check(apply("ns/c", Some(pod(&[("app", "c")], None, None)), None), "", "");
    }

    #[test]
    fn selectors_without_an_exact_pair_are_not_narrowed_down() {
        let index = Index::new(Instant::now());
        assert_eq!(index.candidates(Kind::Pod, "ns", &Selector::parse("app").unwrap()), None);
        assert_eq!(index.candidates(Kind::Deployment, "ns", &Selector::parse("app=a").unwrap()), None);
    }
}
