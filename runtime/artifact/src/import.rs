//! Images from files: a plain component under a name, or an OCI archive (tar, also gzipped). It never reaches a registry.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use crate::{
    ArtifactError, Digest, Image, ImageReference, ImageStore,
    inspect::{ENOUGH_BYTES, FileKind, inspect, require_component},
    manifest::{Manifest, for_component},
    store::Pinned,
    tar::read_entries,
};

/// Annotations that carry an image's name in an archive, the better first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Smallest and biggest file of an archive that is kept in memory: manifests and indexes.
const MAX_JSON_BYTES: u64 = 4 << 20;

impl ImageStore {
    /// Imports a file under a name; without one, an archive's own names are used. Answers the images it held.
    pub fn import_file(&self, path: &Path, name: Option<&ImageReference>) -> Result<Vec<Image>, ArtifactError> {
        let shown = path.display().to_string();
        let mut start = Vec::new();
        let file = File::open(path).map_err(ArtifactError::io("read", path))?;
        file.take(ENOUGH_BYTES as u64).read_to_end(&mut start).map_err(ArtifactError::io("read", path))?;
        let open = || File::open(path).map(BufReader::new).map_err(ArtifactError::io("read", path));
        match inspect(&start) {
            FileKind::Component => {
                let name = name.ok_or_else(|| {
                    ArtifactError::Malformed(format!(
                        "{shown} is a component and has no name of its own: give it one with --name"
                    ))
                })?;
                self.import_component(&shown, &mut open()?, name).map(|image| vec![image])
            }
            FileKind::Tar => self.import_archive(&shown, open()?, name),
            FileKind::Gzip => self.import_archive(&shown, flate2::read::MultiGzDecoder::new(open()?), name),
            FileKind::CoreModule | FileKind::Unknown => {
                require_component(&shown, &start)?;
                Err(ArtifactError::Malformed(format!("{shown} is neither a component nor an OCI archive")))
            }
        }
    }

    /// Imports a component under a name. `what` names it in errors.
    pub fn import_component(
        &self,
        what: &str,
        component: &mut dyn Read,
        name: &ImageReference,
    ) -> Result<Image, ArtifactError> {
        let mut incoming = self.incoming()?;
        incoming.copy(what, component)?;
        let bytes = incoming.bytes();
        let digest = self.keep(incoming, None)?;
        self.check_component(what, &digest)?;
        let (config, manifest) = for_component(&digest, bytes);
        let config = self.put(&config)?;
        let id = self.put(&manifest)?;
        self.add(&id, &digest, [digest.clone(), config, id.clone()], Some(name), Pinned::Yes)
    }

    fn import_archive(
        &self,
        what: &str,
        archive: impl Read,
        name: Option<&ImageReference>,
    ) -> Result<Vec<Image>, ArtifactError> {
        let archive = Archive::read(self, what, archive)?;
        let index = archive
            .index
            .as_ref()
            .ok_or_else(|| ArtifactError::Malformed(format!("{what} is not an OCI archive: it has no index.json")))?;
        let index = Manifest::parse(index)?;
        if name.is_some() && index.manifests.len() != 1 {
            return Err(ArtifactError::Malformed(format!(
                "{what} holds {} images: they cannot all have one name",
                index.manifests.len()
            )));
        }
        let mut images = Vec::new();
        for entry in &index.manifests {
            let own = entry.annotations.as_ref().and_then(|annotations| {
                NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key)?.parse::<ImageReference>().ok())
            });
            let name = name.or(own.as_ref()).ok_or_else(|| {
                ArtifactError::Malformed(format!("an image of {what} has no name: give it one with --name"))
            })?;
            images.push(self.add_from_archive(what, &archive, &entry.digest, name)?);
        }
        Ok(images)
    }

    fn add_from_archive(
        &self,
        what: &str,
        archive: &Archive,
        digest: &str,
        name: &ImageReference,
    ) -> Result<Image, ArtifactError> {
        let id = archive.blob_digest(what, digest)?;
        let mut blobs = vec![id.clone()];
        let mut manifest = archive.manifest(what, &id)?;
        if manifest.is_index() {
            let entry = archive.blob_digest(what, &manifest.wasm_entry()?.digest)?;
            manifest = archive.manifest(what, &entry)?;
            blobs.push(entry);
        }
        if let Some(config) = &manifest.config
            && let Ok(config) = archive.blob_digest(what, &config.digest)
        {
            blobs.push(config);
        }
        let layer = manifest.component_layer()?;
        archive.blob_digest(what, layer.digest.as_str())?;
        self.check_component(what, &layer.digest)?;
        blobs.push(layer.digest.clone());
        self.add(&id, &layer.digest, blobs, Some(name), Pinned::Yes)
    }
}

/// The content of an OCI archive: its blobs are in the store, small ones in memory too.
struct Archive {
    index: Option<Vec<u8>>,
    small: BTreeMap<Digest, Vec<u8>>,
    blobs: Vec<Digest>,
}

impl Archive {
    fn read(store: &ImageStore, what: &str, archive: impl Read) -> Result<Self, ArtifactError> {
        let mut found = Self { index: None, small: BTreeMap::new(), blobs: Vec::new() };
        let visited = read_entries(archive, |name, bytes, content| -> Result<(), Failure> {
            if name == "index.json" && bytes <= MAX_JSON_BYTES {
                let mut json = Vec::new();
                content.read_to_end(&mut json)?;
                found.index = Some(json);
            } else if let Some(hex) = name.strip_prefix("blobs/sha256/")
                && let Some(digest) = Digest::parse(&format!("sha256:{hex}"))
            {
                let mut incoming = store.incoming()?;
                if bytes <= MAX_JSON_BYTES {
                    let mut small = Vec::new();
                    content.read_to_end(&mut small)?;
                    incoming.write(what, &small)?;
                    found.small.insert(digest.clone(), small);
                } else {
                    incoming.copy(what, content)?;
                }
                store.keep(incoming, Some(&digest))?;
                found.blobs.push(digest);
            }
            Ok(())
        });
        match visited {
            Ok(()) => Ok(found),
            Err(Failure::Store(error)) => Err(error),
            Err(Failure::Read(error)) => Err(ArtifactError::Malformed(format!("{what} cannot be read: {error}"))),
        }
    }

    fn blob_digest(&self, what: &str, text: &str) -> Result<Digest, ArtifactError> {
        Digest::parse(text)
            .filter(|digest| self.blobs.contains(digest))
            .ok_or_else(|| ArtifactError::Malformed(format!("{what} lacks the blob {text}")))
    }

    fn manifest(&self, what: &str, digest: &Digest) -> Result<Manifest, ArtifactError> {
        let json = self.small.get(digest);
        Manifest::parse(json.ok_or_else(|| ArtifactError::Malformed(format!("{what} lacks the blob {digest}")))?)
    }
}

enum Failure {
    Store(ArtifactError),
    Read(io::Error),
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{StoreLimits, tar::tests::archive};

    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0 and more";

    fn oci_archive(annotation: &str) -> Vec<u8> {
        let component = Digest::of(COMPONENT);
        let (config, manifest) = for_component(&component, COMPONENT.len() as u64);
        let id = Digest::of(&manifest);
        let index =
            format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"x","digest":"{id}","size":1{annotation}}}]}}"#);
        let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        archive(&[
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", index.as_bytes()),
            (&blob(&component), COMPONENT),
            (&blob(&Digest::of(&config)), &config),
            (&blob(&id), &manifest),
        ])
    }

    fn import(content: &[u8], name: Option<&str>) -> Result<Vec<Image>, String> {
        let folder = tempfile::tempdir().unwrap();
        let store = ImageStore::open(folder.path().join("store"), StoreLimits::default()).unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        let name = name.map(|name| name.parse::<ImageReference>().unwrap());
        store.import_file(&path, name.as_ref()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_component_and_the_archive_of_it_are_the_same_image() {
        let plain = import(COMPONENT, Some("hello:v1")).unwrap();
        let named = r#","annotations":{"org.opencontainers.image.ref.name":"docker.io/library/hello:v1"}"#;
        let archived = import(&oci_archive(named), None).unwrap();
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(&oci_archive("")).unwrap();
        let zipped = import(&zipped.finish().unwrap(), Some("hello:v1")).unwrap();
        assert_eq!(plain.len(), 1);
        for other in [&archived[0], &zipped[0]] {
            assert_eq!(
                (&other.id, &other.component, &other.names),
                (&plain[0].id, &plain[0].component, &plain[0].names)
            );
        }
        assert_eq!(plain[0].pinned, Pinned::Yes);
    }

    #[test]
    fn what_cannot_be_imported_says_why() {
        for (content, name, message) in [
            (COMPONENT, None, "has no name of its own: give it one with --name"),
            (&b"\0asm\x01\0\0\0"[..], Some("x"), "is a core WebAssembly module, not a component"),
            (&b"hello"[..], Some("x"), "is not a WebAssembly component"),
            (&archive(&[("a", b"1")])[..], Some("x"), "is not an OCI archive: it has no index.json"),
            (&oci_archive("")[..], None, "has no name: give it one with --name"),
            (&oci_archive("")[..1536], Some("x"), ""),
        ] {
            let error = import(content, name).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_damaged_blob_is_refused() {
        let mut damaged = oci_archive("");
        let at = damaged.windows(8).position(|window| window == b"and more").unwrap();
        damaged[at] = b'X';
        let error = import(&damaged, Some("x")).unwrap_err();
        assert!(error.contains("it is damaged"), "{error}");
    }
}
