//! Whether a caller may do what it asks. One interface, [`Authorizer`]; the server knows no other way.

use std::sync::Arc;

use coracle_store::Store;

use crate::auth::node::NodeAuthorizer;
use crate::auth::{AUTHENTICATED, Attributes, Decision, MASTERS, User};
use crate::request::Verb;

/// Decides whether `user` may do what `attributes` say.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision. It is made from memory: it never waits.
    fn authorize(&self, user: &User, attributes: Attributes<'_>) -> Decision;
}

/// Tells the built-in identities apart: administrators may do everything, agents what a node does, everyone who proved who
/// they are may find out what the API offers and what they are, and everyone may ask for health and version.
pub struct BuiltInIdentities {
    nodes: NodeAuthorizer,
}

impl BuiltInIdentities {
    /// Over the store whose pods tell what their nodes may read.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { nodes: NodeAuthorizer::new(store) }
    }
}

impl Authorizer for BuiltInIdentities {
    fn authorize(&self, user: &User, attributes: Attributes<'_>) -> Decision {
        let proved = user.is_in(AUTHENTICATED);
        let allowed = user.is_in(MASTERS)
            || match attributes {
                Attributes::NonResource { verb, path } => is_public(verb, path) || (proved && is_discovery(verb, path)),
                Attributes::Resource { verb, path, .. } => {
                    proved && asks_about_itself(verb, &path.group, &path.resource)
                }
            };
        match (attributes, user.node_name()) {
            _ if allowed => Decision::Allow,
            (Attributes::Resource { verb, path, fields }, Some(node)) => self.nodes.decide(node, verb, path, fields),
            _ => Decision::Deny(String::new()),
        }
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

/// The words of a refusal (`responsewriters.forbiddenMessage`).
#[must_use]
pub fn refusal(user: &User, attributes: Attributes<'_>) -> String {
    match attributes {
        Attributes::NonResource { verb, path } => {
            format!("User {:?} cannot {verb} path {path:?}", user.name)
        }
        Attributes::Resource { verb, path, .. } => {
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
    use coracle_api::selector::FieldSelector;
    use coracle_store::{Options, SqliteStore};

    use super::*;
    use crate::request::{Query, Target, verb};

    #[test]
    fn identities_are_told_apart() {
        let admin = User::authenticated("admin", &[MASTERS]);
        let node = User::node("n1");
        let account = User::service_account("default", "default", "1");
        let nobody = User::anonymous();
        let cases = [
            ("GET /api/v1/secrets", [true, false, false, false]),
            ("GET /api/v1/services", [true, true, false, false]),
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
        let authorizer = BuiltInIdentities::new(Arc::new(SqliteStore::in_memory(Options::default()).unwrap()));
        for (request, expected) in cases {
            let (method, path) = request.split_once(' ').unwrap();
            let target = Target::parse(path).unwrap();
            let lower = method.to_ascii_lowercase();
            let attributes = match &target {
                Target::Other(path) => Attributes::NonResource { verb: &lower, path },
                Target::Resource(path) => Attributes::Resource {
                    verb: verb(&method.parse().unwrap(), path, &Query::default()).unwrap(),
                    path,
                    fields: &FieldSelector::default(),
                },
            };
            let actual =
                [&admin, &node, &account, &nobody].map(|u| authorizer.authorize(u, attributes) == Decision::Allow);
            assert_eq!(actual, expected, "{request}");
        }
    }
}
