//! ServiceCIDR: a range of addresses for Services.

use k8s_openapi::api::networking::v1::ServiceCIDR;

use super::fields::list;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json, one_per_family, validate_cidr};

impl Resource for ServiceCIDR {
    const INFO: Info = Info {
        subresources: &[Subresource::Status],
        columns: &[
            Column::NAME,
            Column::text(
                "CIDRs",
                "CIDRs defines the IP blocks in CIDR notation (e.g. \"192.168.0.0/24\" or \"2001:db8::/64\") from which to assign service cluster IPs.",
            ),
            Column::AGE,
        ],
        ..Info::cluster("servicecidrs", "servicecidr")
    };

    fn prepare_create(&mut self) {
        self.status = Some(Default::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let at = at.child("cidrs");
        let cidrs = self.spec.as_ref().map(|s| list(&s.cidrs)).unwrap_or_default();
        match cidrs.len() {
            0 => errors.required(&at, "at least one CIDR required"),
            1 | 2 => {}
            _ => errors.invalid(&at, json(&cidrs), "may only hold up to 2 values"),
        }
        let ips: Vec<_> =
            cidrs.iter().enumerate().filter_map(|(i, cidr)| validate_cidr(cidr, &at.index(i), errors)).collect();
        if ips.len() == 2 && !one_per_family(&ips) {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            errors.invalid(&at, json(&cidrs), why);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        if self.spec != old.spec {
            let at = Path::new("spec");
            errors.invalid(&at.child("cidrs"), json(&self.spec.as_ref().and_then(|s| s.cidrs.as_ref())), IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let cidrs = self.spec.as_ref().map(|s| list(&s.cidrs)).unwrap_or_default();
        vec![name_cell(&self.metadata), cidrs.join(",").into(), age_cell(&self.metadata, now)]
    }
}
