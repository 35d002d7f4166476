//! IPAddress: one address of a Service, taken.

use k8s_openapi::api::networking::v1::IPAddress;

use super::fields::text;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, NameRule, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, dns1123_subdomain, json, path_segment, validate_canonical_ip};

impl Resource for IPAddress {
    const INFO: Info = Info {
        short_names: &["ip"],
        name_rule: NameRule::PathSegment,
        columns: &[
            Column::NAME,
            Column::text(
                "ParentRef",
                "ParentRef references the resource that an IPAddress is attached to. An IPAddress must reference a parent object.",
            ),
            Column::AGE,
        ],
        has_generation: true,
        ..Info::cluster("ipaddresses", "ipaddress")
    };

    fn spec_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn validate(&self, errors: &mut Errors) {
        let meta = Path::new("metadata");
        validate_canonical_ip(text(&self.metadata.name), &meta.child("name"), errors);
        let parent = &self.spec.parent_ref;
        let at = Path::new("spec");
        let at = at.child("parentRef");
        let group = text(&parent.group);
        if !group.is_empty() {
            errors.invalid_each(&at.child("group"), group, dns1123_subdomain(group));
        }
        for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
            if value.is_empty() {
                errors.required(&at.child(field), "");
            } else {
                errors.invalid_each(&at.child(field), value, path_segment(value));
            }
        }
        let namespace = text(&parent.namespace);
        errors.invalid_each(&at.child("namespace"), namespace, path_segment(namespace));
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.spec != old.spec {
            let at = Path::new("spec");
            errors.invalid(&at.child("parentRef"), json(&self.spec.parent_ref), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let p = &self.spec.parent_ref;
        let group = p.group.as_deref().filter(|g| !g.is_empty()).map(|g| format!(".{g}")).unwrap_or_default();
        let resource = format!("{}{group}", p.resource).to_lowercase();
        let parent = match text(&p.namespace) {
            "" => format!("{resource}/{}", p.name),
            namespace => format!("{resource}/{namespace}/{}", p.name),
        };
        vec![name_cell(&self.metadata), parent.into(), age_cell(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, update_faults};

    #[test]
    fn addresses() {
        let ip = |name: &str, parent: Value| json!({"metadata": {"name": name, "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"parentRef": parent}});
        let service = json!({"resource": "services", "name": "s", "namespace": "n"});
        let check = |ip: Value, expected: &[&str]| expect(&faults::<IPAddress>(ip), expected);
        check(ip("10.0.0.1", service.clone()), &[]);
        check(ip("2001:db8::1", service.clone()), &[]);
        check(
            ip("x", json!({"group": "G", "resource": "", "name": "a/b", "namespace": "."})),
            &[
                "metadata.name: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                "spec.parentRef.group: Invalid value: \"G\"",
                "spec.parentRef.resource: Required value",
                "spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'",
                "spec.parentRef.namespace: Invalid value: \".\": may not be '.'",
            ],
        );
        check(
            ip("2001:DB8::1", service.clone()),
            &["metadata.name: Invalid value: \"2001:DB8::1\": must be in canonical form (\"2001:db8::1\")"],
        );
        check(
            ip("::ffff:10.0.0.1", service.clone()),
            &["metadata.name: Invalid value: \"::ffff:10.0.0.1\": must not be an IPv4-mapped IPv6 address"],
        );
        let other = json!({"group": "a.io", "resource": "Gates", "name": "g"});
        expect(
            &update_faults::<IPAddress>(ip("10.0.0.1", service.clone()), ip("10.0.0.1", other.clone())),
            &[
                "spec.parentRef: Invalid value: {\"group\":\"a.io\",\"name\":\"g\",\"resource\":\"Gates\"}: field is immutable",
            ],
        );
        assert_eq!(row::<IPAddress>(ip("10.0.0.1", service)), "10.0.0.1|services/n/s|5m");
        assert_eq!(row::<IPAddress>(ip("10.0.0.1", other)), "10.0.0.1|gates.a.io/g|5m");
    }
}
