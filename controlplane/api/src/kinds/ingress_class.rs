//! IngressClass: which controller serves which Ingress.

use k8s_openapi::api::networking::v1::IngressClass;

use super::fields::text;
use super::ingress::validate_reference;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_label, dns1123_subdomain};

/// The longest name of a controller, in bytes.
const CONTROLLER_MAX: usize = 250;

impl Resource for IngressClass {
    const INFO: Info = Info {
        columns: &[
            Column::NAME,
            Column::text("Controller", "Controller that is responsible for handling this class"),
            Column::text("Parameters", "A reference to a resource with additional parameters"),
            Column::AGE,
        ],
        has_generation: true,
        is_acted_on: false,
        ..Info::cluster("ingressclasses", "ingressclass")
    };

    fn apply_defaults(&mut self) {
        if let Some(parameters) = self.spec.as_mut().and_then(|s| s.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let empty = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let at = Path::new("spec");
        let controller = text(&spec.controller);
        if controller.len() > CONTROLLER_MAX {
            errors.too_long(&at.child("controller"), CONTROLLER_MAX);
        }
        validate_prefixed_path(controller, &at.child("controller"), errors);
        let Some(parameters) = &spec.parameters else { return };
        let at = at.child("parameters");
        validate_reference(parameters.api_group.as_ref(), &parameters.kind, &parameters.name, &at, errors);
        match (text(&parameters.scope), &parameters.namespace) {
            ("", _) => errors.required(&at.child("scope"), ""),
            ("Namespace", None) => {
                errors.required(&at.child("namespace"), "`parameters.scope` is set to 'Namespace'");
            }
            ("Cluster", Some(_)) => {
                errors.forbidden(&at.child("namespace"), "`parameters.scope` is set to 'Cluster'");
            }
            ("Namespace", Some(name)) => errors.invalid_each(&at.child("namespace"), name, dns1123_label(name)),
            ("Cluster", None) => {}
            (other, _) => errors.not_supported(&at.child("scope"), other, &["Cluster", "Namespace"]),
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let controller = |class: &Self| class.spec.as_ref().map(|s| text(&s.controller).to_owned()).unwrap_or_default();
        if controller(self) != controller(old) {
            let at = Path::new("spec");
            errors.invalid(&at.child("controller"), controller(self), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let spec = self.spec.as_ref();
        let parameters = spec.and_then(|s| s.parameters.as_ref()).map_or_else(
            || "<none>".to_owned(),
            |p| {
                let group = p.api_group.as_ref().map(|g| format!(".{g}")).unwrap_or_default();
                format!("{}{group}/{}", p.kind, p.name)
            },
        );
        vec![
            name_cell(&self.metadata),
            spec.map(|s| text(&s.controller)).unwrap_or_default().into(),
            parameters.into(),
            age_cell(&self.metadata, now),
        ]
    }
}

/// `example.com/path` (`IsDomainPrefixedPath`).
fn validate_prefixed_path(value: &str, at: &Path<'_>, errors: &mut Errors) {
    if value.is_empty() {
        errors.required(at, "");
        return;
    }
    match value.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            errors.invalid_each(at, host, dns1123_subdomain(host));
            let bad = |b: u8| !b.is_ascii_alphanumeric() && !b"/-._~!$&'()*+,;=:@%".contains(&b);
            if path.bytes().any(bad) {
                errors.invalid(
                    at,
                    path,
                    "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                );
            }
        }
        _ => errors.invalid(at, value, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, expect, faults, row, update_faults};

    #[test]
    fn classes() {
        let class =
            |spec: Value| json!({"metadata": {"name": "c", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec});
        let with_parameters = |parameters: Value| class(json!({"controller": "a.io/b", "parameters": parameters}));
        let made: IngressClass = created(with_parameters(json!({"kind": "K", "name": "p"})));
        assert_eq!(made.spec.unwrap().parameters.unwrap().scope.as_deref(), Some("Cluster"));
        let check = |class: Value, expected: &[&str]| expect(&faults::<IngressClass>(class), expected);
        check(class(json!({"controller": "a.io/b"})), &[]);
        check(class(json!({})), &["spec.controller: Required value"]);
        check(
            class(json!({"controller": "A.io/b c"})),
            &[
                "spec.controller: Invalid value: \"A.io\"",
                "spec.controller: Invalid value: \"b c\": Invalid path (regex used for validation is",
            ],
        );
        check(
            class(json!({"controller": "a"})),
            &["spec.controller: Invalid value: \"a\": must be a domain-prefixed path (such as \"acme.io/foo\")"],
        );
        check(
            class(json!({"controller": format!("a.io/{}", "x".repeat(250))})),
            &["spec.controller: Too long: may not be more than 250 bytes"],
        );
        check(
            with_parameters(json!({"apiGroup": "G", "kind": "", "name": "a/b", "scope": "Galaxy"})),
            &[
                "spec.parameters.apiGroup: Invalid value: \"G\"",
                "spec.parameters.kind: Required value",
                "spec.parameters.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.parameters.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespace\"",
            ],
        );
        let scoped = |scope: &str, namespace: Value| {
            with_parameters(json!({"kind": "K", "name": "p", "scope": scope, "namespace": namespace}))
        };
        check(
            scoped("Namespace", json!(null)),
            &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        );
        check(scoped("Namespace", json!("N")), &["spec.parameters.namespace: Invalid value: \"N\""]);
        check(
            scoped("Cluster", json!("n")),
            &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        );
        expect(
            &update_faults::<IngressClass>(
                class(json!({"controller": "a.io/b"})),
                class(json!({"controller": "a.io/c"})),
            ),
            &["spec.controller: Invalid value: \"a.io/c\": field is immutable"],
        );
        assert_eq!(row::<IngressClass>(class(json!({"controller": "a.io/b"}))), "c|a.io/b|<none>|5m");
        assert_eq!(
            row::<IngressClass>(with_parameters(json!({"apiGroup": "g", "kind": "K", "name": "p"}))),
            "c|a.io/b|K.g/p|5m"
        );
    }
}
