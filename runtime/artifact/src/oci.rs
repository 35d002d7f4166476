//! The documents of an image for containers (OCI Image Specification 1.1, and Docker's schema 2): what an index and a manifest
//! refer to. Pure: it reads JSON.

use crate::{
    ArtifactError, Digest,
    manifest::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST, Manifest},
};

/// A blob that a document refers to, or a document itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// As the document says it.
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
    /// How many.
    pub bytes: u64,
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Itself.
    pub part: Part,
    /// What it refers to.
    pub content: Content,
}

/// What a document refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The manifest for this machine, of those that an index has.
    Index(Part),
    /// The parts of an image.
    Image {
        /// Its configuration.
        config: Part,
        /// Its layers, the lowest first.
        layers: Vec<Part>,
    },
}

impl Document {
    /// Reads one. `architecture` and `variant` are the machine's, as Go names them.
    ///
    /// # Errors
    /// It cannot be read, or an index has nothing for this machine.
    pub fn parse(json: &[u8], (architecture, variant): (&str, Option<&str>)) -> Result<Self, ArtifactError> {
        let manifest = Manifest::parse(json)?;
        let digest = Digest::of(json);
        let own = |default: &str| Part {
            media_type: manifest.media_type.clone().unwrap_or_else(|| default.to_owned()),
            digest: digest.clone(),
            bytes: json.len() as u64,
        };
        if manifest.is_index() {
            let entry = entry(&manifest.manifests, architecture, variant).ok_or_else(|| {
                ArtifactError::Malformed(format!("the image has no variant for linux/{architecture}"))
            })?;
            return Ok(Self { part: own(INDEX), content: Content::Index(part(entry)?) });
        }
        let config = manifest.config.as_ref();
        let config = config.ok_or_else(|| ArtifactError::Malformed("the image's manifest names no config".into()))?;
        let content = Content::Image {
            config: part(config)?,
            layers: manifest.layers.iter().map(part).collect::<Result<_, _>>()?,
        };
        Ok(Self { part: own(MANIFEST), content })
    }

    /// The architecture and its variant that this program is built for.
    pub fn this_machine() -> (&'static str, Option<&'static str>) {
        match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" => ("386", None),
            "arm" => ("arm", Some("v7")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        }
    }
}

/// Media types of what a document may be.
pub(crate) fn is_document(media_type: &str) -> bool {
    [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_INDEX].contains(&media_type)
}

fn part(descriptor: &Descriptor) -> Result<Part, ArtifactError> {
    let digest = Digest::parse(&descriptor.digest)
        .ok_or_else(|| ArtifactError::Malformed(format!("{:?} is no sha256 digest", descriptor.digest)))?;
    Ok(Part { media_type: descriptor.media_type.clone(), digest, bytes: descriptor.size })
}

/// The entry of an index for a machine: of its architecture, of its variant if there is one; an index without platforms is for any.
fn entry<'a>(entries: &'a [Descriptor], architecture: &str, variant: Option<&str>) -> Option<&'a Descriptor> {
    let fits = |entry: &&Descriptor| {
        let platform = entry.platform.as_ref();
        is_document(&entry.media_type)
            && platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture)
    };
    let is_variant = |entry: &&Descriptor| {
        let known = entry.platform.as_ref().and_then(|platform| platform.variant.as_deref());
        variant.is_some() && known == variant
    };
    let fitting: Vec<&Descriptor> = entries.iter().filter(fits).collect();
    fitting.iter().copied().find(is_variant).or_else(|| fitting.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::of(&[number])
    }

    fn index(platforms: &[Option<(&str, &str, Option<&str>)>]) -> Vec<u8> {
        let entries: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(at, platform)| {
                let mut entry =
                    serde_json::json!({"mediaType": MANIFEST, "size": 1, "digest": digest(at as u8).as_str()});
                if let Some((os, architecture, variant)) = platform {
                    entry["platform"] = serde_json::json!({"os": os, "architecture": architecture, "variant": variant});
                }
                entry
            })
            .collect();
        serde_json::json!({"schemaVersion": 2, "manifests": entries}).to_string().into_bytes()
    }

    #[test]
    fn an_index_gives_what_is_for_the_machine() {
        let all = [
            Some(("windows", "amd64", None)),
            Some(("linux", "arm", Some("v6"))),
            Some(("linux", "arm", Some("v7"))),
            Some(("unknown", "unknown", None)),
            Some(("linux", "amd64", None)),
        ];
        let chosen = |machine, platforms: &[_]| match Document::parse(&index(platforms), machine) {
            Ok(Document { content: Content::Index(part), .. }) => {
                Ok((0..9).find(|at| digest(*at) == part.digest).unwrap())
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        };
        assert_eq!(chosen(("amd64", None), &all), Ok(4));
        assert_eq!(chosen(("arm", Some("v7")), &all), Ok(2));
        assert_eq!(chosen(("arm", Some("v5")), &all), Ok(1));
        assert_eq!(chosen(("riscv64", None), &all), Err("the image has no variant for linux/riscv64".to_owned()));
        assert_eq!(chosen(("riscv64", None), &[None]), Ok(0));
    }

    #[test]
    fn a_manifest_gives_its_parts() {
        let text = format!(
            r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{{"mediaType":"c","size":1,"digest":"{}"}},
                "layers":[{{"mediaType":"l","size":2,"digest":"{}"}}]}}"#,
            digest(0),
            digest(1)
        );
        let document = Document::parse(text.as_bytes(), ("amd64", None)).unwrap();
        assert_eq!((document.part.media_type.as_str(), document.part.bytes), (DOCKER_MANIFEST, text.len() as u64));
        let Content::Image { config, layers } = document.content else { panic!("an image") };
        assert_eq!((config.digest, layers[0].digest.clone(), layers[0].bytes), (digest(0), digest(1), 2));
        for wrong in [r#"{"schemaVersion":2}"#, r#"{"schemaVersion":1}"#, "x"] {
            assert!(Document::parse(wrong.as_bytes(), ("amd64", None)).is_err(), "{wrong}");
        }
    }
}
