//! IPAddress: one address of a Service, taken.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::IPAddress;

use super::fields::text;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, NameRule, Resource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json};

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
        ..Info::cluster("ipaddresses", "ipaddress")
    };

    fn validate(&self, errors: &mut Errors) {
        let name = text(&self.metadata.name);
        let canonical = name.parse::<IpAddr>().is_ok_and(|ip| ip.to_string() == name);
        if !canonical {
            let at = Path::new("metadata");
            errors.invalid(&at.child("name"), name, "must be a valid IP address in canonical form");
        }
        let at = Path::new("spec");
        let at = at.child("parentRef");
        for (field, value) in [("resource", &self.spec.parent_ref.resource), ("name", &self.spec.parent_ref.name)] {
            if value.is_empty() {
                errors.required(&at.child(field), "");
            }
        }
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
