//! The forms in which bodies travel: JSON, Kubernetes' protobuf, YAML. Handlers know JSON only; a request in another form
//! becomes JSON before they see it, and an answer leaves in another form only for clients that do not take JSON, since
//! JSON is what the store shares.

use bytes::{Bytes, BytesMut};
use coracle_api::{ApiError, protobuf};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Response, header};
use serde_json::Value;

use crate::body::{Body, StreamError};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";
/// As Kubernetes lists them in its refusals.
pub(crate) const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// A form of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Protobuf,
    Yaml,
}

/// A clause of an `Accept` header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clause<'a> {
    pub(crate) form: Form,
    /// The kind the object is wanted as: `as=Table`.
    pub(crate) wanted: Option<&'a str>,
    /// The version of that kind.
    pub(crate) version: Option<&'a str>,
}

impl<'a> Clause<'a> {
    /// The clauses that name a form this server has, in their order.
    pub(crate) fn all(accept: &'a str) -> impl Iterator<Item = Self> {
        accept.split(',').filter_map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let form = Form::of_media(parts.next()?)?;
            let parameter = |name: &str| {
                clause.split(';').filter_map(|p| p.trim().split_once('=')).find(|(k, _)| *k == name).map(|(_, v)| v)
            };
            Some(Self { form, wanted: parameter("as"), version: parameter("v") })
        })
    }

    /// Whether this server can answer so. A table has no form in protobuf.
    fn is_possible(&self) -> bool {
        match self.wanted {
            None => true,
            Some("Table") => self.version == Some("v1") && self.form != Form::Protobuf,
            Some(kind) => self.version == Some("v1") && kind.starts_with("PartialObjectMetadata"),
        }
    }
}

impl Form {
    fn of_media(media: &str) -> Option<Self> {
        match media {
            JSON | "application/*" | "*/*" => Some(Self::Json),
            PROTOBUF => Some(Self::Protobuf),
            YAML => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The form of the answer: JSON if the client takes it at all, else the first it names.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut other = None;
        for clause in Clause::all(accept).filter(Clause::is_possible) {
            if clause.form == Self::Json {
                return Self::Json;
            }
            other.get_or_insert(clause.form);
        }
        other.unwrap_or(Self::Json)
    }

    /// An answer that is JSON, in this form. What has no other form, such as `/version` in protobuf, stays JSON and says so.
    pub(crate) fn answer(self, response: Response<Body>) -> Response<Body> {
        let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes() == JSON.as_bytes());
        if self == Self::Json || !is_json {
            return response;
        }
        let (mut head, body) = response.into_parts();
        let body = match body.into_pieces() {
            Err(stream) => stream,
            Ok(pieces) => {
                let mut json = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
                pieces.iter().for_each(|piece| json.extend_from_slice(piece));
                match self.encode(&json) {
                    None => Body::full(json.freeze()),
                    Some((media, bytes)) => {
                        head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
                        Body::full(bytes)
                    }
                }
            }
        };
        Response::from_parts(head, body)
    }

    fn encode(self, json: &[u8]) -> Option<(&'static str, Vec<u8>)> {
        match self {
            Self::Json => None,
            Self::Protobuf => Some((PROTOBUF, protobuf::from_json(json)?)),
            Self::Yaml => {
                let value: Value = serde_json::from_slice(json).ok()?;
                Some((YAML, serde_saphyr::to_string(&value).ok()?.into_bytes()))
            }
        }
    }

    /// A watch, whose chunks are whole lines of JSON, in this form.
    ///
    /// # Errors
    /// There are no streams of YAML, in Kubernetes neither.
    pub(crate) fn answer_watch(self, response: Response<Body>) -> Result<Response<Body>, ApiError> {
        match self {
            Self::Json => Ok(response),
            Self::Yaml => Err(ApiError::not_acceptable("application/json, application/vnd.kubernetes.protobuf")),
            Self::Protobuf => {
                let (mut head, body) = response.into_parts();
                let media = HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");
                head.headers.insert(header::CONTENT_TYPE, media);
                let chunks = http_body_util::BodyDataStream::new(body);
                let frames = chunks.map(|chunk| chunk.and_then(|chunk| frames(&chunk)));
                Ok(Response::from_parts(head, Body::stream(frames)))
            }
        }
    }
}

fn frames(chunk: &[u8]) -> Result<Bytes, StreamError> {
    let mut out = BytesMut::with_capacity(chunk.len());
    for line in chunk.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        // The head is sent: all that is left is to cut the stream.
        out.extend_from_slice(&protobuf::watch_frame(line).ok_or("an event has no form in protobuf")?);
    }
    Ok(out.freeze())
}

/// The body of a request as JSON.
///
/// # Errors
/// The body is in a form this server has not, or is broken.
pub(crate) fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    let media = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or(JSON);
    let form = match media.split(';').next().unwrap_or_default().trim() {
        "" => Some(Form::Json),
        // A wildcard is nothing a body can be.
        "application/*" | "*/*" => None,
        media => Form::of_media(media),
    };
    match form {
        _ if body.is_empty() => Ok(body),
        None => Err(ApiError::unsupported_media_type(MEDIA_TYPES)),
        Some(Form::Json) => Ok(body),
        Some(Form::Protobuf) => {
            protobuf::to_json(&body).map(Bytes::from).map_err(|e| ApiError::bad_request(e.to_string()))
        }
        Some(Form::Yaml) => {
            // Depth, aliases and the number of nodes are limited by the reader's own defaults.
            let value: Value =
                serde_saphyr::from_slice(&body).map_err(|e| ApiError::bad_request(format!("yaml: {e}")))?;
            Ok(value.to_string().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn json_is_answered_wherever_it_is_taken() {
        let check = |accept: &str, form| assert_eq!(Form::accepted(&headers(header::ACCEPT, accept)), form, "{accept}");
        assert_eq!(Form::accepted(&HeaderMap::new()), Form::Json);
        check("*/*", Form::Json);
        check("application/vnd.kubernetes.protobuf, application/json", Form::Json);
        check("application/vnd.kubernetes.protobuf", Form::Protobuf);
        check("application/vnd.kubernetes.protobuf;stream=watch", Form::Protobuf);
        check("application/yaml, application/vnd.kubernetes.protobuf", Form::Yaml);
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/yaml", Form::Yaml);
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/yaml", Form::Yaml);
        check("text/html", Form::Json);
    }

    fn secret() -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"b": "AA=="}})
    }

    #[test]
    fn bodies_of_every_form_become_json() {
        let check = |media: &str, body: &[u8]| {
            let json = to_json(&headers(header::CONTENT_TYPE, media), Bytes::copy_from_slice(body)).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), secret(), "{media}");
        };
        let json = secret().to_string();
        check("application/json; charset=utf-8", json.as_bytes());
        check(PROTOBUF, &protobuf::from_json(json.as_bytes()).unwrap());
        check(YAML, b"apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  b: AA==\n");
        let code = |media: &str, body: &'static str| {
            to_json(&headers(header::CONTENT_TYPE, media), Bytes::from(body)).unwrap_err().code()
        };
        assert_eq!(code("text/plain", "{}"), 415);
        assert_eq!(code("*/*", "{}"), 415);
        assert_eq!(code(PROTOBUF, "{}"), 400);
        assert_eq!(code(YAML, "a: [b"), 400);
        assert!(to_json(&headers(header::CONTENT_TYPE, "text/plain"), Bytes::new()).unwrap().is_empty());
        assert!(to_json(&HeaderMap::new(), Bytes::from("x")).is_ok());
    }

    async fn answered(form: Form, value: &Value) -> (String, Bytes) {
        let text = value.to_string();
        let (start, end) = text.split_at(text.len() / 2);
        let pieces = [start, end].map(|p| Bytes::from(p.to_owned())).into();
        let response = form.answer(crate::render::json(StatusCode::OK, Body::pieces(pieces)));
        let media = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
        (media, response.into_body().collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn answers_are_in_the_form_asked_for() {
        let (media, body) = answered(Form::Protobuf, &secret()).await;
        assert_eq!(media, PROTOBUF);
        assert_eq!(serde_json::from_slice::<Value>(&protobuf::to_json(&body).unwrap()).unwrap(), secret());
        let (media, body) = answered(Form::Yaml, &secret()).await;
        assert_eq!(media, YAML);
        assert_eq!(to_json(&headers(header::CONTENT_TYPE, YAML), body).unwrap(), secret().to_string());
        let version = json!({"major": "1"});
        assert_eq!(answered(Form::Protobuf, &version).await, (JSON.to_owned(), version.to_string().into()));
    }

    #[tokio::test]
    async fn watches_are_frames() {
        let event = json!({"type": "ADDED", "object": secret()}).to_string() + "\n";
        let chunk = Bytes::from(event.repeat(2));
        let body = || Body::infallible(futures::stream::iter([chunk.clone()]));
        let watch = |form: Form| form.answer_watch(crate::render::json(StatusCode::OK, body()));
        let response = watch(Form::Protobuf).unwrap();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/vnd.kubernetes.protobuf;stream=watch");
        let frames = response.into_body().collect().await.unwrap().to_bytes();
        let frame = protobuf::watch_frame(event.trim_end().as_bytes()).unwrap();
        assert_eq!(frames, [frame.as_slice(), &frame].concat());
        assert_eq!(watch(Form::Yaml).err().unwrap().code(), 406);
    }
}
