//! Images for containers: pulls under the pod's policy, and what the port says about the images on the node.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use coracle_agent_core::{
    credentials::Keyring,
    workload::{ImageInfo, PullFailure, PullPolicy, PullRequest, Report, ResolvedImage, Transfer, WorkloadError},
};
use coracle_artifact::ImageReference;
use tonic::Status;

use crate::{
    connection::{Connection, call, timed, words},
    container::Shared,
    content,
    cri::v1::{
        AuthConfig, Image, ImageFsInfoRequest, ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest,
        PullImageRequest, RemoveImageRequest,
    },
    network, own_pull,
    workload::{ImagesOnDisk, StoredImages, runtime_error},
};

/// The longest a pull may take; a runtime gives up a pull that makes no progress long before.
const PULL_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30 * 60);

/// Why an image is not there, with words for the user.
pub(crate) type Failure = (PullFailure, String);

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
    let reference: ImageReference = image
        .parse()
        .map_err(|error| (PullFailure::InvalidName, format!("couldn't parse image name {image:?}: {error}")))?;
    let connection = &shared.connection;
    let inspect = |status: Status| (PullFailure::Inspect, words(&status));
    let present = if request.policy == PullPolicy::Always {
        None
    } else {
        let logins = request.keyring.lookup(&reference.repository()).unwrap_or_default();
        // With a keyring that cannot be read a pull is tried, which says so.
        let may_use = |image: &Image| shared.puller.records().may_use(&image.id, &reference.repository(), &logins);
        find(connection, &reference.to_string()).await.map_err(inspect)?.filter(may_use)
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
    let found = fetched(shared, &reference, &request.keyring).await?;
    let transfer = Transfer { took: started.elapsed(), took_with_waiting: asked.elapsed() };
    Ok((resolved(&reference, &found), Some(transfer)))
}

/// Gets an image from its registry, by the runtime or past it.
async fn fetched(shared: &Shared, reference: &ImageReference, keyring: &Keyring) -> Result<Image, Failure> {
    let (connection, registries) = (&shared.connection, shared.puller.registries());
    // A keyring that cannot be read is so for every repository.
    let mut logins = keyring.lookup(&reference.repository()).map_err(|why| (PullFailure::Pull, why))?;
    let brought = !logins.is_empty();
    if shared.is_containerd() && registries.redirect(reference) {
        return own_pull::pull(shared, reference, keyring).await;
    }
    if !brought {
        logins.extend(registries.login(reference));
    }
    let (id, login) = fetch(connection, reference, logins).await?;
    let found = find(connection, &id).await.map_err(|status| (PullFailure::Inspect, words(&status)))?;
    let image = found.ok_or_else(|| (PullFailure::Inspect, format!("{id} vanished right after its pull")))?;
    let login = login.filter(|_| brought);
    record(shared, &image, reference, login).await;
    Ok(image)
}

/// Notes which login has opened an image; `None` opens it to everyone.
pub(crate) async fn record(
    shared: &Shared,
    image: &Image,
    reference: &ImageReference,
    login: Option<(String, String)>,
) {
    let (records, id, repository) = (shared.puller.records().clone(), image.id.clone(), reference.repository());
    let record = move || records.pulled(&id, &repository, login.as_ref());
    // It waits for the disk.
    let _ = tokio::task::spawn_blocking(record).await;
}

/// Pulls with each login, or without one where there is none, as the kubelet does.
async fn fetch(
    connection: &Connection,
    reference: &ImageReference,
    logins: Vec<(String, String)>,
) -> Result<(String, Option<(String, String)>), Failure> {
    let mut refused: Vec<Failure> = Vec::new();
    let anonymous = logins.is_empty().then_some(None);
    for login in logins.into_iter().map(Some).chain(anonymous) {
        let auth = login.clone().map(|(username, password)| AuthConfig { username, password, ..AuthConfig::default() });
        let image = ImageSpec { image: reference.to_string(), ..ImageSpec::default() };
        let request = PullImageRequest { image: Some(image), auth, sandbox_config: None };
        match connection.images().pull_image(timed(request, PULL_TIMEOUT)).await {
            Ok(answer) => return Ok((answer.into_inner().image_ref, login)),
            Err(status) => refused.push(failure(&status)),
        }
    }
    Err(together(refused))
}

/// What all the tries said, each once, as Go's aggregate of errors says it.
fn together(refused: Vec<Failure>) -> Failure {
    let kind = refused.last().map_or(PullFailure::Pull, |(kind, _)| *kind);
    let mut words: Vec<String> = Vec::new();
    for (_, message) in refused {
        if !words.contains(&message) {
            words.push(message);
        }
    }
    match words.as_slice() {
        [only] => (kind, only.clone()),
        all => (kind, format!("[{}]", all.join(", "))),
    }
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

pub(crate) fn info(image: Image) -> ImageInfo {
    ImageInfo {
        image_id: image.id,
        names: image.repo_digests.into_iter().chain(image.repo_tags).collect(),
        size_bytes: image.size,
        pinned: image.pinned,
    }
}

/// Pulls for whoever asks on the command line, with no pod's logins.
pub(crate) async fn pull_by_hand(shared: &Shared, name: &str) -> Result<ImageInfo, String> {
    let reference: ImageReference = name.parse().map_err(|error| format!("{name}: {error}"))?;
    let image = fetched(shared, &reference, &Keyring::default()).await.map_err(|(_, message)| message)?;
    Ok(info(image))
}

/// Takes a name from an image that has another; the last one takes the image with it, unless a container is made of it.
pub(crate) async fn remove_name(connection: &Connection, name: &str) -> Result<Option<u64>, WorkloadError> {
    let Some(image) = find(connection, name).await.map_err(runtime_error)? else { return Ok(None) };
    let mut others = image.repo_tags.iter().filter(|known| *known != name);
    if others.next().is_some() && image.repo_tags.iter().any(|known| known == name) {
        content::remove_name(connection, name).await.map_err(runtime_error)?;
        own_pull::unseen(connection, name).await.map_err(runtime_error)?;
        return Ok(Some(0));
    }
    if in_use(connection, &image.id).await.map_err(runtime_error)? {
        return Err(WorkloadError::ImageInUse(name.to_owned()));
    }
    remove(connection, &image.id).await.map_err(runtime_error)
}

/// Where the images are, and the room that they and the containers' layers take there.
pub(crate) async fn on_disk(
    connection: &Connection,
    request: tonic::Request<ImageFsInfoRequest>,
) -> Result<ImagesOnDisk, Status> {
    let files = connection.images().image_fs_info(request).await?.into_inner().image_filesystems;
    let found = files.into_iter().find_map(|usage| {
        Some(ImagesOnDisk {
            directory: usage.fs_id?.mountpoint.into(),
            bytes: usage.used_bytes.map_or(0, |bytes| bytes.value),
            inodes: usage.inodes_used.map(|inodes| inodes.value),
        })
    });
    found.ok_or_else(|| Status::internal("the runtime does not say where its images are"))
}

/// All that decides which images may go.
pub(crate) async fn stored(shared: &Shared) -> Result<StoredImages, Status> {
    let connection = &shared.connection;
    let directory = on_disk(connection, call(ImageFsInfoRequest {})).await?.directory;
    let mut images = list(connection).await?;
    let mut kept: BTreeSet<String> = BTreeSet::new();
    if shared.is_containerd() {
        kept.extend(content::kept_names(connection).await?);
    }
    // What sandboxes are made of is in no list of containers, and may be nowhere to be had.
    if let Some(sandbox) = network::sandbox_image(connection).await?
        && let Some(image) = find(connection, &sandbox).await?
    {
        kept.insert(image.id);
    }
    for image in &mut images {
        image.pinned |= kept.contains(&image.image_id) || image.names.iter().any(|name| kept.contains(name));
    }
    let containers = connection.runtime().list_containers(call(ListContainersRequest { filter: None })).await?;
    let mut names: BTreeSet<String> = BTreeSet::new();
    for container in containers.into_inner().containers {
        names.extend(
            [container.image_ref, container.image_id].into_iter().chain(container.image.map(|spec| spec.image)),
        );
    }
    let uses =
        |image: &&ImageInfo| names.contains(&image.image_id) || image.names.iter().any(|name| names.contains(name));
    let in_use = images.iter().filter(uses).map(|image| image.image_id.clone()).collect();
    Ok(StoredImages { directory, images, in_use })
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
