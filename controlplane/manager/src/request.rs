//! The write that carries an action out.

use coracle_controllers::{Action, Subresource, Target};
use http::Method;
use serde_json::json;

use crate::writer::Write;

/// Media types of bodies.
pub(crate) const JSON: &str = "application/json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";

/// The write for an action; `None` for one that writes nothing.
pub(crate) fn of(action: &Action) -> Option<Write> {
    Some(match action {
        Action::Create(object) => {
            let target = Target::of(object);
            write(Method::POST, target.resource.collection_path(&target.namespace), JSON, object.encode())
        }
        Action::Update(object) => write(Method::PUT, Target::of(object).path(), JSON, object.encode()),
        Action::UpdateStatus(object) => {
            write(Method::PUT, format!("{}/status", Target::of(object).path()), JSON, object.encode())
        }
        Action::Finalize(object) => {
            write(Method::PUT, format!("{}/finalize", Target::of(object).path()), JSON, object.encode())
        }
        Action::Patch { target, subresource, patch } => {
            let suffix = match subresource {
                Some(Subresource::Status) => "/status",
                None => "",
            };
            write(Method::PATCH, format!("{}{suffix}", target.path()), MERGE_PATCH, patch.to_string())
        }
        Action::Delete { target, preconditions, propagation, grace_period_seconds } => {
            let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {} });
            if let Some(uid) = &preconditions.uid {
                options["preconditions"]["uid"] = uid.as_str().into();
            }
            if let Some(version) = &preconditions.resource_version {
                options["preconditions"]["resourceVersion"] = version.as_str().into();
            }
            if let Some(propagation) = propagation {
                options["propagationPolicy"] = propagation.as_str().into();
            }
            if let Some(seconds) = grace_period_seconds {
                options["gracePeriodSeconds"] = (*seconds).into();
            }
            write(Method::DELETE, target.path(), JSON, options.to_string())
        }
        Action::Tell(_) => return None,
    })
}

/// A write with a body.
pub(crate) fn write(method: Method, uri: String, content_type: &'static str, body: impl Into<bytes::Bytes>) -> Write {
    Write { method, uri, content_type, body: body.into() }
}

#[cfg(test)]
mod tests {
    use coracle_controllers::{Kind, Object, Preconditions, Propagation};
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod() -> Object {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.namespace = Some("ns".into());
        pod.into()
    }

    #[test]
    fn requests() {
        let check = |action: Action, method: &str, path: &str| {
            let write = of(&action).unwrap();
            assert_eq!((write.method.as_str(), write.uri.as_str()), (method, path));
            String::from_utf8(write.body.to_vec()).unwrap()
        };
        let body = check(Action::Create(pod()), "POST", "/api/v1/namespaces/ns/pods");
        assert!(body.contains("\"kind\":\"Pod\""));
        check(Action::UpdateStatus(pod()), "PUT", "/api/v1/namespaces/ns/pods/p/status");
        let target = Target { resource: Kind::Deployment.resource(), namespace: "ns".into(), name: "d".into() };
        let patch = Action::Patch { target: target.clone(), subresource: None, patch: json!({"a": 1}) };
        check(patch, "PATCH", "/apis/apps/v1/namespaces/ns/deployments/d");
        let delete = Action::Delete {
            target,
            preconditions: Preconditions { uid: Some("u".into()), resource_version: None },
            propagation: Some(Propagation::Background),
            grace_period_seconds: Some(0),
        };
        let body = check(delete, "DELETE", "/apis/apps/v1/namespaces/ns/deployments/d");
        let expect = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "u"},
            "propagationPolicy": "Background", "gracePeriodSeconds": 0
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expect);
        assert!(
            of(&Action::Tell(coracle_controllers::Note {
                regarding: Default::default(),
                type_: coracle_controllers::NoteType::Normal,
                reason: String::new(),
                message: String::new()
            }))
            .is_none()
        );
    }
}
