//! Pulls images from OCI registries: at each of their places, with each login in the order given; digests and sizes are checked;
//! one pull of a reference at a time. It keeps no tokens, so that no pod profits from another one's credentials.

mod registry;
mod search;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::{Client, ClientBuilder};

pub use self::{
    registry::Blob,
    search::{Remote, Search},
};
use crate::{
    ArtifactError, Digest, Image, ImageReference, ImageStore, PullError, PullRecords, Registries,
    manifest::{ComponentLayer, Manifest},
    store::{Incoming, Pinned},
};

/// Pulls at once; more wait.
const MAX_PULLS: usize = 8;

/// How long a registry may take to answer, and to send the next bytes.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A login: user name and password.
pub(crate) type Login = (String, String);

/// The logins to try for a repository (`ghcr.io/team/hello`), in order; none is without a login.
pub type Logins<'a> = dyn Fn(&str) -> Vec<(String, String)> + Send + Sync + 'a;

/// How to reach registries.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Mirrors, logins and certificates.
    pub registries: Arc<Registries>,
}

/// A finished pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Time from its turn to its end.
    pub took: Duration,
}

/// Pulls images into a store.
#[derive(Debug)]
pub struct Puller {
    store: Arc<ImageStore>,
    options: PullOptions,
    records: Arc<PullRecords>,
    /// The client for hosts of which nothing is said, from its first use.
    client: OnceLock<Client>,
    permits: tokio::sync::Semaphore,
    under_way: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

/// What a client has whatever host it is for.
pub(crate) fn client() -> ClientBuilder {
    // The client takes the process' provider; somebody else may have set it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("coracle/", env!("CARGO_PKG_VERSION"));
    Client::builder().connect_timeout(TIMEOUT).read_timeout(TIMEOUT).user_agent(agent)
}

impl Puller {
    /// A puller into `store`.
    pub fn new(store: Arc<ImageStore>, options: PullOptions, records: PullRecords) -> Self {
        let permits = tokio::sync::Semaphore::new(MAX_PULLS);
        Self {
            store,
            options,
            records: Arc::new(records),
            client: OnceLock::new(),
            permits,
            under_way: Mutex::new(HashMap::new()),
        }
    }

    /// Which logins opened the images of this node.
    pub fn records(&self) -> &Arc<PullRecords> {
        &self.records
    }

    /// What is said of registries.
    pub fn registries(&self) -> &Registries {
        &self.options.registries
    }

    /// Asks for the image and fetches what the store does not have of it. It must be a component.
    pub async fn pull(&self, reference: &ImageReference, logins: &Logins<'_>) -> Result<Pulled, PullError> {
        let mut search = self.search(reference, logins).await?;
        let start = Instant::now();
        loop {
            let tried = async { Fetch { remote: search.log_in().await?, reference, store: &self.store }.run().await };
            match tried.await {
                Ok(image) => {
                    let (records, id, repository) = (self.records.clone(), image.id.clone(), reference.repository());
                    let login = search.login().cloned();
                    let record = move || {
                        records.pulled(id.as_str(), &repository, login.as_ref());
                        Ok(())
                    };
                    let kept = blocking(record).await;
                    kept.map_err(|source| PullError::Artifact { reference: reference.to_string(), source })?;
                    return Ok(Pulled { image, took: start.elapsed() });
                }
                Err(error) => search.failed(error)?,
            }
        }
    }

    /// Waits for the turn of a pull and begins to look for its image.
    pub async fn search<'a>(
        &'a self,
        reference: &'a ImageReference,
        logins: &Logins<'_>,
    ) -> Result<Search<'a>, PullError> {
        let turn = self.turn(reference).lock_owned().await;
        let unavailable =
            |message: &str| PullError::Unavailable { reference: reference.to_string(), message: message.into() };
        let permit = self.permits.acquire().await.map_err(|_| unavailable("the node is shutting down"))?;
        let failed = |message: String| PullError::Registry { reference: reference.to_string(), message };
        let endpoints = self.options.registries.endpoints(reference).map_err(failed)?;
        let limit = self.store.limits().max_manifest_bytes;
        Ok(Search::new(reference, endpoints, logins, self.client(reference)?, limit).holding(turn, permit))
    }

    fn client(&self, reference: &ImageReference) -> Result<&Client, PullError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let failed = |error: reqwest::Error| PullError::Registry {
            reference: reference.to_string(),
            message: registry::causes(&error),
        };
        let client = client().build().map_err(failed)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// The lock of a reference, so that two pods that start together pull once.
    fn turn(&self, reference: &ImageReference) -> Arc<tokio::sync::Mutex<()>> {
        let mut under_way = self.under_way.lock();
        under_way.retain(|_, turn| turn.strong_count() > 0);
        let key = reference.to_string();
        if let Some(turn) = under_way.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        under_way.insert(key, Arc::downgrade(&turn));
        turn
    }
}

/// Registries on this machine are spoken to without TLS, as Docker and containerd do.
pub(crate) fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => registry.split_once(':').map_or(registry, |(host, _)| host),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// One attempt of a pull, at one place with one login.
struct Fetch<'a> {
    remote: Remote<'a>,
    reference: &'a ImageReference,
    store: &'a Arc<ImageStore>,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<Image, PullError> {
        let (id, json) = self.remote.manifest(None).await?;
        let mut manifests = vec![json];
        let mut manifest = Manifest::parse(&manifests[0]).map_err(|error| self.artifact_error(error))?;
        if manifest.is_index() {
            let entry = manifest.wasm_entry().map_err(|error| self.artifact_error(error))?;
            let digest =
                Digest::parse(&entry.digest).ok_or_else(|| self.malformed("the index names no sha256 digest"))?;
            let (_, json) = self.remote.manifest(Some(&digest)).await?;
            manifest = Manifest::parse(&json).map_err(|error| self.artifact_error(error))?;
            manifests.push(json);
        }
        let layer = manifest.component_layer().map_err(|error| self.artifact_error(error))?;
        self.layer(&layer).await?;
        let (store, reference, name) = (self.store.clone(), self.reference.to_string(), self.reference.clone());
        let keep = move || {
            store.check_component(&reference, &layer.digest)?;
            let mut blobs = vec![layer.digest.clone()];
            for json in &manifests {
                blobs.push(store.put(json)?);
            }
            store.add(&id, &layer.digest, blobs, Some(&name), Pinned::No)
        };
        blocking(keep).await.map_err(|error| self.artifact_error(error))
    }

    /// Fetches the component, unless the store has it.
    async fn layer(&self, layer: &ComponentLayer) -> Result<(), PullError> {
        let limit = self.store.limits().max_component_bytes;
        if layer.bytes > limit {
            let error = ArtifactError::TooBig { what: "the component".into(), bytes: layer.bytes, limit };
            return Err(self.artifact_error(error));
        }
        if self.store.has_blob(&layer.digest) {
            return Ok(());
        }
        let incoming = self.fetch(layer).await?;
        let (store, digest) = (self.store.clone(), layer.digest.clone());
        let kept = blocking(move || store.keep(incoming, Some(&digest))).await;
        kept.map(|_| ()).map_err(|error| self.artifact_error(error))
    }

    async fn fetch(&self, layer: &ComponentLayer) -> Result<Incoming, PullError> {
        let mut blob = self.remote.blob(&layer.digest, layer.bytes).await?;
        let mut incoming = self.store.incoming().map_err(|error| self.artifact_error(error))?;
        while let Some(chunk) = blob.chunk().await? {
            let written = blocking(move || {
                incoming.write("the component", &chunk)?;
                Ok(incoming)
            });
            incoming = written.await.map_err(|error| self.artifact_error(error))?;
        }
        Ok(incoming)
    }

    fn malformed(&self, message: &str) -> PullError {
        self.artifact_error(ArtifactError::Malformed(message.to_owned()))
    }

    fn artifact_error(&self, source: ArtifactError) -> PullError {
        PullError::Artifact { reference: self.reference.to_string(), source }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ArtifactError::Malformed(format!("the store's work was given up: {error}"))),
    }
}

#[cfg(test)]
mod tests;
