//! The container runtime interface as Rust: written by `proto/` from the published definitions, never by hand.

#![allow(
    clippy::all,
    rustdoc::all,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "generated: what is not called is part of the interface all the same"
)]

/// `runtime.v1`: sandboxes, containers, images.
pub(crate) mod v1 {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/generated/runtime.v1.rs"));
}

/// containerd's own events.
pub(crate) mod events {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/generated/containerd.services.events.v1.rs"));
}

/// containerd's own content.
pub(crate) mod content {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/generated/containerd.services.content.v1.rs"));
}

/// containerd's own images.
pub(crate) mod images {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/generated/containerd.services.images.v1.rs"));
}

/// containerd's own leases.
pub(crate) mod leases {
    include!(concat!(env!("CARGO_MANIFEST_DIR"), "/generated/containerd.services.leases.v1.rs"));
}
