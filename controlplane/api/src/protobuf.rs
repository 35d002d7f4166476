//! Objects as Kubernetes' protobuf (`application/vnd.kubernetes.protobuf`) to and from their JSON, which is all the rest
//! of the server knows. One table of messages drives both ways, made from Kubernetes' own types by
//! `controlplane/api/schemas/protobuf`; it is unpacked on first use. Nothing here knows a kind.

mod decode;
mod encode;
mod openapi;
mod schema;
mod special;
#[cfg(test)]
mod tests;
mod wire;

use serde_json::Value;

pub(crate) use schema::messages;

use encode::Mismatch;
use wire::{Fields, Piece, Writer};

/// What every object begins with (`runtime/serializer/protobuf`).
const MAGIC: &[u8; 4] = b"k8s\0";
/// Deeper objects are refused. The deepest types, schemas of custom resources, are as deep in JSON, where the limit is the
/// reader's 128.
const MAX_DEPTH: usize = 100;
/// An object of more values than this is refused: three megabytes of the smallest fields would need a hundred times that.
const MAX_VALUES: usize = 500_000;

/// Bytes that are no object in protobuf.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The four bytes at the start are missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NotAnObject,
    /// The bytes end inside a field, or are none.
    #[error("proto: {0}")]
    Malformed(&'static str),
    /// The kind has no form in protobuf here.
    #[error("no kind {kind:?} is registered for version {api_version:?} in scheme")]
    UnknownKind {
        /// `apiVersion` of the object.
        api_version: String,
        /// `kind` of the object.
        kind: String,
    },
    /// The object is compressed, or of another form still.
    #[error("the object's contentEncoding {0:?} is not known")]
    UnknownEncoding(String),
    /// JSON inside the object is none.
    #[error("embedded JSON: {0}")]
    EmbeddedJson(String),
    /// A limit is passed.
    #[error("the object has more than {limit} {what}")]
    TooLarge {
        /// The limit.
        limit: usize,
        /// What there is too much of.
        what: &'static str,
    },
}

/// The JSON of an object in its envelope.
///
/// # Errors
/// The bytes are no object of a known kind, or exceed a limit.
pub fn to_json(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let value = decode::Decoder::new(schema::schema()).object(bytes, 0)?;
    Ok(value.to_string().into_bytes())
}

/// An object's JSON as protobuf in its envelope. `None`: the text is no object of a kind that has a form in protobuf, such
/// as a `Table` or a custom resource.
#[must_use]
pub fn from_json(json: &[u8]) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_slice(json).ok()?;
    envelope(&value).ok()
}

/// The OpenAPI v2 document as protobuf. `None`: something in it has no row in the table of its messages.
pub(crate) fn openapi_document(document: &Value) -> Option<Vec<u8>> {
    openapi::document(document).ok()
}

/// An event of a watch, given as JSON (`{"type":…,"object":…}`), as a frame of `stream=watch`: four bytes of length, the
/// most significant first, then `WatchEvent`. `None` as in [`from_json`].
#[must_use]
pub fn watch_frame(json: &[u8]) -> Option<Vec<u8>> {
    let event: Value = serde_json::from_slice(json).ok()?;
    let mut out = Writer::default();
    out.bytes(1, event.get("type")?.as_str()?.as_bytes());
    let object = envelope(event.get("object")?).ok()?;
    out.message(2, |raw| {
        raw.bytes(1, &object);
        Ok::<(), Mismatch>(())
    })
    .ok()?;
    let event = out.finish();
    let mut frame = u32::try_from(event.len()).ok()?.to_be_bytes().to_vec();
    frame.extend_from_slice(&event);
    Some(frame)
}

/// `runtime.Unknown` behind [`MAGIC`].
fn envelope(value: &Value) -> Result<Vec<u8>, Mismatch> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).ok_or(Mismatch);
    let (api_version, kind) = (text("apiVersion")?, text("kind")?);
    let schema = schema::schema();
    let message = schema.root(api_version, kind).ok_or(Mismatch)?;
    let mut out = Writer::starting_with(MAGIC);
    out.message(1, |type_meta| {
        type_meta.bytes(1, api_version.as_bytes());
        type_meta.bytes(2, kind.as_bytes());
        Ok::<(), Mismatch>(())
    })?;
    out.message(2, |raw| encode::object(schema, message, value, raw))?;
    // Kubernetes writes both, empty, and so tells that the content is protobuf.
    out.bytes(3, b"");
    out.bytes(4, b"");
    Ok(out.finish())
}

/// What the envelope says of its content.
#[derive(Debug, Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    content_encoding: &'a str,
    content_type: &'a str,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut envelope = Self::default();
        for field in Fields::new(bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotAnObject)?) {
            match field? {
                (1, Piece::Bytes(type_meta)) => {
                    for field in Fields::new(type_meta) {
                        match field? {
                            (1, Piece::Bytes(text)) => envelope.api_version = wire::text(text)?,
                            (2, Piece::Bytes(text)) => envelope.kind = wire::text(text)?,
                            _ => {}
                        }
                    }
                }
                (2, Piece::Bytes(raw)) => envelope.raw = raw,
                (3, Piece::Bytes(text)) => envelope.content_encoding = wire::text(text)?,
                (4, Piece::Bytes(text)) => envelope.content_type = wire::text(text)?,
                _ => {}
            }
        }
        Ok(envelope)
    }
}
