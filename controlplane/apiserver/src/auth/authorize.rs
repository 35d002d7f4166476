//! Whether a caller may do what it asks. One interface, [`Authorizer`]; the server knows no other way.

use crate::auth::{AUTHENTICATED, Attributes, Decision, MASTERS, NODES, User};
use crate::request::Verb;

/// Decides whether `user` may do what `attributes` say.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision. It is made from memory: it never waits.
    fn authorize(&self, user: &User, attributes: Attributes<'_>) -> Decision;
}

/// Tells the built-in identities apart: administrators may do everything, agents what a node does, everyone who proved who
/// they are may find out what the API offers and what they are, and everyone may ask for health and version.
#[derive(Debug, Default, Clone, Copy)]
pub struct BuiltInIdentities;

impl Authorizer for BuiltInIdentities {
    fn authorize(&self, user: &User, attributes: Attributes<'_>) -> Decision {
        let allowed = user.is_in(MASTERS)
            || match attributes {
                Attributes::NonResource { verb, path } => {
                    is_public(verb, path) || (user.is_in(AUTHENTICATED) && is_discovery(verb, path))
                }
                Attributes::Resource { verb, path } => {
                    (user.is_in(AUTHENTICATED) && asks_about_itself(verb, &path.group, &path.resource))
                        || (user.is_in(NODES) && node_may(verb, &path.group, &path.resource, &path.subresource))
                }
            };
        if allowed { Decision::Allow } else { Decision::Deny(String::new()) }
    }
}

fn is_public(verb: &str, path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(verb, "get" | "head") && matches!(first, "healthz" | "livez" | "readyz" | "version")
}

fn is_discovery(verb: &str, path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    matches!(verb, "get" | "head") && matches!(first, "api" | "apis" | "openapi")
}

/// `system:basic-user` and `system:discovery` of Kubernetes.
fn asks_about_itself(verb: Verb, group: &str, resource: &str) -> bool {
    verb == Verb::Create
        && matches!(
            (group, resource),
            ("authorization.k8s.io", "selfsubjectaccessreviews" | "selfsubjectrulesreviews")
                | ("authentication.k8s.io", "selfsubjectreviews")
        )
}

/// The rules of `system:node`; which objects of these a node may touch is narrowed at admission.
fn node_may(verb: Verb, group: &str, resource: &str, subresource: &str) -> bool {
    use Verb::{Create, Delete, Get, List, Patch, Update, Watch};
    let read = matches!(verb, Get | List | Watch);
    match (group, resource, subresource) {
        ("", "nodes", "") => read || matches!(verb, Create | Update | Patch),
        ("", "nodes" | "pods", "status") => matches!(verb, Get | Update | Patch),
        ("", "pods", "") => read || matches!(verb, Create | Delete),
        ("", "pods", "eviction") | ("", "serviceaccounts", "token") => verb == Create,
        (
            "",
            "services"
            | "configmaps"
            | "secrets"
            | "persistentvolumeclaims"
            | "persistentvolumes"
            | "namespaces"
            | "endpoints"
            | "serviceaccounts",
            "",
        ) => read,
        ("discovery.k8s.io", "endpointslices", "") | ("node.k8s.io", "runtimeclasses", "") => read,
        ("storage.k8s.io", "volumeattachments" | "csidrivers", "") => read,
        ("storage.k8s.io", "csinodes", "") => read || matches!(verb, Create | Update | Patch | Delete),
        ("", "events", "") | ("events.k8s.io", "events", "") => matches!(verb, Create | Update | Patch),
        ("coordination.k8s.io", "leases", "") => matches!(verb, Get | Create | Update | Patch | Delete),
        ("certificates.k8s.io", "certificatesigningrequests", "") => matches!(verb, Get | List | Watch | Create),
        ("authentication.k8s.io", "tokenreviews", "")
        | ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "") => verb == Create,
        _ => false,
    }
}

/// The words of a refusal (`responsewriters.forbiddenMessage`).
#[must_use]
pub fn refusal(user: &User, attributes: Attributes<'_>) -> String {
    match attributes {
        Attributes::NonResource { verb, path } => {
            format!("User {:?} cannot {verb} path {path:?}", user.name)
        }
        Attributes::Resource { verb, path } => {
            let mut resource = path.resource.clone();
            if !path.subresource.is_empty() {
                resource = format!("{resource}/{}", path.subresource);
            }
            let scope = if path.namespace.is_empty() || (path.resource == "namespaces" && path.group.is_empty()) {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", path.namespace)
            };
            format!(
                "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
                user.name,
                verb.as_str(),
                path.group
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Query, Target, verb};

    #[test]
    fn identities_are_told_apart() {
        let admin = User::authenticated("admin", &[MASTERS]);
        let node = User::node("n1");
        let account = User::service_account("default", "default", "1");
        let nobody = User::anonymous();
        let cases = [
            ("GET /api/v1/secrets", [true, true, false, false]),
            ("DELETE /api/v1/nodes/n1", [true, false, false, false]),
            ("PATCH /api/v1/nodes/n1/status", [true, true, false, false]),
            ("POST /apis/apps/v1/namespaces/a/deployments", [true, false, false, false]),
            ("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", [true, true, true, false]),
            ("GET /api", [true, true, true, false]),
            ("GET /openapi/v3", [true, true, true, false]),
            ("GET /metrics", [true, false, false, false]),
            ("GET /healthz", [true; 4]),
            ("GET /readyz/etcd", [true; 4]),
            ("GET /version", [true; 4]),
        ];
        for (request, expected) in cases {
            let (method, path) = request.split_once(' ').unwrap();
            let target = Target::parse(path).unwrap();
            let lower = method.to_ascii_lowercase();
            let attributes = match &target {
                Target::Other(path) => Attributes::NonResource { verb: &lower, path },
                Target::Resource(path) => Attributes::Resource {
                    verb: verb(&method.parse().unwrap(), path, &Query::default()).unwrap(),
                    path,
                },
            };
            let actual = [&admin, &node, &account, &nobody]
                .map(|u| BuiltInIdentities.authorize(u, attributes) == Decision::Allow);
            assert_eq!(actual, expected, "{request}");
        }
    }
}
