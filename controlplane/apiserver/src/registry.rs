//! Kinds beside the store: which collection a kind lives in, and the way between an object and its stored text.
//! It never decides whether a write is allowed.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::kind::{DecodeError, Decoded, Kind, Object, Storage};
use coracle_api::{ApiError, KINDS};
use coracle_store::{Collection, Entry, Key, Revision, Value};

/// A kind with its collection.
#[derive(Debug, Clone)]
pub struct Served {
    /// The row of the table of kinds.
    pub kind: &'static Kind,
    /// Where its objects are.
    pub collection: Collection,
}

impl Served {
    /// The key of an object.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> Key {
        self.collection.key(if self.kind.namespaced() { namespace } else { "" }, name)
    }
}

/// Every kind that is served.
#[derive(Debug)]
pub struct Registry {
    kinds: Vec<Arc<Served>>,
}

impl Default for Registry {
    fn default() -> Self {
        let serve =
            |kind: &'static Kind| Arc::new(Served { kind, collection: Collection::from_prefix(&kind.collection()) });
        Self { kinds: KINDS.iter().map(serve).collect() }
    }
}

impl Registry {
    /// The kind of a path.
    #[must_use]
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Served>> {
        self.kinds.iter().find(|s| s.kind.info.plural == plural && s.kind.group == group && s.kind.version == version)
    }

    /// The kind of a Rust type.
    #[must_use]
    pub fn of<T: coracle_api::Resource>(&self) -> &Arc<Served> {
        self.find(T::GROUP, T::VERSION, T::INFO.plural).expect("each Resource has a row in KINDS")
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Arc<Served>> {
        self.kinds.iter()
    }
}

/// A stored object: its entry, and its decoded form shared with every other reader.
#[derive(Debug, Clone)]
pub struct Stored {
    /// As the store has it.
    pub entry: Arc<Entry>,
    shared: Arc<dyn std::any::Any + Send + Sync>,
    kind: &'static Kind,
}

impl Stored {
    /// Decodes an entry of a kind, once for all readers.
    ///
    /// # Errors
    /// The store holds a text that this server did not write.
    pub fn of(kind: &'static Kind, entry: Arc<Entry>) -> Result<Self, ApiError> {
        let shared = match kind.info.storage {
            Storage::Own | Storage::Never => entry.decoded_any(|bytes| kind.decode_shared(bytes)),
            // The shared slot belongs to the kind that is stored.
            Storage::SharedWith { from_stored, .. } => {
                from_stored(&entry.bytes).and_then(|text| kind.decode_shared(&text))
            }
        }
        .map_err(|e| unreadable(&entry, &e))?;
        Ok(Self { entry, shared, kind })
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> &dyn Object {
        self.kind.object(&self.shared).expect("the entry was decoded as this kind")
    }

    /// The object as its own type.
    #[must_use]
    pub fn typed<T: coracle_api::Resource>(&self) -> Option<&T> {
        self.shared.downcast_ref()
    }

    /// The text in this kind's version.
    ///
    /// # Errors
    /// The store holds a text that this server did not write.
    pub fn bytes(&self) -> Result<Bytes, ApiError> {
        wire_bytes(self.kind, &self.entry)
    }
}

fn unreadable(entry: &Entry, error: &DecodeError) -> ApiError {
    tracing::error!(key = %entry.key, %error, "a stored object cannot be read");
    ApiError::internal(format!("{} cannot be read from the store", entry.key))
}

/// The text of an entry in a kind's version: shared bytes where the stored version is the kind's own.
pub(crate) fn wire_bytes(kind: &Kind, entry: &Entry) -> Result<Bytes, ApiError> {
    match kind.info.storage {
        Storage::Own | Storage::Never => Ok(entry.bytes.clone()),
        Storage::SharedWith { from_stored, .. } => {
            from_stored(&entry.bytes).map(Bytes::from).map_err(|e| unreadable(entry, &e))
        }
    }
}

/// Reads an object a client sent.
///
/// # Errors
/// The text is no object of the kind.
pub(crate) fn decode_client(kind: &Kind, json: &[u8]) -> Result<Decoded, ApiError> {
    kind.decode(json).map_err(|e| {
        let (name, version) = (kind.kind, kind.version);
        ApiError::bad_request(format!("{name} in version {version:?} cannot be handled as a {name}: {e}"))
    })
}

/// The text to store: the object's JSON with a gap at `metadata.resourceVersion` that the store fills.
///
/// # Errors
/// The object cannot be turned into the stored version.
pub(crate) fn encode(kind: &Kind, object: &mut dyn Object) -> Result<Value, ApiError> {
    object.meta_mut().resource_version = None;
    let mut json = object.encode();
    if let Storage::SharedWith { to_stored, .. } = kind.info.storage {
        json = to_stored(&json).map_err(|e| ApiError::bad_request(e.to_string()))?;
    }
    Ok(stamped(json))
}

/// Splits the text behind the object's own `"metadata":{`, where the store writes the revision.
fn stamped(mut json: Vec<u8>) -> Value {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let at = own_metadata(&json).expect("every encoded object has metadata");
    let rest = json.split_off(at);
    json.extend_from_slice(FIELD);
    let mut tail = Vec::with_capacity(rest.len() + 2);
    tail.push(b'"');
    if rest.first() != Some(&b'}') {
        tail.push(b',');
    }
    tail.extend_from_slice(&rest);
    Value::stamped(json, tail)
}

/// The offset behind `"metadata":{` of the outermost object. Fields that come before it may hold objects with metadata of
/// their own (the `data` of a ControllerRevision), so depth counts.
fn own_metadata(json: &[u8]) -> Option<usize> {
    const OPEN: &[u8] = b"\"metadata\":{";
    let (mut depth, mut i) = (0_usize, 0);
    while i < json.len() {
        match json[i] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' if depth == 1 && json[i..].starts_with(OPEN) => return Some(i + OPEN.len()),
            b'"' => {
                i += 1;
                while *json.get(i)? != b'"' {
                    i += if json[i] == b'\\' { 2 } else { 1 };
                }
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// The text of an object that is answered but not stored (dry run): as it would be at `revision`.
pub(crate) fn encode_unstored(object: &mut dyn Object, revision: Option<Revision>) -> Bytes {
    object.meta_mut().resource_version = revision.map(|r| r.to_string());
    Bytes::from(object.encode())
}

#[cfg(test)]
mod tests {
    use super::own_metadata;

    #[test]
    fn the_objects_own_metadata_is_found() {
        let cases = [
            (r#"{"metadata":{}}"#, Some("}}")),
            (r#"{"data":{"metadata":{"name":1}},"metadata":{}}"#, Some("}}")),
            (r#"{"a":"\"metadata\":{","metadata":{"x":1}}"#, Some(r#""x":1}}"#)),
            (r#"{"a":["}",{"metadata":{}}]}"#, None),
        ];
        for (text, expected) in cases {
            assert_eq!(own_metadata(text.as_bytes()).map(|at| &text[at..]), expected, "{text}");
        }
    }
}
