//! Images for containers: pulls under the pod's policy, and what the port says about the images on the node.

use std::{sync::Arc, time::Instant};

use coracle_agent_core::{
    credentials::Keyring,
    workload::{ImageInfo, PullFailure, PullPolicy, PullRequest, Report, ResolvedImage, Transfer},
};
use coracle_artifact::{Image, ImageReference, ImageStore, Pinned, PullError, Pulled, Puller};

use crate::reporter::Reporter;

/// Makes an image available and reports how it went.
pub(crate) async fn pull(store: Arc<ImageStore>, puller: Arc<Puller>, request: PullRequest, reporter: Reporter) {
    let asked = Instant::now();
    let key = request.key.clone();
    let fail = |failure, message| Report::PullFailed { key: key.clone(), failure, message };
    let report = match request.image.parse::<ImageReference>() {
        Err(error) => {
            let image = &request.image;
            fail(PullFailure::InvalidName, format!("couldn't parse image name {image:?}: {error}"))
        }
        Ok(reference) => match (usable(&store, &puller, &reference, &request.keyring), request.policy) {
            (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => {
                Report::Pulled { key: key.clone(), image: resolved(&reference, &image), transfer: None }
            }
            (None, PullPolicy::Never) => {
                let message = format!("Container image {:?} is not present with pull policy of Never", request.image);
                fail(PullFailure::NeverPull, message)
            }
            (_, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => {
                reporter.send(Report::Pulling { key: key.clone() });
                match pull_with(&puller, &reference, &request.keyring).await {
                    Ok(pulled) => {
                        let transfer = Transfer { took: pulled.took, took_with_waiting: asked.elapsed() };
                        let image = resolved(&reference, &pulled.image);
                        Report::Pulled { key: key.clone(), image, transfer: Some(transfer) }
                    }
                    Err((failure, message)) => fail(failure, message),
                }
            }
        },
    };
    reporter.send(report);
}

/// The image on the node, if the pod may use it without the registry being asked.
fn usable(store: &ImageStore, puller: &Puller, reference: &ImageReference, keyring: &Keyring) -> Option<Image> {
    let image = store.resolve(reference)?;
    let repository = reference.repository();
    // With a keyring that cannot be read a pull is tried, which says so.
    let logins = keyring.lookup(&repository).unwrap_or_default();
    puller.records().may_use(image.id.as_str(), &repository, &logins).then_some(image)
}

async fn pull_with(
    puller: &Puller,
    reference: &ImageReference,
    keyring: &Keyring,
) -> Result<Pulled, (PullFailure, String)> {
    // A keyring that cannot be read is so for every repository.
    keyring.lookup(&reference.repository()).map_err(|why| (PullFailure::Pull, why))?;
    let logins = |repository: &str| keyring.lookup(repository).unwrap_or_default();
    puller.pull(reference, &logins).await.map_err(|error| (failure(&error), error.to_string()))
}

fn failure(error: &PullError) -> PullFailure {
    match error.of_registry() {
        PullError::Unavailable { .. } => PullFailure::RegistryUnavailable,
        _ => PullFailure::Pull,
    }
}

/// The image as a pod's status shows it.
fn resolved(reference: &ImageReference, image: &Image) -> ResolvedImage {
    let at = reference.at(&image.id);
    let image_id = if image.repo_digests.contains(&at) { at } else { image.id.to_string() };
    ResolvedImage { name: reference.to_string(), image_id, size_bytes: image.size_bytes }
}

/// The image as the node's status shows it.
pub(crate) fn info(image: Image) -> ImageInfo {
    ImageInfo {
        image_id: image.id.to_string(),
        names: image.repo_digests.iter().chain(&image.names).cloned().collect(),
        size_bytes: image.size_bytes,
        pinned: image.pinned == Pinned::Yes,
    }
}
