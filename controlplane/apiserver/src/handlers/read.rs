//! GET of one object and LIST of many, with selectors, pages and exact versions.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_api::ApiError;
use coracle_api::kind::Storage;
use coracle_api::status::Reason;
use coracle_store::{Entry, ListRange, Listing, Revision, StoreError};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::select::Selection;
use crate::api::Call;
use crate::body::Body;
use crate::options::{ListOptions, VersionMatch};
use crate::registry::wire_bytes;
use crate::render::{self, ListMeta};
use crate::writes::{current, present, store_error, too_large_version};

/// How many objects are looked at in one step of a list with selectors and a limit.
const SCAN_STEP: usize = 500;

/// One object.
pub(crate) fn get(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    if call.shape.is_plain() {
        let entry = present(call)?;
        return Ok(render::json(StatusCode::OK, Body::full(wire_bytes(call.kind(), &entry)?)));
    }
    let bytes = render::one(call.kind(), &current(call)?, call.shape, call.now)?;
    Ok(render::json(StatusCode::OK, Body::full(bytes)))
}

/// Where the next page begins: opaque to clients, of the shape Kubernetes has.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// The version of the first page, so that all show one state; -1 for a list that goes on with the present.
    rv: i64,
    start: String,
    /// How many were left at that version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
}

/// As `handleCompactedErrorForPaging` says it.
const TOO_OLD_TO_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

const CONTINUE_VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    fn decode(token: &str) -> Result<Self, ApiError> {
        URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|json| serde_json::from_slice::<Self>(&json).ok())
            .filter(|c| c.v == CONTINUE_VERSION)
            .ok_or_else(|| ApiError::bad_request("invalid continue token: continue key is not valid"))
    }

    /// The version to read at; `None` for the present.
    fn revision(&self) -> Option<Revision> {
        u64::try_from(self.rv).ok().map(Revision)
    }

    fn encode(revision: Option<Revision>, last: &str, left: Option<usize>) -> String {
        let rv = revision.and_then(|r| i64::try_from(r.0).ok()).unwrap_or(-1);
        let token = Self { v: CONTINUE_VERSION.to_owned(), rv, start: last.to_owned(), left };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }
}

/// Objects of a collection.
pub(crate) async fn list(call: &Call<'_>) -> Result<Response<Body>, ApiError> {
    let options = ListOptions::parse(call.query, false)?;
    let selection = Selection::parse(call)?;
    let page = match page(call, &options, &selection).await {
        Err(error) if error.reason == Reason::Expired && options.continue_token.is_some() => {
            return expired(&error, &options);
        }
        other => other?,
    };
    render(call, page.entries, page.meta).await
}

/// Objects up to this many are put into another shape at once; more are worked on aside.
pub(super) const MOST_AT_ONCE: usize = 200;

/// The list of objects as an answer, in the shape asked for.
pub(super) async fn render(
    call: &Call<'_>,
    entries: Vec<Arc<Entry>>,
    meta: ListMeta,
) -> Result<Response<Body>, ApiError> {
    let (kind, shape, now) = (call.kind(), call.shape, call.now);
    let stored_so = !matches!(kind.info.storage, Storage::SharedWith { .. });
    let body = if entries.len() <= MOST_AT_ONCE || (shape.is_plain() && stored_so) {
        render::list(kind, entries, &meta, shape, now)
    } else {
        call.api.aside.run(move || render::list(kind, entries, &meta, shape, now)).await?
    };
    Ok(render::json(StatusCode::OK, body?))
}

/// A token whose version is gone comes with one that goes on with the present, at the client's own risk.
fn expired(error: &ApiError, options: &ListOptions) -> Result<Response<Body>, ApiError> {
    let token = Continue::decode(options.continue_token.as_deref().unwrap_or_default())?;
    let mut status = error.to_status();
    status.metadata.continue_ = Some(Continue::encode(None, &token.start, None));
    Ok(render::json(StatusCode::GONE, Body::full(render::to_bytes(&status)?)))
}

pub(crate) struct Page {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) meta: ListMeta,
}

/// The page of a collection that the options ask for.
pub(crate) async fn page(call: &Call<'_>, options: &ListOptions, selection: &Selection) -> Result<Page, ApiError> {
    let mut range = ListRange { limit: options.limit, ..range(call) };
    let at = match (&options.continue_token, options.version_match, options.resource_version) {
        (Some(token), _, _) => {
            let token = Continue::decode(token)?;
            let at = token.revision();
            range.start_after = Some(token.start);
            // Of the present nobody knows.
            range.known = token.left.filter(|_| at.is_some());
            at
        }
        (None, Some(VersionMatch::Exact), Some(version)) => Some(Revision(version)),
        (None, _, Some(version)) if version > 0 => {
            reach(call, Revision(version)).await?;
            None
        }
        _ => None,
    };
    let (listing, entries) = if selection.is_everything() {
        (fetch(call, &range, at).await?, None)
    } else if let Some(name) = selection.only_name().filter(|_| at.is_none()) {
        let (listing, entries) = one_by_name(call, selection, name)?;
        (listing, Some(entries))
    } else {
        let (listing, entries) = scan(call, range, at, selection).await?;
        (listing, Some(entries))
    };
    let more = listing.remaining > 0;
    let continue_token = match listing.entries.last() {
        Some(last) if more => Some(Continue::encode(Some(listing.revision), &last.key.name, Some(listing.remaining))),
        _ => None,
    };
    // Kubernetes does not count what selectors would leave.
    let remaining_item_count = (more && selection.is_everything()).then_some(listing.remaining);
    let meta = ListMeta { resource_version: listing.revision.to_string(), continue_token, remaining_item_count };
    Ok(Page { entries: entries.unwrap_or(listing.entries), meta })
}

/// The part of the collection below the path.
pub(crate) fn range(call: &Call<'_>) -> ListRange {
    ListRange::namespace(if call.kind().namespaced() { &call.path.namespace } else { "" })
}

async fn fetch(call: &Call<'_>, range: &ListRange, at: Option<Revision>) -> Result<Listing, ApiError> {
    let store = &call.api.store;
    match at {
        None => Ok(store.list(&call.served.collection, range)),
        Some(at) => store.list_at(&call.served.collection, range.clone(), at).await.map_err(|e| match e {
            StoreError::Compacted { .. } if range.start_after.is_some() => ApiError::expired(TOO_OLD_TO_CONTINUE),
            StoreError::Compacted { .. } => {
                ApiError::expired(format!("The resourceVersion for the provided list is too old: {at}"))
            }
            other => store_error(&other),
        }),
    }
}

/// A selector that names one object needs no scan.
fn one_by_name(call: &Call<'_>, selection: &Selection, name: &str) -> Result<(Listing, Vec<Arc<Entry>>), ApiError> {
    let store = &call.api.store;
    let revision = store.revision();
    let namespaced = call.kind().namespaced();
    let candidates = if namespaced && call.path.namespace.is_empty() {
        let suffix = format!("/{name}");
        let all = store.list(&call.served.collection, &ListRange::all()).entries;
        all.into_iter().filter(|e| e.key.name.ends_with(&suffix)).collect()
    } else {
        Vec::from_iter(store.get(&call.served.key(&call.path.namespace, name)))
    };
    let mut entries = Vec::new();
    for entry in candidates {
        if selection.matches(&entry)? {
            entries.push(entry);
        }
    }
    Ok((Listing { revision, entries: Vec::new(), remaining: 0 }, entries))
}

/// Reads on until the page is full of objects that match.
async fn scan(
    call: &Call<'_>,
    mut range: ListRange,
    at: Option<Revision>,
    selection: &Selection,
) -> Result<(Listing, Vec<Arc<Entry>>), ApiError> {
    let wanted = range.limit.unwrap_or(usize::MAX);
    let mut at = at;
    let mut found = Vec::new();
    // Without a limit one consistent read is enough.
    range.limit = (wanted != usize::MAX).then_some(SCAN_STEP.max(wanted));
    loop {
        let mut listing = fetch(call, &range, at).await?;
        at = Some(listing.revision);
        for (i, entry) in listing.entries.iter().enumerate() {
            if selection.matches(entry)? {
                found.push(Arc::clone(entry));
            }
            if found.len() == wanted {
                listing.remaining += listing.entries.len() - i - 1;
                listing.entries.truncate(i + 1);
                return Ok((listing, found));
            }
        }
        match listing.entries.last() {
            Some(last) if listing.remaining > 0 => {
                range.start_after = Some(last.key.name.to_string());
                range.known = Some(listing.remaining);
            }
            _ => return Ok((listing, found)),
        }
    }
}

/// Waits until the store has a version the client has seen somewhere else.
pub(crate) async fn reach(call: &Call<'_>, version: Revision) -> Result<(), ApiError> {
    /// As long as Kubernetes' watch cache waits.
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3);
    if call.api.store.revision() >= version {
        return Ok(());
    }
    match tokio::time::timeout(PATIENCE, call.api.store.wait_for(version)).await {
        Ok(done) => done.map_err(|e| store_error(&e)),
        Err(_) => {
            let current = call.api.store.revision();
            Err(too_large_version(version, current))
        }
    }
}
