//! The options of requests: query parameters and `DeleteOptions`, checked once at the edge.

use coracle_api::ApiError;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use crate::request::Query;

/// What to do with fields the kind does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Whether the write is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRun {
    No,
    All,
}

/// The options of create, update and patch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: DryRun,
    pub(crate) field_validation: FieldValidation,
}

impl WriteOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let field_validation = match query.get("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            // The server's default since v1.27.
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        Ok(Self { dry_run: dry_run(query.all("dryRun"))?, field_validation })
    }
}

pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<DryRun, ApiError> {
    let mut out = DryRun::No;
    for value in values {
        if value != "All" {
            return Err(ApiError::bad_request(format!(
                "dryRun: Unsupported value: {value:?}: supported values: \"All\""
            )));
        }
        out = DryRun::All;
    }
    Ok(out)
}

/// What happens to the objects an object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The options of a deletion, from the body or the query.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletion {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

impl Deletion {
    pub(crate) fn parse(query: &Query, body: &[u8]) -> Result<Self, ApiError> {
        let mut options: DeleteOptions = if body.iter().all(u8::is_ascii_whitespace) {
            DeleteOptions::default()
        } else {
            serde_json::from_slice(body)
                .map_err(|e| ApiError::bad_request(format!("couldn't get version/kind; json parse error: {e}")))?
        };
        if options.grace_period_seconds.is_none() {
            options.grace_period_seconds = query.number("gracePeriodSeconds")?;
        }
        if options.propagation_policy.is_none() {
            options.propagation_policy = query.get("propagationPolicy").map(str::to_owned);
        }
        if options.orphan_dependents.is_none() {
            options.orphan_dependents = query.optional_flag("orphanDependents");
        }
        let propagation = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
            (Some(_), Some(_)) => {
                return Err(ApiError::bad_request("orphanDependents and deletionPropagation cannot be both set"));
            }
            (None, None) => None,
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) | (Some("Background"), None) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Orphan"), None) => Some(Propagation::Orphan),
            (Some(other), None) => {
                return Err(ApiError::bad_request(format!(
                    "propagationPolicy: Unsupported value: {other:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
                )));
            }
        };
        let in_body = options.dry_run.iter().flatten().map(String::as_str);
        let dry = dry_run(in_body.chain(query.all("dryRun")))? == DryRun::All;
        let preconditions = options.preconditions.unwrap_or_default();
        Ok(Self {
            // A negative period means at once, as Kubernetes reads it.
            grace_period_seconds: options.grace_period_seconds.map(|s| if s < 0 { 1 } else { s }),
            propagation,
            uid: preconditions.uid.filter(|u| !u.is_empty()),
            resource_version: preconditions.resource_version.filter(|v| !v.is_empty()),
            dry_run: dry,
        })
    }
}

/// How the resource version of a list binds its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    /// At least as new; always so here, where reads are never stale.
    NotOlderThan,
    /// Exactly this one.
    Exact,
}

/// The options of list and watch.
#[derive(Debug, Clone)]
pub(crate) struct ListOptions {
    pub(crate) limit: Option<usize>,
    pub(crate) continue_token: Option<String>,
    /// `None` when unset; 0 means any.
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: Option<VersionMatch>,
    pub(crate) bookmarks: bool,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) timeout_seconds: Option<u64>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query, watch: bool) -> Result<Self, ApiError> {
        let given = |name: &str| query.get(name).filter(|v| !v.is_empty()).map(str::to_owned);
        let resource_version = match given("resourceVersion") {
            None => None,
            Some(text) => Some(text.parse::<u64>().map_err(|_| {
                ApiError::bad_request(format!("resourceVersion: Invalid value: {text:?}: must be a number"))
            })?),
        };
        let version_match = match given("resourceVersionMatch").as_deref() {
            None => None,
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some("Exact") => Some(VersionMatch::Exact),
            Some(other) => {
                return Err(invalid_option(&format!(
                    "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
                )));
            }
        };
        let options = Self {
            limit: query.number("limit")?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
            continue_token: given("continue"),
            resource_version,
            version_match,
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.optional_flag("sendInitialEvents"),
            timeout_seconds: query.number("timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
        };
        options.check(watch)?;
        Ok(options)
    }

    /// The combinations `ValidateListOptions` forbids.
    fn check(&self, watch: bool) -> Result<(), ApiError> {
        if watch {
            return match (self.send_initial_events, self.version_match) {
                (None, Some(_)) => Err(invalid_option(
                    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )),
                (Some(_), None | Some(VersionMatch::Exact)) => Err(invalid_option(
                    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )),
                _ => Ok(()),
            };
        }
        if self.send_initial_events.is_some() {
            return Err(invalid_option("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"));
        }
        match self.version_match {
            Some(_) if self.resource_version.is_none() => Err(invalid_option(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )),
            Some(_) if self.continue_token.is_some() => Err(invalid_option(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
            )),
            Some(VersionMatch::Exact) if self.resource_version == Some(0) => Err(invalid_option(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            )),
            _ if self.continue_token.is_some() && self.resource_version.is_some_and(|v| v > 0) => {
                Err(ApiError::bad_request("specifying resource version is not allowed when using continue"))
            }
            _ => Ok(()),
        }
    }
}

fn invalid_option(message: &str) -> ApiError {
    ApiError::new(coracle_api::status::Reason::Invalid, format!("ListOptions.meta.k8s.io \"\" is invalid: {message}"))
}
