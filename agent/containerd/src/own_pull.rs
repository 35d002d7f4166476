//! Pulls past the runtime, for images whose registry `registries.yaml` says something of. CRI names no mirrors and no
//! certificates. containerd reads them from the folder of its `config_path`, which is off in its default configuration, belongs
//! to whoever runs containerd and not to us, knows no rewrites, and gives one login of a pull to every mirror. So such an image is
//! fetched by the same code as a component, and put into containerd's store.

use std::time::Duration;

use coracle_agent_core::{credentials::Keyring, workload::PullFailure};
use coracle_artifact::{ArtifactError, Digest, ImageReference, PullError, Search};
use tonic::{Code, Status};

use crate::{
    connection::{Connection, words},
    container::Shared,
    content::{Copied, CopyError, Keep, Source, Store},
    cri::v1::Image,
    image::{Failure, find, record},
};

/// How long containerd's CRI part may take to learn of an image: it is told by an event.
const SEEN: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(200);

/// Pulls an image and answers it as CRI knows it then.
pub(crate) async fn pull(shared: &Shared, reference: &ImageReference, keyring: &Keyring) -> Result<Image, Failure> {
    let logins = |repository: &str| keyring.lookup(repository).unwrap_or_default();
    let mut search = shared.puller.search(reference, &logins).await.map_err(failure)?;
    loop {
        match attempt(shared, &search, reference).await {
            Ok(id) => {
                let image = seen(shared, &reference.to_string(), &id).await?;
                record(shared, &image, reference, search.login().cloned()).await;
                return Ok(image);
            }
            Err(CopyError::Pull(error)) => search.failed(error).map_err(failure)?,
            Err(error) => {
                return Err((PullFailure::Pull, format!("failed to pull {:?}: {error}", reference.to_string())));
            }
        }
    }
}

async fn attempt(shared: &Shared, search: &Search<'_>, reference: &ImageReference) -> Result<Digest, CopyError> {
    let remote = search.log_in().await?;
    let (digest, json) = remote.manifest(None).await?;
    let store = Store::open(&shared.connection).await?;
    let named = async {
        let Copied { target, id } = store.copy(&Source::Remote(&remote), &json).await?;
        // The digest first: whoever finds the tag finds both.
        store.name(&reference.at(&digest), &target, Keep::No).await?;
        store.name(&reference.to_string(), &target, Keep::No).await?;
        Ok(id)
    };
    let named = named.await;
    store.close().await;
    named.map_err(|error| of_place(error, reference))
}

/// An error that another place may not have: a document or a blob is not what it should be.
fn of_place(error: CopyError, reference: &ImageReference) -> CopyError {
    let source = match error {
        CopyError::Archive(source) => source,
        // A commit that was refused: size or digest differ.
        CopyError::Store(status) if status.code() == Code::FailedPrecondition => {
            ArtifactError::Malformed(words(&status))
        }
        error => return error,
    };
    CopyError::Pull(PullError::Artifact { reference: reference.to_string(), source })
}

/// Waits until CRI knows the image of this id by this name, which may have been another's before.
pub(crate) async fn seen(shared: &Shared, name: &str, id: &Digest) -> Result<Image, Failure> {
    let inspect = |message: String| (PullFailure::Inspect, message);
    let until = tokio::time::Instant::now() + SEEN;
    let mut pause = LOOK;
    loop {
        let image = find(&shared.connection, name).await.map_err(|status| inspect(words(&status)))?;
        match image.filter(|image| image.id == id.as_str()) {
            Some(image) => return Ok(image),
            None if tokio::time::Instant::now() >= until => {
                return Err(inspect(format!("containerd does not tell of {name}, which it has taken")));
            }
            None => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(LOOK_MAX);
    }
}

/// Waits until CRI knows no image of this name.
pub(crate) async fn unseen(connection: &Connection, name: &str) -> Result<(), Status> {
    let until = tokio::time::Instant::now() + SEEN;
    let mut pause = LOOK;
    while find(connection, name).await?.is_some() && tokio::time::Instant::now() < until {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_MAX);
    }
    Ok(())
}

fn failure(error: PullError) -> Failure {
    let kind = match error.of_registry() {
        PullError::Unavailable { .. } => PullFailure::RegistryUnavailable,
        _ => PullFailure::Pull,
    };
    (kind, error.to_string())
}
