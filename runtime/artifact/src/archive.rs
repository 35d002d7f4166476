//! Archives of images: the OCI image layout in a tar file, and what `docker save` writes. It reads where things are and never
//! copies a blob; a compressed archive is unpacked beside itself first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    ArtifactError, Digest, ImageReference,
    inspect::{FileKind, inspect},
    manifest::{DOCKER_MANIFEST, Manifest},
    tar::{Entry, read_entries},
};

/// Annotations that carry an image's name in an archive, the better first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
/// Largest document of an archive: manifests, indexes, configs.
const MAX_JSON_BYTES: u64 = 4 << 20;
/// Most bytes that a compressed archive may hold.
const MAX_UNPACKED_BYTES: u64 = 32 << 30;
/// Docker's names of the parts of an image.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// An archive on disk.
#[derive(Debug)]
pub struct Archive {
    what: String,
    path: PathBuf,
    /// Whether the file is the archive unpacked: it goes with this value.
    unpacked: bool,
    files: BTreeMap<String, Entry>,
    /// Blobs that are no files of the layout: layers of `docker save`.
    blobs: BTreeMap<Digest, Entry>,
    /// Documents that the archive lacks and that are made of what it has.
    made: BTreeMap<Digest, Vec<u8>>,
}

/// An image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedImage {
    /// What it is called.
    pub names: Vec<ImageReference>,
    /// Of its manifest or index.
    pub digest: Digest,
}

/// One image in `docker save`'s manifest.json.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Drop for Archive {
    fn drop(&mut self) {
        if self.unpacked {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Archive {
    /// Looks what is where; `what` names the file in errors.
    pub(crate) fn open(path: &Path, what: &str) -> Result<Self, ArtifactError> {
        let mut start = [0; 2];
        let mut file = File::open(path).map_err(ArtifactError::io("read", path))?;
        let mut archive = Self {
            what: what.to_owned(),
            path: path.to_owned(),
            unpacked: false,
            files: BTreeMap::new(),
            blobs: BTreeMap::new(),
            made: BTreeMap::new(),
        };
        file.read_exact(&mut start).map_err(|error| archive.unreadable(error))?;
        if inspect(&start) == FileKind::Gzip {
            archive.unpack(file)?;
        }
        let file = File::open(&archive.path).map_err(ArtifactError::io("read", &archive.path))?;
        archive.files = read_entries(BufReader::new(file)).map_err(|error| archive.unreadable(error))?;
        Ok(archive)
    }

    fn unpack(&mut self, mut file: File) -> Result<(), ArtifactError> {
        file.seek(SeekFrom::Start(0)).map_err(ArtifactError::io("read", &self.path))?;
        let mut name = self.path.clone().into_os_string();
        name.push(".unpacked");
        (self.path, self.unpacked) = (name.into(), true);
        let mut to = File::create(&self.path).map_err(ArtifactError::io("write", &self.path))?;
        let mut from = flate2::read::MultiGzDecoder::new(BufReader::new(file)).take(MAX_UNPACKED_BYTES + 1);
        let bytes = io::copy(&mut from, &mut to).map_err(|error| self.unreadable(error))?;
        if bytes > MAX_UNPACKED_BYTES {
            return Err(ArtifactError::TooBig { what: self.what.clone(), bytes, limit: MAX_UNPACKED_BYTES });
        }
        Ok(())
    }

    /// The images in it, each once with all its names. A name that is given is the only one of the only image.
    pub(crate) fn images(&mut self, name: Option<&ImageReference>) -> Result<Vec<ArchivedImage>, ArtifactError> {
        let found = match (self.files.get("index.json").cloned(), self.files.get("manifest.json").cloned()) {
            (Some(index), _) => self.listed(&index)?,
            (None, Some(saved)) => self.saved(&saved)?,
            (None, None) => {
                let words = "is neither an OCI archive nor one of docker: it has no index.json and no manifest.json";
                return Err(self.malformed(words));
            }
        };
        let mut images: Vec<ArchivedImage> = Vec::new();
        for (digest, names) in found {
            match images.iter_mut().find(|image| image.digest == digest) {
                Some(image) => image.names.extend(names),
                None => images.push(ArchivedImage { names, digest }),
            }
        }
        match (name, images.as_mut_slice()) {
            (Some(name), [only]) => only.names = vec![name.clone()],
            (Some(_), all) => {
                return Err(self.malformed(&format!("holds {} images: they cannot all have one name", all.len())));
            }
            (None, _) => {}
        }
        if images.iter().any(|image| image.names.is_empty()) {
            return Err(ArtifactError::Malformed(format!(
                "an image of {} has no name: give it one with --name",
                self.what
            )));
        }
        Ok(images)
    }

    /// The images of an OCI layout.
    fn listed(&self, index: &Entry) -> Result<Vec<(Digest, Vec<ImageReference>)>, ArtifactError> {
        let index = Manifest::parse(&self.read(index)?)?;
        let image = |entry: &crate::manifest::Descriptor| {
            let annotations = entry.annotations.iter();
            let named = annotations.flat_map(|all| NAME_ANNOTATIONS.iter().filter_map(|key| all.get(*key)));
            // A tag alone names no image.
            let full = named.filter(|name| name.contains(['/', ':'])).find_map(|name| name.parse().ok());
            Ok((self.digest(&entry.digest)?, full.into_iter().collect()))
        };
        index.manifests.iter().map(image).collect()
    }

    /// The images of `docker save`, which has no manifests in a registry's sense: they are made here.
    fn saved(&mut self, saved: &Entry) -> Result<Vec<(Digest, Vec<ImageReference>)>, ArtifactError> {
        let all: Vec<Saved> = serde_json::from_slice(&self.read(saved)?)
            .map_err(|error| self.malformed(&format!("has a manifest.json that cannot be read: {error}")))?;
        let mut images = Vec::new();
        for Saved { config, repo_tags, layers } in all {
            let (config, bytes) = self.add(&config)?;
            let layers = layers.iter().map(|layer| {
                let (digest, bytes) = self.add(layer)?;
                let kind =
                    if self.is_gzip(&digest)? { format!("{DOCKER_LAYER}.gzip") } else { DOCKER_LAYER.to_owned() };
                Ok(serde_json::json!({"mediaType": kind, "digest": digest, "size": bytes}))
            });
            let layers = layers.collect::<Result<Vec<_>, ArtifactError>>()?;
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": DOCKER_MANIFEST,
                "config": {"mediaType": DOCKER_CONFIG, "digest": config, "size": bytes}, "layers": layers,
            });
            let manifest = manifest.to_string().into_bytes();
            let digest = Digest::of(&manifest);
            self.made.insert(digest.clone(), manifest);
            let names = repo_tags.unwrap_or_default().iter().filter_map(|name| name.parse().ok()).collect();
            images.push((digest, names));
        }
        Ok(images)
    }

    /// Finds the digest of a file, and keeps the file under it.
    fn add(&mut self, name: &str) -> Result<(Digest, u64), ArtifactError> {
        let entry = self.files.get(name.trim_start_matches("./")).cloned();
        let entry = entry.ok_or_else(|| self.malformed(&format!("lacks the file {name}")))?;
        let mut sum = Sha256::new();
        let mut content = self.content(&entry)?;
        let mut buffer = vec![0; 128 * 1024];
        loop {
            match content.read(&mut buffer).map_err(|error| self.unreadable(error))? {
                0 => break,
                read => sum.update(&buffer[..read]),
            }
        }
        let digest = Digest::from_sum(&sum.finalize());
        self.blobs.insert(digest.clone(), entry.clone());
        Ok((digest, entry.bytes))
    }

    fn is_gzip(&self, digest: &Digest) -> Result<bool, ArtifactError> {
        let mut start = Vec::new();
        let entry = self.place(digest).ok_or_else(|| self.lacks(digest.as_str()))?;
        self.content(entry)?.take(2).read_to_end(&mut start).map_err(|error| self.unreadable(error))?;
        Ok(inspect(&start) == FileKind::Gzip)
    }

    /// A document by its digest, which is checked.
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>, ArtifactError> {
        if let Some(made) = self.made.get(digest) {
            return Ok(made.clone());
        }
        let json = self.read(self.place(digest).ok_or_else(|| self.lacks(digest.as_str()))?)?;
        let found = Digest::of(&json);
        if found != *digest {
            return Err(ArtifactError::DigestMismatch { what: "a blob".into(), expected: digest.clone(), found });
        }
        Ok(json)
    }

    /// The file a blob is in, at its beginning, and its size. Whoever keeps it checks its digest.
    pub fn blob(&self, digest: &Digest) -> Result<(File, u64), ArtifactError> {
        let entry = self.place(digest).ok_or_else(|| self.lacks(digest.as_str()))?;
        Ok((self.at(entry)?, entry.bytes))
    }

    /// The digest of a blob that the archive must have.
    pub(crate) fn digest(&self, text: &str) -> Result<Digest, ArtifactError> {
        Digest::parse(text)
            .filter(|digest| self.made.contains_key(digest) || self.place(digest).is_some())
            .ok_or_else(|| self.lacks(text))
    }

    fn place(&self, digest: &Digest) -> Option<&Entry> {
        self.blobs.get(digest).or_else(|| self.files.get(&format!("blobs/sha256/{}", digest.hex())))
    }

    fn at(&self, entry: &Entry) -> Result<File, ArtifactError> {
        let mut file = File::open(&self.path).map_err(ArtifactError::io("read", &self.path))?;
        file.seek(SeekFrom::Start(entry.offset)).map_err(ArtifactError::io("read", &self.path))?;
        Ok(file)
    }

    fn content(&self, entry: &Entry) -> Result<impl Read + use<>, ArtifactError> {
        Ok(self.at(entry)?.take(entry.bytes))
    }

    fn read(&self, entry: &Entry) -> Result<Vec<u8>, ArtifactError> {
        if entry.bytes > MAX_JSON_BYTES {
            let what = format!("a document of {}", self.what);
            return Err(ArtifactError::TooBig { what, bytes: entry.bytes, limit: MAX_JSON_BYTES });
        }
        let mut bytes = Vec::new();
        self.content(entry)?.read_to_end(&mut bytes).map_err(|error| self.unreadable(error))?;
        Ok(bytes)
    }

    fn lacks(&self, digest: &str) -> ArtifactError {
        self.malformed(&format!("lacks the blob {digest}"))
    }

    fn malformed(&self, words: &str) -> ArtifactError {
        ArtifactError::Malformed(format!("{} {words}", self.what))
    }

    fn unreadable(&self, error: io::Error) -> ArtifactError {
        self.malformed(&format!("cannot be read: {error}"))
    }
}
