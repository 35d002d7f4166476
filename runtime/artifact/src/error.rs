//! What can go wrong with images, by what the caller can do about it.

use std::{io, path::PathBuf};

use crate::Digest;

/// An error of the store or of an import.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The file is not a component, or the image holds none.
    #[error("{0}")]
    NotAComponent(String),
    /// The bytes are not those that were promised.
    #[error("{what} has the digest {found}, not {expected}: it is damaged")]
    DigestMismatch {
        /// Which blob.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// Bigger than the node takes.
    #[error("{what} has {bytes} bytes, more than the limit of {limit}")]
    TooBig {
        /// Which blob.
        what: String,
        /// Its size, as far as it is known.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An archive or a manifest that cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// There is no such image.
    #[error("no such image: {0}")]
    NotFound(String),
    /// The disk failed.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ArtifactError {
    /// For `map_err` on file operations.
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

/// Why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry has no such image.
    #[error("failed to resolve reference {reference:?}: {reference}: not found")]
    NotFound {
        /// The full name.
        reference: String,
    },
    /// The registry wants other credentials, or hides what these may not see.
    #[error(
        "failed to resolve reference {reference:?}: pull access denied, repository does not exist or may require authorization: {message}"
    )]
    Denied {
        /// The full name.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// The registry cannot be reached now.
    #[error("failed to resolve reference {reference:?}: {message}")]
    Unavailable {
        /// The full name.
        reference: String,
        /// Why.
        message: String,
    },
    /// The registry's answer makes no sense.
    #[error("failed to pull {reference:?}: {message}")]
    Registry {
        /// The full name.
        reference: String,
        /// What was wrong.
        message: String,
    },
    /// The image came and cannot be kept.
    #[error("failed to pull {reference:?}: {source}")]
    Artifact {
        /// The full name.
        reference: String,
        /// Why.
        source: ArtifactError,
    },
    /// Neither the registry nor any of its mirrors gives it.
    #[error("{source} (and before that {mirrors})")]
    Everywhere {
        /// How it failed at the registry itself.
        source: Box<PullError>,
        /// What the mirrors said.
        mirrors: String,
    },
}

impl PullError {
    /// How the pull failed at the registry itself.
    pub fn of_registry(&self) -> &Self {
        match self {
            Self::Everywhere { source, .. } => source,
            error => error,
        }
    }
}
