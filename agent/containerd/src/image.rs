//! Images for containers: pulls under the pod's policy, and what the port says about the images on the node.

use std::{sync::Arc, time::Instant};

use coracle_agent_core::workload::{
    ImageInfo, PullFailure, PullPolicy, PullRequest, RegistryCredential, Report, ResolvedImage, Transfer,
};
use coracle_artifact::{Credential, ImageReference};
use tonic::Status;

use crate::{
    connection::{Connection, call, timed, words},
    container::Shared,
    cri::v1::{
        AuthConfig, Image, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest, PullImageRequest,
        RemoveImageRequest,
    },
};

/// The longest a pull may take; a runtime gives up a pull that makes no progress long before.
const PULL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30 * 60);

/// Why an image is not there, with words for the user.
type Failure = (PullFailure, String);

/// Makes an image available and reports how it went.
pub(crate) async fn pull(shared: Arc<Shared>, request: PullRequest) {
    let key = request.key.clone();
    let report = match available(&shared, &request).await {
        Ok((image, transfer)) => Report::Pulled { key, image, transfer },
        Err((failure, message)) => Report::PullFailed { key, failure, message },
    };
    shared.report(report).await;
}

async fn available(shared: &Shared, request: &PullRequest) -> Result<(ResolvedImage, Option<Transfer>), Failure> {
    let asked = Instant::now();
    let image = &request.image;
    let reference: ImageReference = image.parse().map_err(|error| {
        let words =
            format!("Failed to apply default image tag {image:?}: couldn't parse image name {image:?}: {error}");
        (PullFailure::InvalidName, words)
    })?;
    let connection = &shared.connection;
    let inspect = |status: Status| (PullFailure::Inspect, words(&status));
    let present = if request.policy == PullPolicy::Always {
        None
    } else {
        find(connection, &reference.to_string()).await.map_err(inspect)?
    };
    match (present, request.policy) {
        (Some(image), _) => return Ok((resolved(&reference, &image), None)),
        (None, PullPolicy::Never) => {
            let words = format!("Container image {image:?} is not present with pull policy of Never");
            return Err((PullFailure::NeverPull, words));
        }
        (None, PullPolicy::Always | PullPolicy::IfNotPresent) => {}
    }
    shared.report(Report::Pulling { key: request.key.clone() }).await;
    let started = Instant::now();
    let id = fetch(connection, &reference, &request.credentials).await.map_err(|status| failure(&status))?;
    let found = find(connection, &id).await.map_err(inspect)?;
    let found = found.ok_or_else(|| (PullFailure::Inspect, format!("{id} vanished right after its pull")))?;
    let transfer = Transfer { took: started.elapsed(), took_with_waiting: asked.elapsed() };
    Ok((resolved(&reference, &found), Some(transfer)))
}

/// Pulls with each credential that is meant for this image, then without any.
async fn fetch(
    connection: &Connection,
    reference: &ImageReference,
    credentials: &[RegistryCredential],
) -> Result<String, Status> {
    let mut refused = None;
    let fitting = credentials.iter().filter(|credential| fits(credential, reference)).map(|credential| AuthConfig {
        username: credential.username.clone(),
        password: credential.password.clone(),
        ..AuthConfig::default()
    });
    for auth in fitting.map(Some).chain([None]) {
        let image = ImageSpec { image: reference.to_string(), ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(image), auth, sandbox_config: None };
        match connection.images().pull_image(timed(request, PULL_TIMEOUT)).await {
            Ok(answer) => return Ok(answer.into_inner().image_ref),
            // Words about the first credential help more than those about the anonymous try.
            Err(status) => refused = refused.or(Some(status)),
        }
    }
    Err(refused.unwrap_or_else(|| Status::internal("no pull was tried")))
}

fn fits(credential: &RegistryCredential, reference: &ImageReference) -> bool {
    let registry = credential.registry.clone();
    Credential { registry, username: String::new(), password: String::new() }.fits(reference)
}

fn failure(status: &Status) -> Failure {
    let message = words(status);
    // The runtime has no code for it; these are the words of Go's dialer.
    let unreachable =
        ["connection refused", "no such host", "i/o timeout", "network is unreachable", "no route to host"];
    let kind = if unreachable.iter().any(|words| message.contains(words)) {
        PullFailure::RegistryUnavailable
    } else {
        PullFailure::Pull
    };
    (kind, message)
}

/// An image on the node, by any of its names.
pub(crate) async fn find(connection: &Connection, name: &str) -> Result<Option<Image>, Status> {
    let image = Some(ImageSpec { image: name.to_owned(), ..ImageSpec::default() });
    let request = call(ImageStatusRequest { image, verbose: false });
    Ok(connection.images().image_status(request).await?.into_inner().image)
}

/// The image as a pod's status shows it: by its digest in this repository, if it came from there.
fn resolved(reference: &ImageReference, image: &Image) -> ResolvedImage {
    let repository = format!("{}@", reference.repository());
    let own = image.repo_digests.iter().find(|digest| digest.starts_with(&repository));
    let image_id = own.or(image.repo_digests.first()).unwrap_or(&image.id).clone();
    ResolvedImage { name: reference.to_string(), image_id, size_bytes: image.size }
}

/// All images of the node.
pub(crate) async fn list(connection: &Connection) -> Result<Vec<ImageInfo>, Status> {
    let answer = connection.images().list_images(call(ListImagesRequest { filter: None })).await?;
    Ok(answer.into_inner().images.into_iter().map(info).collect())
}

fn info(image: Image) -> ImageInfo {
    ImageInfo {
        image_id: image.id,
        names: image.repo_digests.into_iter().chain(image.repo_tags).collect(),
        size_bytes: image.size,
        pinned: image.pinned,
        last_used: None,
    }
}

/// Whether a container was made of the image. Those that have ended count: they may be looked into.
pub(crate) async fn in_use(connection: &Connection, id: &str) -> Result<bool, Status> {
    let Some(image) = find(connection, id).await? else { return Ok(false) };
    let list = connection.runtime().list_containers(call(ListContainersRequest { filter: None })).await?;
    let uses = |name: &String| *name == image.id || image.repo_digests.contains(name) || image.repo_tags.contains(name);
    Ok(list.into_inner().containers.iter().any(|container| {
        uses(&container.image_ref) || uses(&container.image_id) || container.image.iter().any(|spec| uses(&spec.image))
    }))
}

/// Removes an image and answers its size.
pub(crate) async fn remove(connection: &Connection, id: &str) -> Result<Option<u64>, Status> {
    let Some(image) = find(connection, id).await? else { return Ok(None) };
    let spec = ImageSpec { image: image.id.clone(), ..ImageSpec::default() };
    connection.images().remove_image(call(RemoveImageRequest { image: Some(spec) })).await?;
    Ok(Some(image.size))
}
