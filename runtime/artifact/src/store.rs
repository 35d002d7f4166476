//! The images of a node on disk: blobs by digest, and one index file of what images there are, replaced as a whole. Blobs
//! are checked when they come in. All methods block on the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ArtifactError, Digest, ImageReference,
    inspect::{ENOUGH_BYTES, require_component},
};

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    /// Most bytes of one component.
    pub max_component_bytes: u64,
    /// Most bytes of a manifest.
    pub max_manifest_bytes: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { max_component_bytes: 512 << 20, max_manifest_bytes: 4 << 20 }
    }
}

/// Whether an image is kept when nothing uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pinned {
    /// It was imported by hand and may not be anywhere else.
    Yes,
    /// It can be pulled again.
    No,
}

/// An image on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its manifest, or of the index it was found by: its id.
    pub id: Digest,
    /// Digest of the component.
    pub component: Digest,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Tags it can be run by, in full.
    pub names: BTreeSet<String>,
    /// Repositories it came from, in full, each with its digest.
    pub repo_digests: BTreeSet<String>,
    /// Whether it is kept when nothing uses it.
    pub pinned: Pinned,
    /// All its blobs.
    blobs: BTreeSet<Digest>,
}

/// The store.
#[derive(Debug)]
pub struct ImageStore {
    directory: PathBuf,
    limits: StoreLimits,
    images: Mutex<BTreeMap<Digest, Image>>,
}

impl ImageStore {
    /// Opens the directory, making it when it is missing. Blobs that no image has and files half-written are removed.
    pub fn open(directory: impl Into<PathBuf>, limits: StoreLimits) -> Result<Self, ArtifactError> {
        let directory = directory.into();
        let blobs = directory.join("blobs");
        fs::create_dir_all(&blobs).map_err(ArtifactError::io("make the directory", &blobs))?;
        let index = directory.join("index.json");
        let images = match fs::read(&index) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                ArtifactError::Malformed(format!(
                    "{} is damaged ({error}): remove it, and import or pull the images again",
                    index.display()
                ))
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(ArtifactError::Io { what: "read", path: index, source }),
        };
        let store = Self { directory, limits, images: Mutex::new(images) };
        store.sweep()?;
        Ok(store)
    }

    /// Where the images are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bounds.
    pub fn limits(&self) -> StoreLimits {
        self.limits
    }

    /// All images.
    pub fn list(&self) -> Vec<Image> {
        self.images.lock().values().cloned().collect()
    }

    /// The image that a reference names on this node.
    pub fn resolve(&self, reference: &ImageReference) -> Option<Image> {
        let images = self.images.lock();
        if let Some(digest) = reference.digest() {
            let at = reference.at(digest);
            return images
                .get(digest)
                .filter(|image| image.repo_digests.contains(&at) || image.repo_digests.is_empty())
                .cloned();
        }
        let name = reference.to_string();
        images.values().find(|image| image.names.contains(&name)).cloned()
    }

    /// The image with this id, name or `name@digest`.
    pub fn get(&self, key: &str) -> Option<Image> {
        let by_digest = Digest::parse(key).or_else(|| Digest::parse(key.split_once('@')?.1));
        if let Some(digest) = by_digest {
            return self.images.lock().get(&digest).cloned();
        }
        self.resolve(&key.parse().ok()?)
    }

    /// Where the image's component is.
    pub fn component_path(&self, image: &Image) -> PathBuf {
        self.blob_path(&image.component)
    }

    /// Removes an image, or one of its names when it has others, and answers the bytes that came free.
    pub fn remove(&self, key: &str) -> Result<u64, ArtifactError> {
        let image = self.get(key).ok_or_else(|| ArtifactError::NotFound(key.to_owned()))?;
        let mut images = self.images.lock();
        let mut changed = images.clone();
        let name =
            key.parse::<ImageReference>().ok().filter(|name| name.digest().is_none()).map(|name| name.to_string());
        match (name, changed.get_mut(&image.id)) {
            (Some(name), Some(image)) if image.names.len() > 1 && image.names.contains(&name) => {
                image.names.remove(&name);
            }
            _ => {
                changed.remove(&image.id);
            }
        }
        self.write_index(&changed)?;
        *images = changed;
        let candidates = if images.contains_key(&image.id) { BTreeSet::new() } else { image.blobs };
        self.drop_blobs(&images, &candidates)
    }

    /// Whether the component of an image is, byte for byte, what was stored. Reads all of it.
    pub fn is_whole(&self, image: &Image) -> bool {
        let mut hash = Sha256::new();
        let read =
            File::open(self.component_path(image)).and_then(|mut file| io::copy(&mut file, &mut HashOnly(&mut hash)));
        read.is_ok() && Digest::from_sum(&hash.finalize()) == image.component
    }

    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_path(digest).exists()
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs").join(digest.hex())
    }

    /// A file in the store to write a blob to.
    pub(crate) fn incoming(&self) -> Result<Incoming, ArtifactError> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.directory.join("blobs").join(format!("{number}.tmp"));
        let file = File::create(&path).map_err(ArtifactError::io("write", &path))?;
        Ok(Incoming { file, path, hash: Sha256::new(), bytes: 0, limit: self.limits.max_component_bytes })
    }

    /// Keeps a small blob.
    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Digest, ArtifactError> {
        let mut incoming = self.incoming()?;
        incoming.write("the blob", bytes)?;
        self.keep(incoming, None)
    }

    /// Keeps a blob under its digest, if that is the one expected.
    pub(crate) fn keep(&self, incoming: Incoming, expected: Option<&Digest>) -> Result<Digest, ArtifactError> {
        let found = Digest::from_sum(&incoming.hash.clone().finalize());
        if let Some(expected) = expected
            && *expected != found
        {
            return Err(ArtifactError::DigestMismatch { what: "a blob".into(), expected: expected.clone(), found });
        }
        incoming.file.sync_data().map_err(ArtifactError::io("write", &incoming.path))?;
        let path = self.blob_path(&found);
        fs::rename(&incoming.path, &path).map_err(ArtifactError::io("write", path))?;
        Ok(found)
    }

    /// Fails when the blob is no component.
    pub(crate) fn check_component(&self, what: &str, digest: &Digest) -> Result<(), ArtifactError> {
        let path = self.blob_path(digest);
        let mut start = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(ENOUGH_BYTES as u64).read_to_end(&mut start))
            .map_err(ArtifactError::io("read", &path))?;
        require_component(what, &start)
    }

    /// Adds an image whose blobs are in the store. A tag that another image had moves to this one.
    pub(crate) fn add(
        &self,
        id: &Digest,
        component: &Digest,
        blobs: impl IntoIterator<Item = Digest>,
        name: Option<&ImageReference>,
        pinned: Pinned,
    ) -> Result<Image, ArtifactError> {
        let blobs: BTreeSet<Digest> = blobs.into_iter().collect();
        let mut size_bytes = 0;
        for blob in &blobs {
            let path = self.blob_path(blob);
            size_bytes += fs::metadata(&path).map_err(ArtifactError::io("read", &path))?.len();
        }
        let mut images = self.images.lock();
        let mut changed = images.clone();
        let image = changed.entry(id.clone()).or_insert_with(|| Image {
            id: id.clone(),
            component: component.clone(),
            size_bytes,
            names: BTreeSet::new(),
            repo_digests: BTreeSet::new(),
            pinned,
            blobs,
        });
        if pinned == Pinned::Yes {
            image.pinned = pinned;
        }
        if let Some(name) = name {
            if pinned == Pinned::No {
                image.repo_digests.insert(name.at(id));
            }
            if name.digest().is_none() {
                let name = name.to_string();
                for (other, image) in &mut changed {
                    if other == id {
                        image.names.insert(name.clone())
                    } else {
                        image.names.remove(&name)
                    };
                }
            }
        }
        // Without names and repositories nothing could find it again.
        changed.retain(|other, image| other == id || !(image.names.is_empty() && image.repo_digests.is_empty()));
        let image = changed[id].clone();
        self.write_index(&changed)?;
        *images = changed;
        Ok(image)
    }

    fn write_index(&self, images: &BTreeMap<Digest, Image>) -> Result<(), ArtifactError> {
        let path = self.directory.join("index.json");
        let temporary = self.directory.join("index.json.tmp");
        let json = serde_json::to_vec(images).map_err(|error| ArtifactError::Malformed(error.to_string()))?;
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&json)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(ArtifactError::io("write", &path))
    }

    /// Removes blobs of `candidates` that no image has and answers their bytes. A pull that counts on one of them finds it
    /// missing when it adds its image, and is tried again.
    fn drop_blobs(
        &self,
        images: &BTreeMap<Digest, Image>,
        candidates: &BTreeSet<Digest>,
    ) -> Result<u64, ArtifactError> {
        let mut freed = 0;
        for blob in candidates {
            if images.values().any(|image| image.blobs.contains(blob)) {
                continue;
            }
            let path = self.blob_path(blob);
            let bytes = fs::metadata(&path).map_or(0, |meta| meta.len());
            match fs::remove_file(&path) {
                Ok(()) => freed += bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(ArtifactError::Io { what: "remove", path, source }),
            }
        }
        Ok(freed)
    }

    /// Removes what a crash left: files half-written and blobs of no image. Only while nothing else uses the store.
    fn sweep(&self) -> Result<(), ArtifactError> {
        let images = self.images.lock();
        let used: BTreeSet<&str> = images.values().flat_map(|image| &image.blobs).map(Digest::hex).collect();
        let directory = self.directory.join("blobs");
        for entry in fs::read_dir(&directory).map_err(ArtifactError::io("read", &directory))?.flatten() {
            if !entry.file_name().to_str().is_some_and(|name| used.contains(name)) {
                fs::remove_file(entry.path()).map_err(ArtifactError::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Takes bytes into a hash.
struct HashOnly<'a>(&'a mut Sha256);

impl Write for HashOnly<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A blob being written; its file is removed unless it is kept.
pub(crate) struct Incoming {
    file: File,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
    limit: u64,
}

impl Incoming {
    /// Appends bytes.
    pub(crate) fn write(&mut self, what: &str, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.limit {
            return Err(ArtifactError::TooBig { what: what.to_owned(), bytes: self.bytes, limit: self.limit });
        }
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(ArtifactError::io("write", &self.path))
    }

    /// Appends all of a reader.
    pub(crate) fn copy(&mut self, what: &str, reader: &mut dyn Read) -> Result<(), ArtifactError> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(ArtifactError::Io { what: "read", path: what.into(), source }),
            };
            self.write(what, &buffer[..read])?;
        }
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Gone already when the blob was kept.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 and more";

    fn store() -> (ImageStore, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path(), StoreLimits::default()).unwrap();
        (store, folder)
    }

    fn add(store: &ImageStore, content: &[u8], name: &str) -> Image {
        let component = store.put(content).unwrap();
        let manifest = store.put(format!("manifest of {component}").as_bytes()).unwrap();
        let blobs = [component.clone(), manifest.clone()];
        store.add(&manifest, &component, blobs, Some(&name.parse().unwrap()), Pinned::No).unwrap()
    }

    #[test]
    fn an_image_that_the_disk_has_changed_is_told_from_one_that_is_whole() {
        let (store, _folder) = store();
        let image = add(&store, COMPONENT, "hello:v1");
        assert!(store.is_whole(&image));
        let path = store.component_path(&image);
        let mut bytes = COMPONENT.to_vec();
        bytes[10] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(!store.is_whole(&image), "a bit has fallen over");
        fs::remove_file(&path).unwrap();
        assert!(!store.is_whole(&image));
        add(&store, COMPONENT, "hello:v1");
        assert!(store.is_whole(&image), "importing it again mends it");
    }

    #[test]
    fn images_are_found_by_tag_digest_and_id_also_after_a_restart() {
        let (store, folder) = store();
        let image = add(&store, COMPONENT, "hello:v1");
        drop(store);
        let store = ImageStore::open(folder.path(), StoreLimits::default()).unwrap();
        let by_digest = format!("docker.io/library/hello@{}", image.id);
        for key in ["hello:v1", "docker.io/library/hello:v1", image.id.as_str(), &by_digest] {
            assert_eq!(store.get(key).as_ref(), Some(&image), "{key}");
        }
        assert_eq!(store.get("hello:v2"), None);
        assert_eq!(fs::read(store.component_path(&image)).unwrap(), COMPONENT);
    }

    #[test]
    fn a_tag_moves_and_an_untagged_image_stays_reachable_by_digest() {
        let (store, _folder) = store();
        let old = add(&store, COMPONENT, "hello:v1");
        let new = add(&store, b"\0asm\x0d\0\x01\0 newer", "hello:v1");
        assert_eq!(store.get("hello:v1").unwrap().id, new.id);
        assert!(store.get(old.id.as_str()).unwrap().names.is_empty());
    }

    #[test]
    fn removing_frees_only_what_nothing_else_uses() {
        let (store, _folder) = store();
        let first = add(&store, COMPONENT, "hello:v1");
        let component = first.component.clone();
        let other = store.put(b"another manifest").unwrap();
        let blobs = [component.clone(), other.clone()];
        store.add(&other, &component, blobs, Some(&"hello:v2".parse().unwrap()), Pinned::No).unwrap();
        let freed = store.remove("hello:v1").unwrap();
        assert_eq!(freed, first.size_bytes - COMPONENT.len() as u64);
        assert!(store.has_blob(&component));
        assert!(matches!(store.remove("hello:v1"), Err(ArtifactError::NotFound(_))));
        store.remove("hello:v2").unwrap();
        assert!(!store.has_blob(&component) && store.list().is_empty());
    }

    #[test]
    fn wrong_bytes_and_too_many_bytes_are_refused_and_leave_nothing() {
        let (store, folder) = store();
        let mut incoming = store.incoming().unwrap();
        incoming.write("it", b"bytes").unwrap();
        let expected = Digest::of(b"other");
        assert!(matches!(store.keep(incoming, Some(&expected)), Err(ArtifactError::DigestMismatch { .. })));
        let small = ImageStore { limits: StoreLimits { max_component_bytes: 3, ..store.limits }, ..store };
        assert!(matches!(small.put(b"four"), Err(ArtifactError::TooBig { limit: 3, .. })));
        assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 0);
    }

    #[test]
    fn leftovers_of_a_crash_are_removed_and_a_damaged_index_is_named() {
        let (store, folder) = store();
        add(&store, COMPONENT, "hello");
        fs::write(folder.path().join("blobs/7.tmp"), b"half").unwrap();
        store.put(b"of no image").unwrap();
        drop(store);
        let store = ImageStore::open(folder.path(), StoreLimits::default()).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("blobs")).unwrap().count(), 2);
        drop(store);
        fs::write(folder.path().join("index.json"), b"{").unwrap();
        let error = ImageStore::open(folder.path(), StoreLimits::default()).unwrap_err().to_string();
        assert!(error.contains("index.json is damaged"), "{error}");
    }
}
