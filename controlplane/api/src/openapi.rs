//! OpenAPI documents of what the server serves, v2 and v3, made from the table of kinds and the packed definitions of
//! their types. A document is made when asked for and kept by the caller; nothing stays unpacked here.

mod definitions;
mod operations;
#[cfg(test)]
mod tests;
mod v2_document;
mod v3_document;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::kind::Kind;

pub use definitions::definition_name;
#[cfg(test)]
pub(crate) use definitions::properties as definition_properties;

/// What the documents say of the server.
pub(crate) const VERSION: &str = "v1.36.0";

/// The OpenAPI v2 document of all kinds, as JSON (`/openapi/v2`).
#[must_use]
pub fn v2(kinds: &[Kind]) -> Vec<u8> {
    v2_document::render(kinds)
}

/// The OpenAPI v2 document as protobuf, by gnostic's `openapi.v2.Document`: the form in which `kubectl` asks for it.
#[must_use]
pub fn v2_protobuf(kinds: &[Kind]) -> Vec<u8> {
    let document = serde_json::from_slice(&v2(kinds)).expect("the document was just written as JSON");
    crate::protobuf::openapi_document(&document).expect("each part of the document is in the table, a test writes it")
}

/// The index of the OpenAPI v3 documents (`/openapi/v3`): one path for each group and version, with a hash by which
/// clients may keep it.
#[must_use]
pub fn v3_index(kinds: &[Kind]) -> Vec<u8> {
    let mut paths = Map::new();
    for kind in kinds {
        let key = group_version_path(kind);
        if !paths.contains_key(&key) {
            let url = format!("/openapi/v3/{key}?hash={}", hash(&key, kinds));
            paths.insert(key, json!({ "serverRelativeURL": url }));
        }
    }
    json!({ "paths": paths }).to_string().into_bytes()
}

/// The OpenAPI v3 document of a group and version, named as in [`v3_index`]: `api/v1`, `apis/apps/v1`. `None` if no kind
/// is of it.
#[must_use]
pub fn v3(group_version: &str, kinds: &[Kind]) -> Option<Vec<u8>> {
    let kinds: Vec<Kind> = kinds.iter().filter(|k| group_version_path(k) == group_version).copied().collect();
    if kinds.is_empty() { None } else { Some(v3_document::render(&kinds)) }
}

/// The hash of a document, as in the index: it changes when the document does.
#[must_use]
pub fn hash(group_version: &str, kinds: &[Kind]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    hasher.update(definitions::PACKED);
    for kind in kinds.iter().filter(|k| group_version_path(k) == group_version) {
        hasher.update(format!("{}/{}/{:?};", kind.api_version, kind.kind, kind.info.subresources));
    }
    hasher.finalize().iter().map(|b| format!("{b:02X}")).collect()
}

/// `api/v1`, `apis/apps/v1`.
fn group_version_path(kind: &Kind) -> String {
    if kind.group.is_empty() { format!("api/{}", kind.version) } else { format!("apis/{}", kind.api_version) }
}

/// `x-kubernetes-group-version-kind`.
fn gvk_value((group, version, kind): (&str, &str, &str)) -> Value {
    json!({"group": group, "kind": kind, "version": version})
}
