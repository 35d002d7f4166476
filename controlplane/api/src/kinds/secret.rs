//! Secret: bytes by key, 1 MiB at most, whose type demands keys.

use k8s_openapi::api::core::v1::Secret;

use crate::kind::{Info, Resource};

impl Resource for Secret {
    const INFO: Info = Info {
        selectable_fields: &["type"],
        ..Info::namespaced("secrets", "secret")
    };
}
