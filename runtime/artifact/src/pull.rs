//! Pulls Wasm images from OCI registries: credentials in the order given, then none; digests and sizes are checked; one pull
//! of a reference at a time. It keeps no tokens, so that no pod profits from another one's credentials.

mod registry;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use self::registry::{Login, Registry, Transport, blob_time};

use crate::{
    ArtifactError, Digest, Image, ImageReference, ImageStore, PullError,
    manifest::{ComponentLayer, DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST, Manifest},
    store::{Incoming, Pinned},
};

/// Pulls at once; more wait.
const MAX_PULLS: usize = 8;

/// How to reach registries.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Registries (`host[:port]`) spoken to without TLS, besides those on this machine.
    pub insecure_registries: Vec<String>,
}

/// One registry login.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// Host and optional path prefix; the host may start with `*.`.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl std::fmt::Debug for Credential {
    /// Never prints the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("registry", &self.registry).finish_non_exhaustive()
    }
}

impl Credential {
    /// Whether it is meant for this image.
    pub fn fits(&self, reference: &ImageReference) -> bool {
        let registry = self.registry.trim_start_matches("https://").trim_start_matches("http://");
        let registry = registry.trim_end_matches('/');
        // What `docker login` writes for Docker Hub.
        let registry = registry.strip_suffix("/v1").or(registry.strip_suffix("/v2")).unwrap_or(registry);
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        let (host, path) = registry.split_once('/').unwrap_or((registry, ""));
        let host_fits = match host.strip_prefix("*.") {
            Some(domain) => {
                reference.registry().split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == domain)
            }
            None => host == reference.registry(),
        };
        let rest = reference.path().strip_prefix(path);
        host_fits && (path.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }
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
    permits: tokio::sync::Semaphore,
    under_way: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Puller {
    /// A puller into `store`.
    pub fn new(store: Arc<ImageStore>, options: PullOptions) -> Self {
        // The registry client takes the process' provider; somebody else may have set it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let permits = tokio::sync::Semaphore::new(MAX_PULLS);
        Self { store, options, permits, under_way: Mutex::new(HashMap::new()) }
    }

    /// Asks the registry for the image and fetches what the store does not have of it.
    pub async fn pull(&self, reference: &ImageReference, credentials: &[Credential]) -> Result<Pulled, PullError> {
        let turn = self.turn(reference);
        let _turn = turn.lock().await;
        let _permit = self.permits.acquire().await.map_err(|_| PullError::Unavailable {
            reference: reference.to_string(),
            message: "the node is shutting down".into(),
        })?;
        let start = Instant::now();
        let mut denied = None;
        let logins = credentials
            .iter()
            .filter(|credential| credential.fits(reference))
            .map(|credential| Some((credential.username.clone(), credential.password.clone())));
        for login in logins.chain([None]) {
            match self.pull_as(reference, login.as_ref()).await {
                Ok(image) => return Ok(Pulled { image, took: start.elapsed() }),
                Err(error @ PullError::Denied { .. }) => {
                    denied.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(denied.expect("every attempt was denied, and there was one at least"))
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

    async fn pull_as(&self, reference: &ImageReference, login: Option<&Login>) -> Result<Image, PullError> {
        let host = reference.registry();
        let plain = is_local(host) || self.options.insecure_registries.iter().any(|insecure| insecure == host);
        let transport = if plain { Transport::Plain } else { Transport::Tls };
        let mut registry = Registry::new(reference, transport)?;
        registry.log_in(login).await?;
        Fetch { registry, reference, store: &self.store }.run().await
    }
}

/// Registries on this machine are spoken to without TLS, as Docker and containerd do.
fn is_local(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(host, _)| host),
        None => registry.split_once(':').map_or(registry, |(host, _)| host),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// One attempt of a pull, with one login.
struct Fetch<'a> {
    registry: Registry<'a>,
    reference: &'a ImageReference,
    store: &'a Arc<ImageStore>,
}

impl Fetch<'_> {
    async fn run(&self) -> Result<Image, PullError> {
        let tag = self.reference.tag().unwrap_or("latest");
        let (id, json) = self.manifest(tag, self.reference.digest()).await?;
        let mut manifests = vec![json];
        let mut manifest = Manifest::parse(&manifests[0]).map_err(|error| self.artifact_error(error))?;
        if manifest.is_index() {
            let entry = manifest.wasm_entry().map_err(|error| self.artifact_error(error))?;
            let digest =
                Digest::parse(&entry.digest).ok_or_else(|| self.malformed("the index names no sha256 digest"))?;
            let (_, json) = self.manifest(tag, Some(&digest)).await?;
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

    /// A manifest, by digest if one is wanted, and its digest.
    async fn manifest(&self, tag: &str, wanted: Option<&Digest>) -> Result<(Digest, Vec<u8>), PullError> {
        let accepted = [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].join(", ");
        let limit = self.store.limits().max_manifest_bytes;
        let name = wanted.map_or_else(|| tag.to_owned(), Digest::to_string);
        let json = self.registry.manifest(&name, &accepted, limit).await?;
        let found = Digest::of(&json);
        match wanted {
            Some(wanted) if *wanted != found => {
                let what = "the manifest".to_owned();
                Err(self.artifact_error(ArtifactError::DigestMismatch { what, expected: wanted.clone(), found }))
            }
            _ => Ok((found, json)),
        }
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
        let fetch = self.fetch(layer);
        let slow = |_| self.registry.unavailable("the registry sends the component too slowly".to_owned());
        let incoming = tokio::time::timeout(blob_time(layer.bytes), fetch).await.map_err(slow)??;
        let (store, digest) = (self.store.clone(), layer.digest.clone());
        let kept = blocking(move || store.keep(incoming, Some(&digest))).await;
        kept.map(|_| ()).map_err(|error| self.artifact_error(error))
    }

    async fn fetch(&self, layer: &ComponentLayer) -> Result<Incoming, PullError> {
        let mut blob = self.registry.blob(&layer.digest).await?;
        let mut incoming = self.store.incoming().map_err(|error| self.artifact_error(error))?;
        while let Some(chunk) = self.registry.chunk(&mut blob).await? {
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
