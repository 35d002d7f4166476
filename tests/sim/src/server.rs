//! The server: carries requests out at the door, and feeds those who follow. Every watch is compared with the ledger as it
//! is read, so a gap or a duplicate is found at once.

use std::collections::BTreeMap;

use coracle_api::ApiError;
use coracle_controllers::{Action, Kind, Object, Subresource, Target};
use coracle_store::{Durability, ListRange, Store, Watch, WatchEvent};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Node, NodeCondition, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};

use crate::door::{Deletion, Door, Part, Place, whole_seconds};
use crate::ledger::Position;
use crate::message::{Feed, FeedBody, Peer, Request};
use crate::node::{is_on, node_status};
use crate::scheduling::FOLLOWED;

/// Where the Leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// One peer's stream.
struct Stream {
    number: u64,
    watches: Vec<(Kind, Watch, Position)>,
}

/// The server.
pub(crate) struct Server {
    pub(crate) door: Door,
    streams: BTreeMap<Peer, Stream>,
    next_stream: u64,
}

impl Server {
    /// A server whose namespaces are there.
    pub(crate) fn new(door: Door, now: Timestamp) -> Result<Self, ApiError> {
        let mut server = Self { door, streams: BTreeMap::new(), next_stream: 0 };
        for name in ["default", LEASES] {
            let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
            server.door.create(&Object::from(Namespace { metadata, ..Namespace::default() }), now)?;
        }
        Ok(server)
    }

    /// Carries a request out.
    pub(crate) fn handle(&mut self, request: Request, node: Option<&str>, now: Timestamp) -> Result<(), ApiError> {
        let door = &mut self.door;
        match request {
            // Answered by the stream itself.
            Request::Follow => Ok(()),
            Request::Act(action) => act(door, action, now),
            Request::Bind(pod, to) => bind(door, (&pod.namespace, &pod.name), pod.uid.as_str(), to.as_str(), now),
            Request::Unschedulable(pod, message) => {
                unschedulable(door, (&pod.namespace, &pod.name), pod.uid.as_str(), message, now)
            }
            Request::Status(pod, status) => {
                edit_pod(door, (&pod.namespace, &pod.name), pod.uid.as_str(), Part::Status, |old| {
                    old.status = Some(merged(old.status.as_ref(), *status));
                })
            }
            Request::Remove(pod) => {
                let mut deletion = Deletion { grace_period_seconds: Some(0), ..Deletion::default() };
                deletion.preconditions.uid = Some(pod.uid.as_str().to_owned());
                let at = Place { kind: Kind::Pod, namespace: &pod.namespace, name: &pod.name };
                door.delete(at, &deletion, now).map(drop)
            }
            Request::Heartbeat => heartbeat(door, node.unwrap_or_default(), now),
        }
    }

    /// Opens a peer's stream; an older one of its ends.
    pub(crate) fn follow(&mut self, peer: Peer, node: Option<&str>) -> Result<Feed, String> {
        let kinds: &[Kind] = match peer {
            Peer::Manager => Kind::ALL,
            Peer::Scheduler => &FOLLOWED,
            Peer::Node(_) => &[Kind::Pod],
        };
        self.next_stream += 1;
        let mut stream = Stream { number: self.next_stream, watches: Vec::new() };
        let mut entries = Vec::new();
        for kind in kinds {
            let collection = &self.door.row(*kind).collection;
            let opened = self.door.store.list_and_watch(collection, &ListRange::all());
            let (listing, watch) = opened.map_err(|error| format!("a watch of {collection} did not open: {error}"))?;
            stream.watches.push((*kind, watch, self.door.ledger.end_of(collection)));
            let wanted = listing.entries.into_iter().filter(|entry| node.is_none_or(|node| is_on(entry, node)));
            entries.extend(wanted.map(|entry| (*kind, entry)));
        }
        let feed =
            Feed { stream: stream.number, body: FeedBody::Listing(entries), revision: self.door.store.revision() };
        self.streams.insert(peer, stream);
        Ok(feed)
    }

    /// What each stream has to tell now.
    pub(crate) fn pump(&mut self, name_of: impl Fn(Peer) -> Option<String>) -> Result<Vec<(Peer, Feed)>, String> {
        let revision = self.door.store.revision();
        let mut feeds = Vec::new();
        for (peer, stream) in &mut self.streams {
            let node = name_of(*peer);
            let mut changes: Vec<(Kind, WatchEvent)> = Vec::new();
            for (kind, watch, position) in &mut stream.watches {
                let mut told = Vec::new();
                loop {
                    let events = watch.try_next().map_err(|error| format!("a watch of {kind:?} ended: {error}"))?;
                    if events.is_empty() {
                        break;
                    }
                    told.extend(events);
                }
                self.door.ledger.compare(&self.door.row(*kind).collection, position, &told)?;
                let wanted =
                    told.into_iter().filter(|event| node.as_deref().is_none_or(|node| is_on(event.entry(), node)));
                changes.extend(wanted.map(|event| (*kind, event)));
            }
            if !changes.is_empty() || peer.is_inside() {
                feeds.push((*peer, Feed { stream: stream.number, body: FeedBody::Changes(changes), revision }));
            }
        }
        Ok(feeds)
    }

    /// Ends a peer's stream if it is still that one.
    pub(crate) fn cut(&mut self, peer: Peer, stream: u64) {
        if self.streams.get(&peer).is_some_and(|known| known.number == stream) {
            self.streams.remove(&peer);
        }
    }

    /// Ends a peer's stream, whichever it is.
    pub(crate) fn forget(&mut self, peer: Peer) {
        self.streams.remove(&peer);
    }

    /// Dies, and has its store again. Gives the streams that ended.
    pub(crate) fn crash(&mut self) -> Result<Vec<(Peer, u64)>, String> {
        let ended = std::mem::take(&mut self.streams).into_iter().map(|(peer, stream)| (peer, stream.number)).collect();
        self.door.crash()?;
        Ok(ended)
    }
}

fn act(door: &mut Door, action: Action, now: Timestamp) -> Result<(), ApiError> {
    match action {
        Action::Create(object) => door.create(&object, now).map(drop),
        Action::Update(object) => door.replace(&object, Part::Spec).map(drop),
        Action::UpdateStatus(object) => door.replace(&object, Part::Status).map(drop),
        Action::Finalize(object) => door.replace(&object, Part::Any).map(drop),
        Action::Patch { target, subresource, patch } => {
            let part = if subresource == Some(Subresource::Status) { Part::Status } else { Part::Spec };
            door.patch(place(&target)?, part, &patch).map(drop)
        }
        Action::Delete { target, preconditions, propagation, grace_period_seconds } => {
            door.delete(place(&target)?, &Deletion { preconditions, propagation, grace_period_seconds }, now).map(drop)
        }
        Action::Tell(_) => Ok(()),
    }
}

fn place(target: &Target) -> Result<Place<'_>, ApiError> {
    let kind = Kind::ALL.iter().find(|kind| kind.resource() == target.resource).ok_or_else(ApiError::no_such_path)?;
    Ok(Place { kind: *kind, namespace: &target.namespace, name: &target.name })
}

fn edit_pod(
    door: &mut Door,
    at: (&str, &str),
    uid: &str,
    part: Part,
    edit: impl FnOnce(&mut Pod),
) -> Result<(), ApiError> {
    let change = |pod: &mut Pod| {
        edit(pod);
        // A precondition: another pod may have the name by now.
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.resource_version = None;
    };
    door.edit::<Pod>(at, part, Durability::Durable, change).map(drop)
}

fn bind(door: &mut Door, at: (&str, &str), uid: &str, node: &str, now: Timestamp) -> Result<(), ApiError> {
    let resource = coracle_api::status::ResourceName { group: "", plural: "pods/binding" };
    if let Some(pod) = door.get::<Pod>(at.0, at.1) {
        let bound = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
        if bound || pod.metadata.deletion_timestamp.is_some() {
            return Err(ApiError::conflict(resource, at.1, "the pod is already assigned or being deleted"));
        }
    }
    edit_pod(door, at, uid, Part::Any, |pod| {
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        let scheduled = condition("PodScheduled", "True", now);
        pod.status = Some(with(pod.status.clone().unwrap_or_default(), scheduled));
    })
}

fn unschedulable(
    door: &mut Door,
    at: (&str, &str),
    uid: &str,
    message: String,
    now: Timestamp,
) -> Result<(), ApiError> {
    edit_pod(door, at, uid, Part::Status, |pod| {
        let status = pod.status.clone().unwrap_or_default();
        let same = |known: &PodCondition| known.type_ == "PodScheduled" && known.message.as_deref() == Some(&message);
        if !status.conditions.iter().flatten().any(same) {
            let refused = PodCondition {
                reason: Some("Unschedulable".into()),
                message: Some(message),
                ..condition("PodScheduled", "False", now)
            };
            pod.status = Some(with(status, refused));
        }
    })
}

fn condition(type_: &str, status: &str, now: Timestamp) -> PodCondition {
    PodCondition {
        type_: type_.into(),
        status: status.into(),
        last_transition_time: Some(whole_seconds(now)),
        ..PodCondition::default()
    }
}

fn with(mut status: PodStatus, new: PodCondition) -> PodStatus {
    let all = status.conditions.get_or_insert_default();
    all.retain(|known| known.type_ != new.type_);
    all.push(new);
    status
}

/// An agent's status, with the conditions that others keep.
fn merged(old: Option<&PodStatus>, mut new: PodStatus) -> PodStatus {
    let own = new.conditions.get_or_insert_default();
    let foreign = old.and_then(|old| old.conditions.as_ref()).into_iter().flatten();
    let foreign: Vec<PodCondition> =
        foreign.filter(|other| !own.iter().any(|known| known.type_ == other.type_)).cloned().collect();
    own.extend(foreign);
    new
}

fn heartbeat(door: &mut Door, name: &str, now: Timestamp) -> Result<(), ApiError> {
    if door.get::<Node>("", name).is_none() {
        let labels = [("kubernetes.io/hostname".to_owned(), name.to_owned())].into();
        let metadata = ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
        door.create(&Object::from(Node { metadata, spec: None, status: Some(node_status()) }), now)?;
    }
    let node = door.get::<Node>("", name).ok_or_else(|| ApiError::internal("a node that was just made is gone"))?;
    renew(door, &node, name, now)?;
    let known = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    if known.into_iter().flatten().any(|known| known.type_ == "Ready" && known.status == "True") {
        return Ok(());
    }
    let verdicts =
        [("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")];
    let conditions = verdicts.map(|(type_, status)| NodeCondition {
        type_: type_.into(),
        status: status.into(),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        ..NodeCondition::default()
    });
    let ready = |node: &mut Node| node.status.get_or_insert_default().conditions = Some(conditions.to_vec());
    door.edit::<Node>(("", name), Part::Status, Durability::Durable, ready).map(drop)
}

fn renew(door: &mut Door, node: &Node, name: &str, now: Timestamp) -> Result<(), ApiError> {
    let renewed = door.edit::<Lease>((LEASES, name), Part::Spec, Durability::Volatile, |lease| {
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(now));
    });
    match renewed {
        Err(error) if error.code() == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(LEASES.into()),
        owner_references: Some(vec![owner]),
        ..ObjectMeta::default()
    };
    let spec = LeaseSpec {
        holder_identity: Some(name.to_owned()),
        lease_duration_seconds: Some(40),
        renew_time: Some(MicroTime(now)),
        ..LeaseSpec::default()
    };
    door.create(&Object::from(Lease { metadata, spec: Some(spec) }), now).map(drop)
}
