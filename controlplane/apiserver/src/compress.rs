//! gzip for large answers, to clients that ask for it. Small ones cost more to compress than to send.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::body::Body;

/// Smaller answers go as they are: Kubernetes' own threshold.
const MIN_BYTES: u64 = 128 * 1024;

/// Compresses the body if the client takes it and it is worth it.
pub(crate) fn compress(request: &HeaderMap, response: &mut Response<Body>) {
    use http_body::Body as _;
    let accepts = request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|coding| coding.trim().split(';').next() == Some("gzip"));
    let size = response.body().size_hint().exact().unwrap_or(0);
    if !accepts || size < MIN_BYTES || response.headers().contains_key(header::CONTENT_ENCODING) {
        return;
    }
    match std::mem::replace(response.body_mut(), Body::empty()).into_pieces() {
        Err(stream) => *response.body_mut() = stream,
        Ok(pieces) => {
            *response.body_mut() = match gzip(&pieces) {
                Some(bytes) => {
                    let gzip = HeaderValue::from_static("gzip");
                    response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
                    Body::full(bytes)
                }
                None => Body::pieces(pieces),
            };
        }
    }
    let vary = HeaderValue::from_static("Accept-Encoding");
    response.headers_mut().append(header::VARY, vary);
}

fn gzip<'a>(pieces: impl IntoIterator<Item = &'a Bytes>) -> Option<Bytes> {
    // Level 1, as Kubernetes: the link to a client is seldom slower than a better level.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        encoder.write_all(piece).ok()?;
    }
    encoder.finish().ok().map(Bytes::from)
}
