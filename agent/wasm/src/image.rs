//! Images for containers: pulls under the pod's policy, and what the port says about the images on the node.

use std::{sync::Arc, time::Instant};

use coracle_agent_core::workload::{
    ImageInfo, PullFailure, PullPolicy, PullRequest, RegistryCredential, Report, ResolvedImage, Transfer,
};
use coracle_artifact::{Credential, Image, ImageReference, ImageStore, Pinned, PullError, Puller};
use jiff::Timestamp;

use crate::reporter::Reporter;

/// Makes an image available and reports how it went.
pub(crate) async fn pull(store: Arc<ImageStore>, puller: Arc<Puller>, request: PullRequest, reporter: Reporter) {
    let asked = Instant::now();
    let key = request.key.clone();
    let fail = |failure, message| Report::PullFailed { key: key.clone(), failure, message };
    let report = match request.image.parse::<ImageReference>() {
        Err(error) => {
            let image = &request.image;
            let message =
                format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {error}");
            fail(PullFailure::InvalidName, message)
        }
        Ok(reference) => match (store.resolve(&reference), request.policy) {
            (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => {
                Report::Pulled { key: key.clone(), image: resolved(&reference, &image), transfer: None }
            }
            (None, PullPolicy::Never) => {
                let message = format!("Container image {:?} is not present with pull policy of Never", request.image);
                fail(PullFailure::NeverPull, message)
            }
            (_, PullPolicy::Always) | (None, PullPolicy::IfNotPresent) => {
                reporter.send(Report::Pulling { key: key.clone() });
                let credentials: Vec<Credential> = request.credentials.iter().map(credential).collect();
                match puller.pull(&reference, &credentials).await {
                    Ok(pulled) => {
                        let transfer = Transfer { took: pulled.took, took_with_waiting: asked.elapsed() };
                        let image = resolved(&reference, &pulled.image);
                        Report::Pulled { key: key.clone(), image, transfer: Some(transfer) }
                    }
                    Err(error) => fail(failure(&error), error.to_string()),
                }
            }
        },
    };
    reporter.send(report);
}

fn failure(error: &PullError) -> PullFailure {
    match error {
        PullError::Unavailable { .. } => PullFailure::RegistryUnavailable,
        _ => PullFailure::Pull,
    }
}

fn credential(credential: &RegistryCredential) -> Credential {
    Credential {
        registry: credential.registry.clone(),
        username: credential.username.clone(),
        password: credential.password.clone(),
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
        last_used: i64::try_from(image.last_used_seconds).ok().and_then(|at| Timestamp::from_second(at).ok()),
    }
}
