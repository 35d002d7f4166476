//! Images from files: a plain component under a name, or an archive (tar, also gzipped) of components and of images for
//! containers, which are the business of another store. It never reaches a registry.

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{
    Archive, ArchivedImage, ArtifactError, Image, ImageReference, ImageStore,
    inspect::{ENOUGH_BYTES, FileKind, inspect, require_component},
    manifest::{Manifest, for_component},
    store::Pinned,
};

/// What a file holds. Nothing is imported yet.
#[derive(Debug)]
pub struct Contents {
    /// What the file is called in errors.
    what: String,
    found: Found,
    /// Images for containers.
    containers: Vec<ArchivedImage>,
}

#[derive(Debug)]
enum Found {
    Component(PathBuf, ImageReference),
    Archive(Archive, Vec<ArchivedImage>),
}

impl Contents {
    /// Looks into a file. `name` is what its image is called; without one, an archive's own names are used.
    pub fn of(path: &Path, name: Option<&ImageReference>) -> Result<Self, ArtifactError> {
        let what = path.display().to_string();
        let mut start = Vec::new();
        let file = File::open(path).map_err(ArtifactError::io("read", path))?;
        file.take(ENOUGH_BYTES as u64).read_to_end(&mut start).map_err(ArtifactError::io("read", path))?;
        match inspect(&start) {
            FileKind::Component => {
                let name = name.ok_or_else(|| {
                    ArtifactError::Malformed(format!(
                        "{what} is a component and has no name of its own: give it one with --name"
                    ))
                })?;
                Ok(Self { what, found: Found::Component(path.to_owned(), name.clone()), containers: Vec::new() })
            }
            FileKind::Tar | FileKind::Gzip => {
                let mut archive = Archive::open(path, &what)?;
                let (mut components, mut containers) = (Vec::new(), Vec::new());
                for image in archive.images(name)? {
                    if is_component(&archive, &image)? { components.push(image) } else { containers.push(image) }
                }
                Ok(Self { what, found: Found::Archive(archive, components), containers })
            }
            FileKind::CoreModule | FileKind::Unknown => {
                require_component(&what, &start)?;
                Err(ArtifactError::Malformed(format!("{what} is neither a component nor an archive of images")))
            }
        }
    }

    /// The images for containers, and the archive they are in; `None` when there are none.
    pub fn containers(&self) -> Option<(&Archive, &[ArchivedImage])> {
        match &self.found {
            Found::Archive(archive, _) if !self.containers.is_empty() => Some((archive, &self.containers)),
            _ => None,
        }
    }
}

/// Whether an image is a component: it has a layer of that media type, in the manifest that is for Wasm.
fn is_component(archive: &Archive, image: &ArchivedImage) -> Result<bool, ArtifactError> {
    let mut manifest = Manifest::parse(&archive.document(&image.digest)?)?;
    if manifest.is_index() {
        let Ok(entry) = manifest.wasm_entry() else { return Ok(false) };
        // The archive of one machine's variant lacks the others.
        let Ok(digest) = archive.digest(&entry.digest) else { return Ok(false) };
        manifest = Manifest::parse(&archive.document(&digest)?)?;
    }
    Ok(manifest.component_layer().is_ok())
}

impl ImageStore {
    /// Imports the components of a file, and answers them.
    pub fn import(&self, contents: &Contents) -> Result<Vec<Image>, ArtifactError> {
        match &contents.found {
            Found::Component(path, name) => {
                let mut file = File::open(path).map(BufReader::new).map_err(ArtifactError::io("read", path))?;
                self.import_component(&contents.what, &mut file, name).map(|image| vec![image])
            }
            Found::Archive(archive, components) => {
                let images = components.iter().map(|image| self.import_archived(&contents.what, archive, image));
                images.collect()
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

    fn import_archived(&self, what: &str, archive: &Archive, image: &ArchivedImage) -> Result<Image, ArtifactError> {
        let id = &image.digest;
        let mut blobs = vec![id.clone()];
        let mut manifest = Manifest::parse(&archive.document(id)?)?;
        if manifest.is_index() {
            let entry = archive.digest(&manifest.wasm_entry()?.digest)?;
            manifest = Manifest::parse(&archive.document(&entry)?)?;
            blobs.push(entry);
        }
        if let Some(config) = &manifest.config
            && let Ok(config) = archive.digest(&config.digest)
        {
            blobs.push(config);
        }
        let component = archive.digest(manifest.component_layer()?.digest.as_str())?;
        blobs.push(component.clone());
        for blob in &blobs {
            let (file, bytes) = archive.blob(blob)?;
            let mut incoming = self.incoming()?;
            incoming.copy(what, &mut BufReader::new(file).take(bytes))?;
            self.keep(incoming, Some(blob))?;
        }
        self.check_component(what, &component)?;
        let mut added = None;
        for name in &image.names {
            added = Some(self.add(id, &component, blobs.iter().cloned(), Some(name), Pinned::Yes)?);
        }
        added.ok_or_else(|| ArtifactError::Malformed(format!("an image of {what} has no name")))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{
        Digest, StoreLimits,
        manifest::MANIFEST,
        tar::tests::{archive, archive_with_links},
    };

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
        Contents::of(&path, name.as_ref())
            .and_then(|contents| store.import(&contents))
            .map_err(|error| error.to_string())
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
            (
                &archive(&[("a", b"1")])[..],
                Some("x"),
                "is neither an OCI archive nor one of docker: it has no index.json",
            ),
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

    /// Looks into a file as it is said to be called.
    fn look<T>(content: &[u8], name: Option<&str>, see: impl FnOnce(Result<Contents, String>) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        let name = name.map(|name| name.parse::<ImageReference>().unwrap());
        let seen = see(Contents::of(&path, name.as_ref()).map_err(|error| error.to_string()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "what was unpacked is gone");
        seen
    }

    #[test]
    fn what_docker_saves_is_made_into_an_image_with_all_its_names() {
        let saved =
            br#"[{"Config":"c.json","RepoTags":["one:v1","r.io/two:v2"],"Layers":["a/layer.tar","b/layer.tar"]},
            {"Config":"c.json","RepoTags":null,"Layers":["b/layer.tar"]}]"#;
        let files = [
            ("manifest.json", &saved[..]),
            ("c.json", b"{}"),
            ("a/layer.tar", b"lower"),
            ("c/layer.tar", b"\x1f\x8bupper"),
        ];
        let bytes = archive_with_links(&files, &[("b/layer.tar", "../c/layer.tar")]);
        let error = look(&bytes, None, |found| found.unwrap_err());
        assert!(error.ends_with("has no name: give it one with --name"), "{error}");
        let named = String::from_utf8(saved.to_vec()).unwrap().replace("null", r#"["three"]"#);
        let files = [("manifest.json", named.as_bytes()), files[1], files[2], files[3]];
        let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zipped.write_all(&archive_with_links(&files, &[("b/layer.tar", "../c/layer.tar")])).unwrap();
        look(&zipped.finish().unwrap(), None, |found| {
            let found = found.unwrap();
            let (archive, images) = found.containers().unwrap();
            let names: Vec<String> = images.iter().flat_map(|image| &image.names).map(ToString::to_string).collect();
            assert_eq!(names, ["docker.io/library/one:v1", "r.io/two:v2", "docker.io/library/three:latest"]);
            let manifest = Manifest::parse(&archive.document(&images[0].digest).unwrap()).unwrap();
            let layers: Vec<_> =
                manifest.layers.iter().map(|layer| (layer.media_type.as_str(), layer.digest.clone())).collect();
            let (tar, gzip) =
                ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip");
            let digest = |bytes: &[u8]| Digest::of(bytes).to_string();
            assert_eq!(layers, [(tar, digest(b"lower")), (gzip, digest(b"\x1f\x8bupper"))]);
            let (file, bytes) = archive.blob(&Digest::of(b"lower")).unwrap();
            let mut content = Vec::new();
            file.take(bytes).read_to_end(&mut content).unwrap();
            assert_eq!(content, b"lower");
        });
    }

    #[test]
    fn an_oci_archive_of_another_sort_is_left_to_others_with_all_its_tags() {
        let blob = |content: &[u8]| format!("blobs/sha256/{}", Digest::of(content).hex());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"c","size":2,"digest":"{}"}},"layers":[]}}"#,
            Digest::of(b"{}")
        );
        let id = Digest::of(manifest.as_bytes());
        let entry = |name: &str| {
            format!(
                r#"{{"mediaType":"{MANIFEST}","size":1,"digest":"{id}","annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}"#
            )
        };
        let archived = |entries: &[String]| {
            let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            archive(&[
                ("index.json", index.as_bytes()),
                (&blob(b"{}"), b"{}"),
                (&blob(manifest.as_bytes()), manifest.as_bytes()),
            ])
        };
        look(&archived(&[entry("r.io/x:1"), entry("r.io/x:2")]), None, |found| {
            let found = found.unwrap();
            let (_, images) = found.containers().unwrap();
            assert_eq!((images.len(), images[0].names.len(), &images[0].digest), (1, 2, &id));
        });
        let names = |entries: &[String], name| {
            look(&archived(entries), name, |found| {
                let found = found?;
                let (_, images) = found.containers().unwrap();
                Ok::<_, String>(images[0].names.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
        };
        assert!(names(&[entry("latest")], None).unwrap_err().contains("has no name"), "a tag alone is no name");
        assert_eq!(names(&[entry("latest")], Some("mine")).unwrap(), ["docker.io/library/mine:latest"]);
    }
}
