//! The shapes an object is answered in: itself, `PartialObjectMetadata`, or a row of a `Table` (which `kubectl get` asks for).
//! Plain objects are answered with the bytes the store shares; nothing is serialised again.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use coracle_api::kind::{Kind, Object, Storage};
use coracle_api::table::Cell;
use coracle_api::{ApiError, managed};
use coracle_store::Entry;
use http::{HeaderMap, Response, StatusCode, header};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::body::Body;
use crate::registry::{Stored, wire_bytes};
use crate::request::Query;
use crate::wire::{self, Clause, Form};

/// Larger lists are sent in pieces of about this size, so that no list is ever joined in memory.
const PIECE_BYTES: usize = 64 * 1024;

/// What of each object a table's row carries (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// The shape a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Plain,
    Partial,
    Table(IncludeObject),
}

impl Shape {
    /// The first shape of the `Accept` header that this server has.
    pub(crate) fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Self, ApiError> {
        let Some(accept) = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).filter(|v| !v.trim().is_empty())
        else {
            return Ok(Self::Plain);
        };
        let form = Form::accepted(headers);
        for clause in Clause::all(accept).filter(|c| c.form == form) {
            match clause.wanted {
                None => return Ok(Self::Plain),
                // v1beta1 has the same fields; clients take the kind from the answer.
                Some("Table") if clause.version == Some("v1") && form != Form::Protobuf => {
                    return Ok(Self::Table(include_object(query)?));
                }
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") if clause.version == Some("v1") => {
                    return Ok(Self::Partial);
                }
                Some(_) => {}
            }
        }
        Err(ApiError::not_acceptable(wire::MEDIA_TYPES))
    }

    /// The object's own bytes are what is answered.
    pub(crate) fn is_plain(self) -> bool {
        self == Self::Plain
    }
}

fn include_object(query: &Query) -> Result<IncludeObject, ApiError> {
    match query.get("includeObject") {
        None | Some("" | "Metadata") => Ok(IncludeObject::Metadata),
        Some("None") => Ok(IncludeObject::None),
        Some("Object") => Ok(IncludeObject::Object),
        Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// `PartialObjectMetadata` of an object at a revision; `text` is the object's, where its managed fields are.
fn partial(object: &dyn Object, text: Option<&Bytes>, revision: &str) -> Result<Box<RawValue>, ApiError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Partial<'a> {
        kind: &'static str,
        api_version: &'static str,
        metadata: Metadata<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        #[serde(skip_serializing_if = "str::is_empty")]
        resource_version: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        managed_fields: Option<&'a RawValue>,
        #[serde(flatten)]
        rest: &'a ObjectMeta,
    }
    let rest = ObjectMeta { resource_version: None, ..object.meta().clone() };
    let metadata = Metadata { resource_version: revision, managed_fields: managed_of(text), rest: &rest };
    let partial = Partial { kind: "PartialObjectMetadata", api_version: "meta.k8s.io/v1", metadata };
    serde_json::value::to_raw_value(&partial).map_err(|e| ApiError::internal(e.to_string()))
}

fn text_of(json: Box<RawValue>) -> Bytes {
    String::from(Box::<str>::from(json)).into()
}

fn managed_of(text: Option<&Bytes>) -> Option<&RawValue> {
    serde_json::from_slice(managed::field(text?)?).ok()
}

fn column_definitions(kind: &Kind) -> Value {
    kind.info
        .columns
        .iter()
        .map(|c| {
            json!({"name": c.name, "type": c.type_, "format": c.format, "description": c.description, "priority": c.priority})
        })
        .collect()
}

/// A row of a table.
#[derive(Serialize)]
struct Row {
    cells: Vec<Cell>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Box<RawValue>>,
}

fn row(
    object: &dyn Object,
    text: Option<&Bytes>,
    revision: &str,
    include: IncludeObject,
    now: Timestamp,
) -> Result<Row, ApiError> {
    let carried = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(partial(object, text, revision)?),
        IncludeObject::Object => text.and_then(|t| serde_json::from_slice(t).ok()),
    };
    Ok(Row { cells: object.row(now), object: carried })
}

/// One object in the shape asked for.
pub(crate) fn one(kind: &Kind, stored: &Stored, shape: Shape, now: Timestamp) -> Result<Bytes, ApiError> {
    if shape.is_plain() {
        return stored.bytes();
    }
    shaped(kind, stored.object(), Some(&stored.bytes()?), &stored.entry.revision.to_string(), shape, now, true)
}

/// An object that may not be stored, in a shape. `first` says whether a table names its columns.
pub(crate) fn shaped(
    kind: &Kind,
    object: &dyn Object,
    bytes: Option<&Bytes>,
    revision: &str,
    shape: Shape,
    now: Timestamp,
    first: bool,
) -> Result<Bytes, ApiError> {
    match shape {
        Shape::Plain => Ok(bytes.cloned().unwrap_or_else(|| Bytes::from(object.encode()))),
        Shape::Partial => Ok(text_of(partial(object, bytes, revision)?)),
        Shape::Table(include) => {
            let columns = if first { column_definitions(kind) } else { Value::Null };
            let row = to_bytes(&row(object, bytes, revision, include, now)?)?;
            let head = format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{},\"columnDefinitions\":{columns},\"rows\":[",
                json!({"resourceVersion": revision}),
            );
            Ok([head.as_bytes(), &row, b"]}"].concat().into())
        }
    }
}

/// The metadata of a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: String,
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub(crate) continue_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remaining_item_count: Option<usize>,
}

/// A list in the shape asked for.
pub(crate) fn list(
    kind: &'static Kind,
    items: Vec<Arc<Entry>>,
    meta: &ListMeta,
    shape: Shape,
    now: Timestamp,
) -> Result<Body, ApiError> {
    let meta = serde_json::to_string(meta).map_err(|e| ApiError::internal(e.to_string()))?;
    let head = |kind: &str, version: &str, rest: &str| {
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{meta},{rest}[")
    };
    match shape {
        Shape::Plain if matches!(kind.info.storage, Storage::Own) => {
            Ok(Texts::body(head(kind.list_kind, kind.api_version, "\"items\":"), items))
        }
        Shape::Plain => {
            let mut out = Pieces::new(head(kind.list_kind, kind.api_version, "\"items\":"));
            for (i, entry) in items.iter().enumerate() {
                out.item(i, &wire_bytes(kind, entry)?);
            }
            Ok(out.end())
        }
        Shape::Partial => {
            let mut out = Pieces::new(head("PartialObjectMetadataList", "meta.k8s.io/v1", "\"items\":"));
            for (i, entry) in items.into_iter().enumerate() {
                let revision = entry.revision.to_string();
                let stored = Stored::of(kind, entry)?;
                let partial = partial(stored.object(), Some(&stored.bytes()?), &revision)?;
                out.item(i, &text_of(partial));
            }
            Ok(out.end())
        }
        Shape::Table(include) => {
            let columns = format!("\"columnDefinitions\":{},\"rows\":", column_definitions(kind));
            let mut out = Pieces::new(head("Table", "meta.k8s.io/v1", &columns));
            for (i, entry) in items.into_iter().enumerate() {
                let revision = entry.revision.to_string();
                let stored = Stored::of(kind, entry)?;
                let row = row(stored.object(), Some(&stored.bytes()?), &revision, include, now)?;
                out.item(i, &to_bytes(&row)?);
            }
            Ok(out.end())
        }
    }
}

/// A list of objects that are not stored, in the shape asked for.
pub(crate) fn unstored(kind: &Kind, items: &[Box<dyn Object>], shape: Shape, now: Timestamp) -> Result<Body, ApiError> {
    let head = |kind: &str, version: &str, rest: &str| {
        format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{}},{rest}[")
    };
    let mut out = Pieces::new(match shape {
        Shape::Plain => head(kind.list_kind, kind.api_version, "\"items\":"),
        Shape::Partial => head("PartialObjectMetadataList", "meta.k8s.io/v1", "\"items\":"),
        Shape::Table(_) => {
            let columns = format!("\"columnDefinitions\":{},\"rows\":", column_definitions(kind));
            head("Table", "meta.k8s.io/v1", &columns)
        }
    });
    for (i, item) in items.iter().enumerate() {
        let text = Bytes::from(item.encode());
        let item = match shape {
            Shape::Plain => text,
            Shape::Partial => text_of(partial(&**item, Some(&text), "")?),
            Shape::Table(include) => to_bytes(&row(&**item, Some(&text), "", include, now)?)?,
        };
        out.item(i, &item);
    }
    Ok(out.end())
}

/// What every list ends with.
const END: &[u8] = b"]}\n";

/// The pieces of a list of stored texts, each made when it is sent. The texts are copied together, since a piece for each
/// would cost a record of TLS and a call of the kernel for every few of them.
struct Texts {
    head: Option<String>,
    entries: std::vec::IntoIter<Arc<Entry>>,
    /// A text that is a piece of its own.
    large: Option<Bytes>,
    is_first: bool,
    /// Bytes that are not sent yet.
    left: usize,
}

impl Texts {
    fn body(head: String, entries: Vec<Arc<Entry>>) -> Body {
        let texts: usize = entries.iter().map(|entry| entry.bytes.len()).sum();
        let length = head.len() + texts + entries.len().saturating_sub(1) + END.len();
        let entries = entries.into_iter();
        Body::made(Self { head: Some(head), entries, large: None, is_first: true, left: length }, length as u64)
    }
}

impl Iterator for Texts {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = match self.large.take() {
            Some(large) => large,
            None if self.left == 0 => return None,
            None => self.joined().into(),
        };
        self.left = self.left.saturating_sub(piece.len());
        Some(piece)
    }
}

impl Texts {
    fn joined(&mut self) -> Vec<u8> {
        let mut piece = Vec::with_capacity(PIECE_BYTES.min(self.left));
        piece.extend_from_slice(self.head.take().unwrap_or_default().as_bytes());
        while let Some(next) = self.entries.as_slice().first() {
            let length = next.bytes.len();
            let is_large = length >= PIECE_BYTES;
            if !is_large && !piece.is_empty() && piece.len() + 1 + length > PIECE_BYTES {
                return piece;
            }
            if !std::mem::replace(&mut self.is_first, false) {
                piece.push(b',');
            }
            match self.entries.next() {
                Some(entry) if is_large => {
                    self.large = Some(entry.bytes.clone());
                    return piece;
                }
                Some(entry) => piece.extend_from_slice(&entry.bytes),
                None => break,
            }
        }
        piece.extend_from_slice(END);
        piece
    }
}

struct Pieces {
    done: VecDeque<Bytes>,
    open: Vec<u8>,
}

impl Pieces {
    fn new(head: String) -> Self {
        Self { done: VecDeque::new(), open: head.into_bytes() }
    }

    fn item(&mut self, index: usize, bytes: &Bytes) {
        if index > 0 {
            self.open.push(b',');
        }
        if self.open.len() + bytes.len() > PIECE_BYTES && !self.open.is_empty() {
            self.done.push_back(std::mem::take(&mut self.open).into());
        }
        if bytes.len() >= PIECE_BYTES {
            self.done.push_back(bytes.clone());
        } else {
            self.open.reserve(PIECE_BYTES.min(bytes.len() * 8));
            self.open.extend_from_slice(bytes);
        }
    }

    fn end(mut self) -> Body {
        self.open.extend_from_slice(END);
        self.done.push_back(self.open.into());
        Body::pieces(self.done)
    }
}

pub(crate) fn to_bytes(value: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|e| ApiError::internal(e.to_string()))
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// The answer to a failed request: its `Status`.
pub(crate) fn error(error: &ApiError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = serde_json::to_vec(&error.to_status()).unwrap_or_default();
    let mut response = json(status, Body::full(body));
    if let Some(seconds) = error.details.as_ref().and_then(|d| d.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::KINDS;
    use coracle_store::{Collection, ListRange, Op, Options, SqliteStore, Store as _, Value as StoredValue};
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn lists_are_sent_in_pieces_of_their_announced_length() {
        let kind = KINDS.iter().find(|kind| kind.kind == "ConfigMap").unwrap();
        let meta = ListMeta { resource_version: "7".to_owned(), continue_token: None, remaining_item_count: None };
        let check = async |lengths: &[usize]| {
            let store = SqliteStore::in_memory(Options::default()).unwrap();
            let collection = Collection::new("", "configmaps");
            let text = |n: usize, length: &usize| format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(*length));
            for (n, length) in lengths.iter().enumerate() {
                let (key, value) = (collection.key("ns", &format!("{n:04}")), StoredValue::plain(text(n, length)));
                store.commit(vec![Op::Create { key, value }], coracle_store::Durability::Durable).await.unwrap();
            }
            let items = store.list(&collection, &ListRange::all()).entries;
            let mut body = list(kind, items, &meta, Shape::Plain, Timestamp::UNIX_EPOCH).unwrap();
            let announced = http_body::Body::size_hint(&body).exact().unwrap();
            let mut all = Vec::new();
            while let Some(frame) = body.frame().await {
                let piece = frame.unwrap().into_data().unwrap();
                assert!(
                    !piece.is_empty()
                        && piece.len() <= (PIECE_BYTES + END.len()).max(lengths.iter().max().map_or(0, |l| l + 100))
                );
                all.extend_from_slice(&piece);
            }
            assert!(http_body::Body::is_end_stream(&body));
            assert_eq!(all.len() as u64, announced, "{lengths:?}");
            let read: Value = serde_json::from_slice(&all).unwrap();
            assert_eq!(read["kind"], "ConfigMapList");
            let found: Vec<usize> =
                read["items"].as_array().unwrap().iter().map(|i| i["x"].as_str().unwrap().len()).collect();
            assert_eq!(found, lengths);
        };
        check(&[]).await;
        check(&[10]).await;
        check(&[1000; 200]).await;
        check(&[PIECE_BYTES; 2]).await;
        check(&[5, 200_000, 5, 70_000, 70_000, 40_000, 40_000, 1]).await;
        check(&[PIECE_BYTES - 120, 40, 60]).await;
    }

    #[test]
    fn shapes_are_negotiated() {
        let check = |accept: Option<&str>, query: &str, expected: Option<Shape>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Shape::negotiate(&headers, &Query::parse(query)).ok(), expected, "{accept:?} {query}");
        };
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        check(None, "", Some(Shape::Plain));
        check(Some("*/*"), "", Some(Shape::Plain));
        check(Some(table), "", Some(Shape::Table(IncludeObject::Metadata)));
        check(Some(table), "includeObject=Object", Some(Shape::Table(IncludeObject::Object)));
        check(Some(table), "includeObject=x", None);
        check(Some("application/vnd.kubernetes.protobuf,application/json"), "", Some(Shape::Plain));
        check(Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"), "", Some(Shape::Partial));
        check(
            Some("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"),
            "",
            Some(Shape::Partial),
        );
        check(
            Some("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/yaml"),
            "",
            Some(Shape::Plain),
        );
        check(Some("application/yaml"), "", Some(Shape::Plain));
        check(Some("text/html"), "", None);
    }
}
