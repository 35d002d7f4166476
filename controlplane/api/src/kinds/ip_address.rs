//! IPAddress: one address of a Service, taken.

use k8s_openapi::api::networking::v1::IPAddress;

use crate::kind::{Info, NameRule, Resource};

impl Resource for IPAddress {
    const INFO: Info = Info {
        short_names: &["ip"],
        name_rule: NameRule::PathSegment,
        ..Info::cluster("ipaddresses", "ipaddress")
    };
}
