//! gzip for large answers, to clients that ask for it. Small ones cost more to compress than to send.

use std::io::Write as _;

use bytes::Bytes;
use coracle_api::ApiError;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};

use crate::aside::Aside;
use crate::body::Body;

/// Smaller answers go as they are: Kubernetes' own threshold.
const MIN_BYTES: u64 = 128 * 1024;

/// Compresses the body if the client takes it and it is worth it.
pub(crate) async fn compress(
    aside: &Aside,
    request: &HeaderMap,
    mut response: Response<Body>,
) -> Result<Response<Body>, ApiError> {
    use http_body::Body as _;
    let accepts = request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|coding| coding.trim().split(';').next() == Some("gzip"));
    let size = response.body().size_hint().exact().unwrap_or(0);
    if !accepts || size < MIN_BYTES || response.headers().contains_key(header::CONTENT_ENCODING) {
        return Ok(response);
    }
    match std::mem::replace(response.body_mut(), Body::empty()).into_pieces() {
        Err(stream) => *response.body_mut() = stream,
        Ok(pieces) => {
            let (pieces, compressed) =
                aside.run(move || (gzip(&pieces), pieces)).await.map(|(gzip, pieces)| (pieces, gzip))?;
            *response.body_mut() = match compressed {
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
    Ok(response)
}

fn gzip<'a>(pieces: impl IntoIterator<Item = &'a Bytes>) -> Option<Bytes> {
    // Level 1, as Kubernetes: the link to a client is seldom slower than a better level.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for piece in pieces {
        encoder.write_all(piece).ok()?;
    }
    encoder.finish().ok().map(Bytes::from)
}
