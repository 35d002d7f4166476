//! Images of archives, put into containerd. CRI has no import; containerd's own services take them over the same socket in
//! every version, where its program `ctr` need not be installed and its transfer service came with 1.7 only.

use coracle_agent_core::workload::ImageInfo;
use coracle_artifact::{Archive, ArchivedImage, ArtifactError, Digest};
use tonic::Status;

use crate::{
    connection::words,
    container::Shared,
    content::{Copied, CopyError, Keep, Source, Store},
    image::{find, info},
    own_pull::seen,
};

/// Why an image was not imported, in words for the user.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The runtime takes images from registries only.
    #[error("the container runtime of this node is {0}: its images can be pulled, not imported")]
    OtherRuntime(String),
    /// The archive is damaged, or has nothing for this machine.
    #[error(transparent)]
    Archive(#[from] ArtifactError),
    /// The runtime does not take it.
    #[error("{0}")]
    Runtime(String),
}

impl From<CopyError> for ImportError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Archive(error) => Self::Archive(error),
            error => Self::Runtime(error.to_string()),
        }
    }
}

impl From<Status> for ImportError {
    fn from(status: Status) -> Self {
        Self::Runtime(format!("containerd does not take it: {}", words(&status)))
    }
}

pub(crate) async fn import(
    shared: &Shared,
    archive: &Archive,
    images: &[ArchivedImage],
) -> Result<Vec<ImageInfo>, ImportError> {
    if !shared.is_containerd() {
        return Err(ImportError::OtherRuntime(shared.scheme.clone()));
    }
    let mut imported = Vec::new();
    for image in images {
        let store = Store::open(&shared.connection).await?;
        let named = add(&store, archive, image).await;
        store.close().await;
        let id = named?;
        for name in &image.names {
            seen(shared, &name.to_string(), &id).await.map_err(|(_, message)| ImportError::Runtime(message))?;
        }
        if let Some(first) = image.names.first() {
            imported.extend(find(&shared.connection, &first.to_string()).await?.map(info));
        }
    }
    Ok(imported)
}

async fn add(store: &Store, archive: &Archive, image: &ArchivedImage) -> Result<Digest, ImportError> {
    let Copied { target, id } = store.copy(&Source::Archive(archive), &archive.document(&image.digest)?).await?;
    for name in &image.names {
        store.name(&name.to_string(), &target, Keep::Yes).await?;
    }
    Ok(id)
}

/// Says what of the registries' file a runtime cannot be told: nothing of it is passed over in silence.
pub(crate) fn warn_of_registries(shared: &Shared) {
    let names = shared.puller.registries().redirected();
    if !shared.is_containerd() && !names.is_empty() {
        tracing::warn!(
            runtime = shared.scheme,
            registries = names.join(", "),
            "mirrors and certificates of these registries apply to components only: this runtime pulls OCI images by its own \
             configuration, where they must be said too; logins apply"
        );
    }
}
