//! ServiceCIDR: a range of addresses for Services.

use k8s_openapi::api::networking::v1::ServiceCIDR;

use super::fields::list;
use super::meta::{age_cell, name_cell, spec_and_status};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};
use crate::validation::{Errors, IMMUTABLE, Path, json, one_per_family, validate_canonical_cidr};

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
        has_generation: true,
        ..Info::cluster("servicecidrs", "servicecidr")
    };

    spec_and_status!();

    fn validate(&self, errors: &mut Errors) {
        let at = Path::new("spec");
        let at = at.child("cidrs");
        let cidrs = self.spec.as_ref().map(|s| list(&s.cidrs)).unwrap_or_default();
        match cidrs.len() {
            0 => return errors.required(&at, "at least one CIDR required"),
            1 | 2 => {}
            _ => return errors.invalid(&at, json(&self.spec), "may only hold up to 2 values"),
        }
        let ips: Vec<_> = cidrs
            .iter()
            .enumerate()
            .filter_map(|(i, cidr)| validate_canonical_cidr(cidr, &at.index(i), errors))
            .collect();
        if ips.len() == 2 && !one_per_family(&ips) {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.invalid(&at, json(&cidrs), why);
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut Errors) {
        let cidrs = |of: &Self| of.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
        let (new, old) = (cidrs(self), cidrs(old));
        let at = Path::new("spec");
        let at = at.child("cidrs");
        // A range of the other family may be added.
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            return errors.invalid(&at, json(&new), IMMUTABLE);
        }
        for (i, (new, _)) in new.iter().zip(&old).enumerate().filter(|(_, (new, old))| new != old) {
            errors.invalid(&at.index(i), new, IMMUTABLE);
        }
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let cidrs = self.spec.as_ref().map(|s| list(&s.cidrs)).unwrap_or_default();
        vec![name_cell(&self.metadata), cidrs.join(",").into(), age_cell(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row, update_faults};

    #[test]
    fn ranges() {
        let range = |cidrs: Value| json!({"metadata": {"name": "r", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"cidrs": cidrs}});
        let check = |cidrs: Value, expected: &[&str]| expect(&faults::<ServiceCIDR>(range(cidrs)), expected);
        check(json!(["10.0.0.0/16", "fd00::/64"]), &[]);
        check(json!([]), &["spec.cidrs: Required value: at least one CIDR required"]);
        check(
            json!(["10.0.0.0/16", "fd00::/64", "11.0.0.0/16"]),
            &[
                "spec.cidrs: Invalid value: {\"cidrs\":[\"10.0.0.0/16\",\"fd00::/64\",\"11.0.0.0/16\"]}: may only hold up to 2 values",
            ],
        );
        check(
            json!(["10.0.0.1/16", "x"]),
            &[
                "spec.cidrs[0]: Invalid value: \"10.0.0.1/16\": must not have bits set beyond the prefix length",
                "spec.cidrs[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ],
        );
        check(
            json!(["10.0.0.0/16", "11.0.0.0/16"]),
            &[
                "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"11.0.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            ],
        );
        let change = |old: Value, new: Value, expected: &[&str]| {
            expect(&update_faults::<ServiceCIDR>(range(old), range(new)), expected);
        };
        change(json!(["10.0.0.0/16"]), json!(["10.0.0.0/16", "fd00::/64"]), &[]);
        change(
            json!(["10.0.0.0/16"]),
            json!(["11.0.0.0/16", "fd00::/64"]),
            &["spec.cidrs[0]: Invalid value: \"11.0.0.0/16\": field is immutable"],
        );
        change(
            json!(["10.0.0.0/16", "fd00::/64"]),
            json!(["10.0.0.0/16"]),
            &["spec.cidrs: Invalid value: [\"10.0.0.0/16\"]: field is immutable"],
        );
        assert_eq!(row::<ServiceCIDR>(range(json!(["10.0.0.0/16", "fd00::/64"]))), "r|10.0.0.0/16,fd00::/64|5m");
    }
}
