//! shell: images: names, registries and how they are reached, archives; and the store of Wasm images on disk. It checks digests
//! and that a file is a component; it never compiles or runs one, and keeps no image for containers.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod archive;
mod digest;
mod error;
mod import;
mod inspect;
mod manifest;
mod oci;
mod pull;
mod records;
mod reference;
mod registries;
mod store;
mod tar;

pub use archive::{Archive, ArchivedImage};
pub use digest::Digest;
pub use error::{ArtifactError, PullError};
pub use import::Contents;
pub use inspect::{FileKind, inspect};
pub use oci::{Content, Document, Part};
pub use pull::{Blob, Logins, PullOptions, Pulled, Puller, Remote, Search};
pub use records::PullRecords;
pub use reference::{ImageReference, InvalidReference};
pub use registries::{Registries, RegistriesError};
pub use store::{Image, ImageStore, Pinned, StoreLimits};
