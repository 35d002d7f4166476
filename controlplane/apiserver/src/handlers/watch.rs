//! WATCH: a stream of events that is polled only as fast as the client reads, so a slow or vanished one costs nothing.
//!
//! Events carry the bytes the store shares. A watcher that falls behind the store's history ends with `410 Expired`, as
//! the client's next list expects.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use coracle_api::ApiError;
use coracle_api::kind::Kind;
use coracle_api::status::Reason;
use coracle_store::{Entry, ListRange, Revision, StoreError, Watch, WatchEvent, WatchFrom};
use futures::stream;
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use rand::Rng as _;
use tokio::time::{Instant, Sleep};

use super::read;
use super::select::Selection;
use crate::api::Call;
use crate::body::Body;
use crate::metrics::WatchGuard;
use crate::options::ListOptions;
use crate::registry::{Stored, wire_bytes};
use crate::render::{self, Shape};
use crate::writes::store_error;

/// A watch with no `timeoutSeconds` lives between this and twice this, so that not all come back at one moment.
const MIN_TIMEOUT_SECONDS: u64 = 1800;
/// How often a client that asked for bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// Initial events are sent in chunks of about this size; later ones as the store hands them over.
const CHUNK_BYTES: usize = 64 * 1024;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Follows a collection.
pub(crate) async fn watch(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(call.query, true)?;
    let selection = Selection::parse(call)?;
    let guard = call.api.metrics.watch()?;
    let range = read::range(call);
    let (initial, watch, started_at) = match begin(call, &options, &range).await {
        Err(error) if error.reason == Reason::Expired => return Ok(ended(&error)),
        other => other?,
    };
    let seconds = options
        .timeout_seconds
        .unwrap_or_else(|| rand::rng().random_range(MIN_TIMEOUT_SECONDS..MIN_TIMEOUT_SECONDS * 2));
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let follower = Follower {
        kind: call.kind(),
        selection,
        shape: call.shape,
        watch: watch.under(&range.prefix),
        initial: initial.into_iter(),
        announce_end: options.send_initial_events == Some(true),
        bookmarks: options.bookmarks,
        seen: started_at,
        columns_sent: false,
        deadline,
        timer: Box::pin(tokio::time::sleep_until(deadline)),
        next_bookmark: Instant::now() + BOOKMARK_PERIOD,
        ended: false,
        _guard: guard,
    };
    let chunks = stream::unfold(follower, |mut follower| async move {
        let chunk = follower.next_chunk().await?;
        Some((chunk, follower))
    });
    let mut response = render::json(StatusCode::OK, Body::infallible(chunks));
    response.headers_mut().insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// A watch that cannot begin where it was asked to is a stream with this one event, since clients look for it there.
fn ended(error: &ApiError) -> Response<Body> {
    let mut out = BytesMut::new();
    write_event(&mut out, "ERROR", &serde_json::to_vec(&error.to_status()).unwrap_or_default());
    render::json(StatusCode::OK, Body::full(out.freeze()))
}

/// Where the watch starts: with the present objects as `ADDED`, or after a version.
async fn begin(
    call: &Call<'_>,
    options: &ListOptions,
    range: &ListRange,
) -> Result<(Vec<Arc<Entry>>, Watch, Revision), ApiError> {
    let store = &call.api.store;
    let collection = &call.served.collection;
    let version = options.resource_version.filter(|v| *v > 0).map(Revision);
    let from_present = match options.send_initial_events {
        Some(wanted) => wanted,
        // Without a version, or with 0, a watch begins with what is there.
        None => version.is_none(),
    };
    if from_present {
        if let Some(version) = version {
            read::reach(call, version).await?;
        }
        let (listing, watch) = store.list_and_watch(collection, range).map_err(|e| store_error(&e))?;
        return Ok((listing.entries, watch, listing.revision));
    }
    let Some(version) = version else {
        let watch = store.watch(collection, WatchFrom::Now).map_err(|e| store_error(&e))?;
        return Ok((Vec::new(), watch, store.revision()));
    };
    read::reach(call, version).await?;
    let watch = store.watch(collection, WatchFrom::After(version)).map_err(|e| match e {
        StoreError::Compacted { .. } => too_old(version),
        other => store_error(&other),
    })?;
    Ok((Vec::new(), watch, version))
}

fn too_old(version: Revision) -> ApiError {
    ApiError::expired(format!("too old resource version: {version}"))
}

/// What one watcher has seen and waits for.
struct Follower {
    kind: &'static Kind,
    selection: Selection,
    shape: Shape,
    watch: Watch,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The end of the initial events is still to be told.
    announce_end: bool,
    bookmarks: bool,
    /// Everything up to this revision has been sent.
    seen: Revision,
    columns_sent: bool,
    deadline: Instant,
    next_bookmark: Instant,
    /// For both of these. It is kept from one batch of events to the next: to set it costs more than to look at it.
    timer: Pin<Box<Sleep>>,
    ended: bool,
    _guard: WatchGuard,
}

impl Follower {
    /// The next bytes for the client; `None` ends the stream.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut out = BytesMut::new();
        let result = self.fill(&mut out).await;
        if let Err(error) = result {
            self.ended = true;
            write_event(&mut out, "ERROR", &serde_json::to_vec(&error.to_status()).unwrap_or_default());
        }
        // An empty chunk would end nothing and tell nothing.
        if out.is_empty() { None } else { Some(out.freeze()) }
    }

    async fn fill(&mut self, out: &mut BytesMut) -> Result<(), ApiError> {
        while let Some(entry) = self.initial.next() {
            if self.selection.matches(&entry)? {
                self.write(out, "ADDED", &entry)?;
            }
            if out.len() >= CHUNK_BYTES {
                return Ok(());
            }
        }
        if std::mem::take(&mut self.announce_end) {
            self.bookmark(out, true);
            return Ok(());
        }
        while out.is_empty() {
            match self.wait().await? {
                Step::Events(events) => {
                    for event in &events {
                        self.event(out, event)?;
                    }
                }
                Step::Bookmark => self.bookmark(out, false),
                Step::End => {
                    self.ended = true;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<Step, ApiError> {
        let bookmark_at = if self.bookmarks { self.next_bookmark } else { self.deadline };
        let wake_at = bookmark_at.min(self.deadline);
        if self.timer.deadline() != wake_at {
            self.timer.as_mut().reset(wake_at);
        }
        tokio::select! {
            biased;
            events = self.watch.next() => match events {
                Ok(events) => Ok(Step::Events(events)),
                Err(StoreError::Closed) => Ok(Step::End),
                Err(error) => Err(store_error(&error)),
            },
            () = self.timer.as_mut() => {
                Ok(if bookmark_at < self.deadline { Step::Bookmark } else { Step::End })
            }
        }
    }

    /// One change, as this watcher sees it: an object that comes to match is `ADDED`, one that ceases to is `DELETED`.
    fn event(&mut self, out: &mut BytesMut, event: &WatchEvent) -> Result<(), ApiError> {
        self.seen = event.revision();
        let entry = event.entry();
        let before = match event.previous() {
            Some(previous) => self.selection.matches(previous)?,
            None => false,
        };
        let after = match event {
            WatchEvent::Put { entry, .. } => self.selection.matches(entry)?,
            WatchEvent::Deleted { .. } => false,
        };
        match (before, after) {
            (false, false) => Ok(()),
            (false, true) => self.write(out, "ADDED", entry),
            (true, true) => self.write(out, "MODIFIED", entry),
            (true, false) => match event {
                WatchEvent::Deleted { entry, .. } => self.write(out, "DELETED", entry),
                // The last state that matched, at the revision at which it ceased to.
                WatchEvent::Put { entry, previous } => {
                    let last = previous.as_ref().unwrap_or(entry);
                    self.write_at(out, "DELETED", last, entry.revision)
                }
            },
        }
    }

    fn write(&mut self, out: &mut BytesMut, kind: &str, entry: &Arc<Entry>) -> Result<(), ApiError> {
        if self.shape.is_plain() {
            write_event(out, kind, &wire_bytes(self.kind, entry)?);
            return Ok(());
        }
        let stored = Stored::of(self.kind, Arc::clone(entry))?;
        self.shaped(out, kind, &stored, entry.revision)
    }

    fn write_at(
        &mut self,
        out: &mut BytesMut,
        kind: &str,
        entry: &Arc<Entry>,
        revision: Revision,
    ) -> Result<(), ApiError> {
        let stored = Stored::of(self.kind, Arc::clone(entry))?;
        if !self.shape.is_plain() {
            return self.shaped(out, kind, &stored, revision);
        }
        let mut object = stored.object().boxed_clone();
        let bytes = crate::registry::encode_unstored(object.as_mut(), Some(revision), stored.managed());
        write_event(out, kind, &bytes);
        Ok(())
    }

    fn shaped(&mut self, out: &mut BytesMut, kind: &str, stored: &Stored, revision: Revision) -> Result<(), ApiError> {
        let first = !std::mem::replace(&mut self.columns_sent, true);
        let bytes = stored.bytes()?;
        let revision = revision.to_string();
        let now = Timestamp::now();
        let shaped = render::shaped(self.kind, stored.object(), Some(&bytes), &revision, self.shape, now, first)?;
        write_event(out, kind, &shaped);
        Ok(())
    }

    /// Tells the client how far it is, so that it can come back there after a quiet time.
    fn bookmark(&mut self, out: &mut BytesMut, initial_end: bool) {
        self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
        if let Some(progress) = self.watch.progress() {
            self.seen = self.seen.max(progress);
        }
        let annotations =
            if initial_end { format!(",\"annotations\":{{\"{INITIAL_EVENTS_END}\":\"true\"}}") } else { String::new() };
        let (kind, version) = match self.shape {
            Shape::Plain => (self.kind.kind, self.kind.api_version),
            Shape::Partial => ("PartialObjectMetadata", "meta.k8s.io/v1"),
            Shape::Table(_) => ("Table", "meta.k8s.io/v1"),
        };
        let rest = if matches!(self.shape, Shape::Table(_)) { ",\"columnDefinitions\":null,\"rows\":[]" } else { "" };
        let object = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{{\"resourceVersion\":\"{}\",\"creationTimestamp\":null{annotations}}}{rest}}}",
            self.seen
        );
        write_event(out, "BOOKMARK", object.as_bytes());
    }
}

enum Step {
    Events(Vec<WatchEvent>),
    Bookmark,
    End,
}

fn write_event(out: &mut BytesMut, kind: &str, object: &[u8]) {
    out.reserve(object.len() + kind.len() + 24);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}
