//! The images of both sorts as the command line sees them: a name belongs to whichever runtime has it.

use coracle_agent_containerd::{ImagesOnDisk, StoredImages};
use coracle_agent_core::workload::{ImageInfo, Workload, WorkloadError};
use coracle_artifact::{Archive, ArchivedImage, ImageReference, PullError};

use super::Runtimes;

/// What a pull by hand gave.
pub(crate) enum Pulled {
    Component(coracle_artifact::Image),
    Container(ImageInfo),
}

impl Runtimes {
    /// What each runtime has in images.
    pub(crate) async fn stored_images(&self) -> Result<Vec<StoredImages>, WorkloadError> {
        let wasm = &self.inner.wasm;
        let mut all = vec![StoredImages {
            directory: wasm.image_store().directory().to_owned(),
            images: wasm.images().await?,
            in_use: wasm.images_in_use(),
        }];
        if let Some(oci) = self.oci() {
            all.push(oci.stored_images().await?);
        }
        Ok(all)
    }

    /// The room that images take: with the container runtime, as the kubelet tells it; with our own where there is none.
    pub(crate) async fn images_on_disk(&self) -> Result<ImagesOnDisk, WorkloadError> {
        if let Some(oci) = self.oci() {
            return oci.images_on_disk().await;
        }
        let wasm = &self.inner.wasm;
        let bytes = wasm.images().await?.iter().map(|image| image.size_bytes).sum();
        Ok(ImagesOnDisk { directory: wasm.image_store().directory().to_owned(), bytes, inodes: None })
    }

    /// The images of the container runtime; none where there is none, or while it is away.
    pub(crate) async fn container_images(&self) -> Vec<ImageInfo> {
        match self.oci() {
            Some(oci) => oci.images().await.unwrap_or_default(),
            None => Vec::new(),
        }
    }

    /// Whether images for containers can be kept here; why not, in words for the user.
    pub(crate) fn takes_containers(&self) -> Result<(), String> {
        let without = "this node has no container runtime, and the file holds images for containers: \
                       `coracle check` tells how to get one";
        self.oci().map(drop).ok_or_else(|| without.to_owned())
    }

    /// Puts images of an archive into the container runtime.
    pub(crate) async fn import(&self, archive: &Archive, images: &[ArchivedImage]) -> Result<Vec<ImageInfo>, String> {
        let Some(oci) = self.oci() else { return self.takes_containers().map(|()| Vec::new()) };
        oci.import(archive, images).await.map_err(|error| error.to_string())
    }

    /// Pulls what the name means: a component, or else an image for containers.
    pub(crate) async fn pull_by_hand(&self, reference: &ImageReference) -> Result<Pulled, String> {
        let wasm = &self.inner.wasm;
        let error = match wasm.puller().pull(reference, &|_| Vec::new()).await {
            Ok(pulled) => return Ok(Pulled::Component(pulled.image)),
            Err(error) => error,
        };
        match self.oci() {
            // The container runtime may know another way to a registry that did not answer here.
            Some(oci)
                if !matches!(
                    error,
                    PullError::Artifact { source: coracle_artifact::ArtifactError::TooBig { .. }, .. }
                ) =>
            {
                oci.pull(&reference.to_string()).await.map(Pulled::Container)
            }
            _ => Err(error.to_string()),
        }
    }

    /// Takes a name, or the image if it has no other, out of the container runtime; `None` when it has none of this name.
    pub(crate) async fn remove_container_image(&self, name: &str) -> Result<Option<u64>, WorkloadError> {
        match self.oci() {
            Some(oci) => oci.remove_name(name).await,
            None => Ok(None),
        }
    }
}
