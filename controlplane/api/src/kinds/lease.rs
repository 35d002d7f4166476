//! Lease: a claim that is renewed, for leaders and heartbeats.

use k8s_openapi::api::coordination::v1::Lease;

use crate::kind::{Info, Resource};

impl Resource for Lease {
    const INFO: Info = Info {
        create_on_update: true,
        ..Info::namespaced("leases", "lease")
    };
}
