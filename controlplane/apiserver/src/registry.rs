//! Kinds beside the store: which collection a kind lives in, and the way between an object and its stored text.
//! It never decides whether a write is allowed.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use coracle_api::kind::{DecodeError, Kind, Object, Shared, Storage};
use coracle_api::{ApiError, KINDS, managed};
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
    shared: OnceLock<Shared>,
    kind: &'static Kind,
}

impl Stored {
    /// Decodes an entry of a kind, once for all readers.
    ///
    /// # Errors
    /// The store holds a text that this server did not write.
    pub fn of(kind: &'static Kind, entry: Arc<Entry>) -> Result<Self, ApiError> {
        let shared = decode_entry(kind, &entry).map_err(|e| unreadable(&entry, &e))?;
        Ok(Self { entry, shared: OnceLock::from(shared), kind })
    }

    /// What this server has just written. It is decoded only if somebody asks: most answers are the text alone.
    pub(crate) fn written(kind: &'static Kind, entry: Arc<Entry>) -> Self {
        Self { entry, shared: OnceLock::new(), kind }
    }

    fn shared(&self) -> &Shared {
        let decode = || decode_entry(self.kind, &self.entry).expect("this server made the text from such an object");
        self.shared.get_or_init(decode)
    }

    /// The object.
    #[must_use]
    pub fn object(&self) -> &dyn Object {
        self.kind.object(self.shared()).expect("the entry was decoded as this kind")
    }

    /// The object as its own type.
    #[must_use]
    pub fn typed<T: coracle_api::Resource>(&self) -> Option<&T> {
        self.shared().downcast_ref()
    }

    /// The text in this kind's version.
    ///
    /// # Errors
    /// The store holds a text that this server did not write.
    pub fn bytes(&self) -> Result<Bytes, ApiError> {
        wire_bytes(self.kind, &self.entry)
    }

    /// The text of its `metadata.managedFields`, which the decoded form leaves out.
    #[must_use]
    pub fn managed(&self) -> Option<&[u8]> {
        managed::field(&self.entry.bytes)
    }
}

fn decode_entry(kind: &Kind, entry: &Entry) -> Result<Shared, DecodeError> {
    match kind.info.storage {
        Storage::Own | Storage::Never | Storage::Measured => entry.decoded_any(|bytes| kind.decode_shared(bytes)),
        // The shared slot belongs to the kind that is stored.
        Storage::SharedWith { from_stored, .. } => {
            from_stored(&managed::without(&entry.bytes)).and_then(|text| kind.decode_shared(&text))
        }
    }
}

fn unreadable(entry: &Entry, error: &DecodeError) -> ApiError {
    tracing::error!(key = %entry.key, %error, "a stored object cannot be read");
    ApiError::internal(format!("{} cannot be read from the store", entry.key))
}

/// The text of an entry in a kind's version: shared bytes where the stored version is the kind's own.
pub(crate) fn wire_bytes(kind: &Kind, entry: &Entry) -> Result<Bytes, ApiError> {
    match kind.info.storage {
        Storage::Own | Storage::Never | Storage::Measured => Ok(entry.bytes.clone()),
        Storage::SharedWith { from_stored, .. } => {
            // Each record of the managed fields names its own version.
            let text = from_stored(&managed::without(&entry.bytes)).map_err(|e| unreadable(entry, &e))?;
            Ok(Bytes::from(with_managed(text, managed::field(&entry.bytes))))
        }
    }
}

/// Puts managed fields into a text that has none, where stored texts have them: first in the metadata, or behind the
/// version if that is first.
fn with_managed(mut text: Vec<u8>, managed: Option<&[u8]>) -> Vec<u8> {
    let Some(managed) = managed else { return text };
    let at = managed::place(&text).expect("every encoded object has metadata");
    let mut member = Vec::with_capacity(managed.len() + 20);
    member.extend_from_slice(b"\"managedFields\":");
    member.extend_from_slice(managed);
    if text.get(at) != Some(&b'}') {
        member.push(b',');
    }
    text.splice(at..at, member);
    text
}

/// Reads an object a client sent.
///
/// # Errors
/// The text is no object of the kind.
pub(crate) fn decode_client(kind: &Kind, json: &[u8]) -> Result<Box<dyn Object>, ApiError> {
    kind.decode(json).map_err(|e| ApiError::bad_request(refusal(kind, json, &e)))
}

/// Why a body is no object of the kind, in the words of `transformDecodeError`.
fn refusal(kind: &Kind, json: &[u8], error: &DecodeError) -> String {
    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct TypeMeta {
        api_version: String,
        kind: String,
    }
    let name = kind.kind;
    let Ok(given) = serde_json::from_slice::<TypeMeta>(json) else {
        let json_error = serde_json::from_slice::<serde::de::IgnoredAny>(json).err();
        let why = json_error.map_or_else(|| error.to_string(), |e| e.to_string());
        return format!(
            "the object provided is unrecognized (must be of type {name}): couldn't get version/kind; json parse error: {why} ({})",
            summary(json)
        );
    };
    let version = given.api_version.rsplit('/').next().unwrap_or_default();
    if given.kind.is_empty() || (given.kind == name && given.api_version == kind.api_version) {
        return format!("{name} in version {:?} cannot be handled as a {name}: {error}", kind.version);
    }
    let why = if coracle_api::kinds::find_by_kind(&given.api_version, &given.kind).is_some() {
        format!("converting ({version}.{}) to ({name}): unknown conversion", given.kind)
    } else {
        format!("no kind {:?} is registered for version {:?} in scheme", given.kind, given.api_version)
    };
    format!("{} in version {version:?} cannot be handled as a {name}: {why}", given.kind)
}

/// The beginning of a body that is no JSON, as hexadecimal digits (`summarizeData`).
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    if body.is_empty() {
        return "<empty>".to_owned();
    }
    let shown: String = body.iter().take(SHOWN).map(|b| format!("{b:02x}")).collect();
    if body.len() > SHOWN { format!("{shown} ...") } else { shown }
}

/// The object's JSON without its version and its managed fields, which have their place in the stored text.
pub(crate) fn text(object: &mut dyn Object) -> Vec<u8> {
    let version = object.meta_mut().resource_version.take();
    let json = object.encode();
    object.meta_mut().resource_version = version;
    json
}

/// Texts up to this size are stored together with the object they were made of: those who follow the changes share it. The
/// store keeps the forms of some hundred changes, whose size this bounds.
const MAX_SHARED_BYTES: usize = 16 * 1024;

/// What to store: the object's JSON with a gap at `metadata.resourceVersion` that the store fills.
///
/// # Errors
/// The object cannot be turned into the stored version.
pub(crate) fn encode(kind: &Kind, mut object: Box<dyn Object>, managed: Option<&[u8]>) -> Result<Value, ApiError> {
    let json = text(object.as_mut());
    to_store(kind, json, object, managed)
}

/// The same with what [`text`] gave for the object.
///
/// # Errors
/// The object cannot be turned into the stored version.
pub(crate) fn to_store(
    kind: &Kind,
    json: Vec<u8>,
    mut object: Box<dyn Object>,
    managed: Option<&[u8]>,
) -> Result<Value, ApiError> {
    if let Storage::SharedWith { to_stored, .. } = kind.info.storage {
        let json = to_stored(&json).map_err(|e| ApiError::bad_request(e.to_string()))?;
        return Ok(stamped(json, managed));
    }
    let is_shared = kind.info.is_followed && json.len() <= MAX_SHARED_BYTES;
    let value = stamped(json, managed);
    if !is_shared {
        return Ok(value);
    }
    Ok(value.with_form(move |revision| {
        let meta = object.meta_mut();
        meta.managed_fields = None;
        meta.resource_version = Some(revision.to_string());
        let object: Box<dyn Any + Send + Sync> = object;
        Arc::from(object)
    }))
}

/// Splits the text behind the object's own `"metadata":{`, where the store writes the revision.
fn stamped(mut json: Vec<u8>, managed: Option<&[u8]>) -> Value {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let at = managed::place(&json).expect("every encoded object has metadata");
    let rest = json.split_off(at);
    json.extend_from_slice(FIELD);
    let mut tail = Vec::with_capacity(rest.len() + managed.map_or(0, <[u8]>::len) + 24);
    tail.push(b'"');
    if let Some(managed) = managed {
        tail.extend_from_slice(b",\"managedFields\":");
        tail.extend_from_slice(managed);
    }
    if rest.first() != Some(&b'}') {
        tail.push(b',');
    }
    tail.extend_from_slice(&rest);
    Value::stamped(json, tail)
}

/// The text of an object that is answered but not stored (dry run): as it would be at `revision`.
pub(crate) fn encode_unstored(object: &mut dyn Object, revision: Option<Revision>, managed: Option<&[u8]>) -> Bytes {
    object.meta_mut().resource_version = revision.map(|r| r.to_string());
    Bytes::from(with_managed(object.encode(), managed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_fields_stand_where_they_are_found() {
        let check = |text: &str, expected: &str| {
            let with = with_managed(text.as_bytes().to_vec(), Some(b"[1]"));
            assert_eq!(str::from_utf8(&with).unwrap(), expected);
            assert_eq!(managed::field(&with), Some(b"[1]".as_slice()), "{expected}");
            assert_eq!(*managed::without(&with), *text.as_bytes());
        };
        check(
            r#"{"data":{"metadata":{}},"metadata":{}}"#,
            r#"{"data":{"metadata":{}},"metadata":{"managedFields":[1]}}"#,
        );
        check(r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"managedFields":[1],"name":"a"}}"#);
        assert_eq!(with_managed(b"{}".to_vec(), None), b"{}");
    }
}
