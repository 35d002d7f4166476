//! What an agent may do: the `Node` authorizer of Kubernetes. An agent reads what the pods of its own node refer to, by name,
//! and writes about its own node. What it writes is looked at once more when it is known (`admission::node_restriction`).

mod graph;

use coracle_api::selector::FieldSelector;

use self::graph::{Graph, Thing};
use super::Decision;
use crate::registry::Registry;
use crate::request::{ResourcePath, Verb};

/// The namespace of nodes' Leases.
const LEASES: &str = "kube-node-lease";

/// Decides for agents.
pub(crate) struct NodeAuthorizer {
    graph: Graph,
}

/// A question of a node's agent.
#[derive(Clone, Copy)]
struct Asked<'a> {
    node: &'a str,
    verb: Verb,
    path: &'a ResourcePath,
    /// The name in the path, or the only one that the selector of a list allows.
    name: &'a str,
    fields: &'a FieldSelector,
}

impl NodeAuthorizer {
    pub(crate) fn new(store: std::sync::Arc<dyn coracle_store::Store>) -> Self {
        Self { graph: Graph::new(store, Registry::default()) }
    }

    /// Whether the agent of `node` may do this.
    pub(crate) fn decide(&self, node: &str, verb: Verb, path: &ResourcePath, fields: &FieldSelector) -> Decision {
        let many = matches!(verb, Verb::List | Verb::Watch) && path.name.is_empty();
        let only = if many { fields.exact("metadata.name").unwrap_or_default() } else { &path.name };
        let asked = Asked { node, verb, path, name: only, fields };
        let answer = match (path.group.as_str(), path.resource.as_str()) {
            ("", "secrets") => self.read(asked, Thing::Secret),
            ("", "configmaps") => self.read(asked, Thing::ConfigMap),
            ("", "persistentvolumeclaims") if path.subresource == "status" => self.claim_status(asked),
            ("", "persistentvolumeclaims") => self.get(asked, Thing::Claim),
            ("", "persistentvolumes") => self.get(asked, Thing::Volume),
            ("resource.k8s.io", "resourceclaims") => self.get(asked, Thing::Devices),
            ("storage.k8s.io", "volumeattachments") => self.get(asked, Thing::Attachment),
            ("", "serviceaccounts") => self.token(asked),
            ("coordination.k8s.io", "leases") => lease(asked),
            ("storage.k8s.io", "csinodes") => csi_node(asked),
            ("resource.k8s.io", "resourceslices") => self.devices(asked),
            ("", "nodes") => own_node(asked),
            ("", "pods") => self.pod(asked),
            _ if is_of_all(verb, path) => Ok(()),
            _ => Err(String::new()),
        };
        answer.map_or_else(Decision::Deny, |()| Decision::Allow)
    }

    fn read(&self, asked: Asked<'_>, thing: Thing) -> Result<(), String> {
        if !matches!(asked.verb, Verb::Get | Verb::List | Verb::Watch) {
            return denied("can only read resources of this type");
        }
        if !asked.path.subresource.is_empty() {
            return denied("cannot read subresource");
        }
        if asked.path.namespace.is_empty() {
            return denied("can only read namespaced object of this type");
        }
        self.related(asked, thing)
    }

    fn get(&self, asked: Asked<'_>, thing: Thing) -> Result<(), String> {
        if asked.verb != Verb::Get {
            return denied("can only get individual resources of this type");
        }
        if !asked.path.subresource.is_empty() {
            return denied("cannot get subresource");
        }
        self.related(asked, thing)
    }

    fn claim_status(&self, asked: Asked<'_>) -> Result<(), String> {
        if !matches!(asked.verb, Verb::Update | Verb::Patch) {
            return denied("can only get/update/patch this type");
        }
        self.related(asked, Thing::Claim)
    }

    fn token(&self, asked: Asked<'_>) -> Result<(), String> {
        if asked.verb != Verb::Create || asked.name.is_empty() {
            return denied("can only create tokens for individual service accounts");
        }
        if asked.path.subresource != "token" {
            return denied("can only create token subresource of serviceaccount");
        }
        self.related(asked, Thing::Account)
    }

    fn devices(&self, asked: Asked<'_>) -> Result<(), String> {
        match asked.verb {
            _ if !asked.path.subresource.is_empty() => denied("cannot authorize ResourceSlice subresources"),
            // Its node is known when it is read.
            Verb::Create => Ok(()),
            Verb::List | Verb::Watch | Verb::DeleteCollection => {
                if asked.fields.exact("nodeName") == Some(asked.node) {
                    return Ok(());
                }
                denied("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => self.related(asked, Thing::Slice),
        }
    }

    fn pod(&self, asked: Asked<'_>) -> Result<(), String> {
        match (asked.path.subresource.as_str(), asked.verb) {
            ("", Verb::Get) => self.get(asked, Thing::Pod),
            ("", Verb::List | Verb::Watch) if asked.fields.exact("spec.nodeName") == Some(asked.node) => Ok(()),
            ("", Verb::List | Verb::Watch) if !asked.name.is_empty() => self.related(asked, Thing::Pod),
            ("", Verb::List | Verb::Watch) => denied("can only list/watch pods with spec.nodeName field selector"),
            // Which pods these are is seen at admission.
            ("", Verb::Create | Verb::Delete) | ("status", Verb::Update | Verb::Patch) | ("eviction", Verb::Create) => {
                Ok(())
            }
            _ => denied(""),
        }
    }

    fn related(&self, asked: Asked<'_>, thing: Thing) -> Result<(), String> {
        if asked.name.is_empty() {
            return denied("No Object name found");
        }
        if self.graph.leads(thing, &asked.path.namespace, asked.name, asked.node) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{}' and this object", asked.node))
    }
}

fn denied(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

fn lease(asked: Asked<'_>) -> Result<(), String> {
    match asked.verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection => {
            denied("can only get, create, update, patch, or delete a node lease")
        }
        _ if asked.path.namespace != LEASES => {
            Err(format!("can only access leases in the {LEASES:?} system namespace"))
        }
        // A new one's name is seen at admission.
        Verb::Create => Ok(()),
        _ if asked.name == asked.node => Ok(()),
        _ => denied("can only access node lease with the same name as the requesting node"),
    }
}

fn csi_node(asked: Asked<'_>) -> Result<(), String> {
    match asked.verb {
        Verb::List | Verb::Watch | Verb::DeleteCollection => {
            denied("can only get, create, update, patch, or delete a CSINode")
        }
        _ if !asked.path.subresource.is_empty() => denied("cannot authorize CSINode subresources"),
        Verb::Create => Ok(()),
        _ if asked.name == asked.node => Ok(()),
        _ => denied("can only access CSINode with the same name as the requesting node"),
    }
}

fn own_node(asked: Asked<'_>) -> Result<(), String> {
    let node = asked.node;
    match (asked.path.subresource.as_str(), asked.verb) {
        // Whose object it is is seen at admission.
        ("", Verb::Create | Verb::Update | Verb::Patch) | ("status", Verb::Update | Verb::Patch) => Ok(()),
        ("", Verb::Get | Verb::List | Verb::Watch) => match asked.name {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => denied(""),
    }
}

/// What every agent does alike: the rest of the rules of `system:node`, and of `system:node-proxier` for its Services.
fn is_of_all(verb: Verb, path: &ResourcePath) -> bool {
    use Verb::{Create, Get, List, Patch, Update, Watch};
    if !path.subresource.is_empty() {
        return false;
    }
    let read = matches!(verb, Get | List | Watch);
    match (path.group.as_str(), path.resource.as_str()) {
        ("", "services")
        | ("discovery.k8s.io", "endpointslices")
        | ("node.k8s.io", "runtimeclasses")
        | ("storage.k8s.io", "csidrivers") => read,
        ("", "endpoints") => verb == Get,
        ("", "events") | ("events.k8s.io", "events") => matches!(verb, Create | Update | Patch),
        ("certificates.k8s.io", "certificatesigningrequests") => read || verb == Create,
        ("authentication.k8s.io", "tokenreviews")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews") => verb == Create,
        _ => false,
    }
}
