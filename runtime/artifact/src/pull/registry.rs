//! What a pull asks of a registry: a login, manifests, blobs (OCI Distribution Specification 1.1, "Pull"). A registry is
//! anybody's machine: of each of its answers no more is taken than such an answer can need, and each has its time.

use std::time::Duration;

use reqwest::{Client, Response, StatusCode, Url, header};
use serde::Deserialize;

use super::{Login, TIMEOUT};
use crate::{ArtifactError, Digest, ImageReference, PullError};

/// Most bytes of an answer that grants a login; tokens have a few thousand.
const MAX_TOKEN_BYTES: u64 = 256 * 1024;

/// Most bytes of a registry's words on what went wrong.
const MAX_ERROR_BYTES: u64 = 16 * 1024;

/// What a blob may take whatever its size, and the rate at which it must come besides. A registry that sends a byte now and
/// then would hold one of the few pulls of a node for ever.
const BLOB_TIME: Duration = Duration::from_secs(120);
const MIN_BYTES_PER_SECOND: u64 = 16 * 1024;

/// A registry, as one image's pull with one login sees it.
pub(super) struct Registry<'a> {
    client: Client,
    reference: &'a ImageReference,
    /// `https://HOST/v2/`.
    base: Url,
    /// The repository's path there.
    path: String,
    authorization: Option<header::HeaderValue>,
}

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Registry<'a> {
    pub(super) fn new(reference: &'a ImageReference, client: Client, base: Url, path: String) -> Self {
        Self { client, reference, base, path, authorization: None }
    }

    /// Does what the registry wants done before it lets anybody pull.
    pub(super) async fn log_in(&mut self, login: Option<&Login>) -> Result<(), PullError> {
        let answer = self.client.get(self.base.clone()).send().await.map_err(|error| self.away(&error))?;
        let wanted = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let Some(wanted) = wanted.map(str::to_owned) else { return Ok(()) };
        self.authorization = match challenge(&wanted) {
            Some((realm, service)) => Some(self.token(&realm, service.as_deref(), login).await?),
            None => login.map(basic).transpose().map_err(|message| self.failed(message))?,
        };
        Ok(())
    }

    /// Asks for a token, as the registry's challenge says.
    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        login: Option<&Login>,
    ) -> Result<header::HeaderValue, PullError> {
        let mut url = Url::parse(realm).map_err(|_| self.failed(format!("the registry's login is at {realm:?}")))?;
        if url.scheme() != "https" && self.base.scheme() == "https" {
            return Err(self.failed(format!("the registry wants the password sent in the clear, to {realm:?}")));
        }
        url.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.path));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.client.get(url);
        if let Some((user, password)) = login {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await.map_err(|error| self.away(&error))?;
        if answer.status() != StatusCode::OK {
            let message = String::from_utf8_lossy(&self.words(answer).await).into_owned();
            return Err(PullError::Denied { reference: self.reference.to_string(), message });
        }
        let text = self.body("the registry's token", answer, MAX_TOKEN_BYTES).await?;
        let granted: Option<Granted> = serde_json::from_slice(&text).ok();
        let token = granted.and_then(|granted| granted.token.or(granted.access_token));
        let bearer = token.and_then(|token| header::HeaderValue::from_str(&format!("Bearer {token}")).ok());
        bearer.ok_or_else(|| self.failed("the registry's login gives no token".to_owned()))
    }

    /// The bytes of a manifest, of a tag or a digest; longer ones than the limit are not read to their end.
    pub(super) async fn manifest(&self, name: &str, accept: &str, limit: u64) -> Result<Vec<u8>, PullError> {
        let answer = self.get(&format!("manifests/{name}"), Some(accept)).await?;
        self.body("the manifest", answer, limit).await
    }

    /// A blob of this size, to be read piece by piece.
    pub(super) async fn blob(&self, digest: &Digest, bytes: u64) -> Result<Blob, PullError> {
        let until = tokio::time::Instant::now() + blob_time(bytes);
        let answer = self.get(&format!("blobs/{digest}"), None).await?;
        Ok(Blob { answer, reference: self.reference.to_string(), until, left: bytes })
    }

    async fn chunk(&self, answer: &mut Response) -> Result<Option<bytes::Bytes>, PullError> {
        answer.chunk().await.map_err(|error| self.away(&error))
    }

    async fn get(&self, path: &str, accept: Option<&str>) -> Result<Response, PullError> {
        let path = format!("{}/{path}", self.path);
        let url = self.base.join(&path).map_err(|error| self.failed(error.to_string()))?;
        let mut request = self.client.get(url);
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let answer = request.send().await.map_err(|error| self.away(&error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(self.refused(answer).await) }
    }

    /// A whole body, if it is not longer than it may be.
    async fn body(&self, what: &str, mut answer: Response, limit: u64) -> Result<Vec<u8>, PullError> {
        let too_big = |bytes: u64| PullError::Artifact {
            reference: self.reference.to_string(),
            source: ArtifactError::TooBig { what: what.to_owned(), bytes, limit },
        };
        if let Some(bytes) = answer.content_length().filter(|bytes| *bytes > limit) {
            return Err(too_big(bytes));
        }
        let mut body = Vec::new();
        let read = async {
            while let Some(chunk) = self.chunk(&mut answer).await? {
                let bytes = body.len() as u64 + chunk.len() as u64;
                if bytes > limit {
                    return Err(too_big(bytes));
                }
                body.extend_from_slice(&chunk);
            }
            Ok(())
        };
        let slow = || self.unavailable("the registry sends too slowly".to_owned());
        tokio::time::timeout(BLOB_TIME, read).await.map_err(|_| slow())??;
        Ok(body)
    }

    /// What can be read of a registry's words.
    async fn words(&self, mut answer: Response) -> Vec<u8> {
        let mut text = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = answer.chunk().await {
                let room = usize::try_from(MAX_ERROR_BYTES).unwrap_or(usize::MAX).saturating_sub(text.len());
                text.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() >= room {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(TIMEOUT, read).await;
        text
    }

    async fn refused(&self, answer: Response) -> PullError {
        let (status, reference) = (answer.status(), self.reference.to_string());
        let text = self.words(answer).await;
        let complaints = serde_json::from_slice::<Envelope>(&text).map(|envelope| envelope.errors).unwrap_or_default();
        let has = |wanted: &[&str]| complaints.iter().any(|complaint| wanted.contains(&complaint.code.as_str()));
        let said: Vec<String> = complaints.iter().map(|one| format!("{}: {}", one.code, one.message)).collect();
        let message = if said.is_empty() { format!("the registry answered {status}") } else { said.join("; ") };
        if status == StatusCode::NOT_FOUND || has(&["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND"]) {
            PullError::NotFound { reference }
        } else if status == StatusCode::UNAUTHORIZED || has(&["UNAUTHORIZED", "DENIED"]) {
            PullError::Denied { reference, message }
        } else if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            PullError::Unavailable { reference, message: format!("the registry answered {status}: {message}") }
        } else {
            PullError::Registry { reference, message }
        }
    }

    fn away(&self, error: &reqwest::Error) -> PullError {
        self.unavailable(causes(error))
    }

    fn unavailable(&self, message: String) -> PullError {
        PullError::Unavailable { reference: self.reference.to_string(), message }
    }

    fn failed(&self, message: String) -> PullError {
        PullError::Registry { reference: self.reference.to_string(), message }
    }
}

/// A blob that comes.
pub struct Blob {
    answer: Response,
    reference: String,
    until: tokio::time::Instant,
    /// Bytes that are still to come.
    left: u64,
}

impl Blob {
    /// Its next piece; `None` after the last. One that is larger than was said, or comes too slowly, is given up.
    pub async fn chunk(&mut self) -> Result<Option<bytes::Bytes>, PullError> {
        let reference = || self.reference.clone();
        let next =
            tokio::time::timeout_at(self.until, self.answer.chunk()).await.map_err(|_| PullError::Unavailable {
                reference: reference(),
                message: "the registry sends a blob too slowly".to_owned(),
            })?;
        let next = next.map_err(|error| PullError::Unavailable { reference: reference(), message: causes(&error) })?;
        let Some(chunk) = next else { return Ok(None) };
        self.left = self.left.checked_sub(chunk.len() as u64).ok_or_else(|| PullError::Artifact {
            reference: reference(),
            source: ArtifactError::Malformed("a blob is larger than the manifest says".to_owned()),
        })?;
        Ok(Some(chunk))
    }
}

/// The longest that a blob of this size may take.
fn blob_time(bytes: u64) -> Duration {
    BLOB_TIME + Duration::from_secs(bytes / MIN_BYTES_PER_SECOND)
}

fn basic((user, password): &Login) -> Result<header::HeaderValue, String> {
    let request = Client::new().get("http://localhost/").basic_auth(user, Some(password)).build();
    let value = request.ok().and_then(|request| request.headers().get(header::AUTHORIZATION).cloned());
    value.ok_or_else(|| "the login cannot be sent".to_owned())
}

/// Realm and service of a challenge `Bearer realm="…",service="…"`; any other scheme is `None`.
fn challenge(text: &str) -> Option<(String, Option<String>)> {
    let (scheme, rest) = text.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let parameter = |name: &str| {
        // A quoted value may hold commas and equals signs, so quotes come first.
        let mut rest = rest;
        while let Some((key, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            if key.trim_matches([',', ' ']).eq_ignore_ascii_case(name) {
                return Some(value.trim().to_owned());
            }
            rest = next;
        }
        None
    };
    Some((parameter("realm")?, parameter("service")))
}

/// An error with what caused it: the client's own message leaves out the reason.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        for (text, expect) in [
            (r#"Bearer realm="https://a/token",service="s""#, Some(("https://a/token", Some("s")))),
            (r#"bearer service=s, realm="https://a/t?x=1,2""#, Some(("https://a/t?x=1,2", Some("s")))),
            (r#"Bearer realm="https://a""#, Some(("https://a", None))),
            (r#"Basic realm="x""#, None),
            ("Bearer", None),
            (r#"Bearer realm="https://a"#, None),
        ] {
            let expect = expect.map(|(realm, service)| (realm.to_owned(), service.map(str::to_owned)));
            assert_eq!(challenge(text), expect, "{text}");
        }
    }

    #[test]
    fn a_blob_has_time_by_its_size() {
        assert_eq!(blob_time(0), BLOB_TIME);
        assert_eq!(blob_time(MIN_BYTES_PER_SECOND * 60), BLOB_TIME + Duration::from_secs(60));
    }
}
