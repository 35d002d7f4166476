//! Indented JSON, for people who read answers as they come: `?pretty=true`, and what browsers, curl and wget get.

use bytes::Bytes;
use http::{HeaderMap, Response, header};

use crate::body::Body;
use crate::request::Query;

const INDENT: &[u8] = b"  ";
/// Larger answers are for programs, whoever asks.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Whether the client wants it (`isPrettyPrint` of `k8s.io/apiserver`).
pub(crate) fn is_wanted(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(pretty) = query.get("pretty").filter(|p| !p.is_empty()) {
        // Go's `ParseBool`.
        return matches!(pretty, "1" | "t" | "T" | "TRUE" | "true" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|reader| agent.starts_with(reader))
}

/// Indents an answer that is JSON and no stream.
pub(crate) fn indent(response: &mut Response<Body>) {
    use http_body::Body as _;
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes() == b"application/json");
    if !is_json || response.body().size_hint().exact().is_none_or(|size| size > MAX_BYTES) {
        return;
    }
    *response.body_mut() = match std::mem::replace(response.body_mut(), Body::empty()).into_pieces() {
        Err(stream) => stream,
        Ok(pieces) => Body::full(indented(&pieces.iter().fold(Vec::new(), |mut all, piece| {
            all.extend_from_slice(piece);
            all
        }))),
    };
}

fn indented(json: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut in_text, mut is_escaped) = (0_usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        (0..depth).for_each(|_| out.extend_from_slice(INDENT));
    };
    for (i, byte) in json.iter().enumerate() {
        if in_text {
            out.push(*byte);
            in_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                depth += 1;
                out.push(*byte);
                if !matches!(json.get(i + 1), Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(*byte);
            }
            b',' => {
                out.push(b',');
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                in_text = *byte == b'"';
                out.push(*byte);
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented() {
        let value = serde_json::json!({"a": [], "b": {}, "c": [1, {"d": "x\"{,}:\\"}], "e": null});
        let expected = serde_json::to_string_pretty(&value).unwrap();
        assert_eq!(indented(value.to_string().as_bytes()), expected);
        assert_eq!(indented(expected.as_bytes()), expected);
    }

    #[test]
    fn people_are_known_by_their_tools() {
        let check = |agent: &str, query: &str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent.parse().unwrap());
            assert_eq!(is_wanted(&headers, &Query::parse(query)), expected, "{agent} {query}");
        };
        check("curl/8.1", "", true);
        check("curl/8.1", "pretty=false", false);
        check("kubectl/v1.32", "", false);
        check("kubectl/v1.32", "pretty=1", true);
        check("Mozilla/5.0 (X11)", "pretty=", true);
    }
}
