//! Manifests of Wasm images, in the layout of the CNCF's "Wasm OCI Artifact": one config and one layer that is the
//! component. Pure: it reads and writes JSON.

use serde::{Deserialize, Serialize};

use crate::{ArtifactError, Digest};

/// Media type of an image manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an index of manifests.
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's name for an image manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's name for an index.
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a Wasm image's config.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Media type of a Wasm image's layer.
const WASM_LAYER: &str = "application/wasm";
/// Names that older tools gave the layer.
const OLD_WASM_LAYERS: [&str; 2] =
    ["application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm"];

/// A manifest or an index, as far as it matters here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) manifests: Vec<Descriptor>,
}

/// What a manifest says about a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

/// Which machine an index's entry is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) architecture: String,
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
}

/// The layer that is the component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ComponentLayer {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

impl Manifest {
    /// Reads one.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ArtifactError> {
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|error| ArtifactError::Malformed(format!("the image's manifest cannot be read: {error}")))?;
        if manifest.schema_version != 2 {
            return Err(ArtifactError::Malformed(format!(
                "the image's manifest has version {}, not 2",
                manifest.schema_version
            )));
        }
        Ok(manifest)
    }

    /// Whether it lists manifests instead of layers.
    pub(crate) fn is_index(&self) -> bool {
        !self.manifests.is_empty() || matches!(self.media_type.as_deref(), Some(INDEX | DOCKER_INDEX))
    }

    /// The entry of an index for Wasm, or the only one.
    pub(crate) fn wasm_entry(&self) -> Result<&Descriptor, ArtifactError> {
        let is_wasm = |entry: &&Descriptor| {
            entry
                .platform
                .as_ref()
                .is_some_and(|platform| platform.architecture == "wasm" || platform.os.starts_with("was"))
        };
        match (self.manifests.iter().find(is_wasm), self.manifests.as_slice()) {
            (Some(entry), _) => Ok(entry),
            (None, [entry]) => Ok(entry),
            _ => Err(ArtifactError::NotAComponent(
                "the image has no variant for WebAssembly: no entry of its index is for the architecture \"wasm\""
                    .into(),
            )),
        }
    }

    /// The layer that is the component.
    pub(crate) fn component_layer(&self) -> Result<ComponentLayer, ArtifactError> {
        let is_wasm = |media_type: &str| media_type == WASM_LAYER || OLD_WASM_LAYERS.contains(&media_type);
        let mut layers = self.layers.iter().filter(|layer| is_wasm(&layer.media_type));
        let Some(layer) = layers.next() else {
            let found = self.layers.first().map_or("no layer", |layer| layer.media_type.as_str());
            return Err(ArtifactError::NotAComponent(format!(
                "the image is not a WebAssembly image: it has {found}, wanted is {WASM_LAYER}"
            )));
        };
        if layers.next().is_some() {
            return Err(ArtifactError::NotAComponent("the image has more than one WebAssembly layer".into()));
        }
        let digest = Digest::parse(&layer.digest).ok_or_else(|| {
            ArtifactError::Malformed(format!("the image's layer has an unknown digest: {:?}", layer.digest))
        })?;
        Ok(ComponentLayer { digest, bytes: layer.size })
    }
}

/// Config and manifest of a component that came as a plain file. Always the same bytes for the same component.
pub(crate) fn for_component(digest: &Digest, bytes: u64) -> (Vec<u8>, Vec<u8>) {
    let config = format!(
        r#"{{"architecture":"wasm","os":"wasip2","layerDigests":["{digest}"],"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#
    )
    .into_bytes();
    let config_digest = Digest::of(&config);
    let config_bytes = config.len();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"{WASM_CONFIG}","digest":"{config_digest}","size":{config_bytes}}},"layers":[{{"mediaType":"{WASM_LAYER}","digest":"{digest}","size":{bytes}}}]}}"#
    )
    .into_bytes();
    (config, manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let digest = Digest::of(b"component");
        let (config, manifest) = for_component(&digest, 9);
        let manifest = Manifest::parse(&manifest).unwrap();
        assert!(!manifest.is_index());
        assert_eq!(manifest.component_layer().unwrap(), ComponentLayer { digest, bytes: 9 });
        assert_eq!(manifest.config.unwrap().digest, Digest::of(&config).as_str());
        serde_json::from_slice::<serde_json::Value>(&config).unwrap();
    }

    #[test]
    fn images_for_containers_are_refused_with_a_reason() {
        let digest = Digest::of(b"x");
        let layers = |types: &[&str]| {
            let layers: Vec<String> =
                types.iter().map(|kind| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":1}}"#)).collect();
            let json = format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","));
            Manifest::parse(json.as_bytes()).unwrap().component_layer().unwrap_err().to_string()
        };
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        assert_eq!(
            layers(&[gzip]),
            format!("the image is not a WebAssembly image: it has {gzip}, wanted is application/wasm")
        );
        assert_eq!(layers(&[]), "the image is not a WebAssembly image: it has no layer, wanted is application/wasm");
        assert_eq!(layers(&[WASM_LAYER, WASM_LAYER]), "the image has more than one WebAssembly layer");
    }

    #[test]
    fn an_index_s_wasm_entry_is_found() {
        let entry = |digit: char, platform: &str| {
            let digest = format!("sha256:{}", digit.to_string().repeat(64));
            format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":1{platform}}}"#)
        };
        let index = |entries: &[String]| {
            let json = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, entries.join(","));
            Manifest::parse(json.as_bytes()).unwrap()
        };
        let linux = entry('1', r#","platform":{"architecture":"amd64","os":"linux"}"#);
        let wasm = entry('2', r#","platform":{"architecture":"wasm","os":"wasip2"}"#);
        let plain = entry('3', "");
        assert!(index(&[linux.clone(), wasm.clone()]).wasm_entry().unwrap().digest.contains("222"));
        assert!(index(std::slice::from_ref(&plain)).wasm_entry().unwrap().digest.contains("333"));
        assert!(index(&[linux, plain]).wasm_entry().is_err());
    }
}
