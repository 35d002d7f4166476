//! shell: Wasm images: names, the store on disk, pulls from OCI registries, imports from files. It checks digests and that a
//! file is a component; it never compiles or runs one.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod digest;
mod error;
mod import;
mod inspect;
mod manifest;
mod pull;
mod reference;
mod store;
mod tar;

pub use digest::Digest;
pub use error::{ArtifactError, PullError};
pub use inspect::{FileKind, inspect};
pub use pull::{Credential, PullOptions, Pulled, Puller};
pub use reference::{ImageReference, InvalidReference};
pub use store::{Image, ImageStore, Pinned, StoreLimits};
