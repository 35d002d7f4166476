//! The options of requests: query parameters and `DeleteOptions`, checked once at the edge.

use coracle_api::ApiError;
use coracle_api::validation::{self, Errors, FIELD_MANAGER_MAX, FieldPath};
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

/// Whose options they are; what is wrong with them is said of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Create,
    Update,
    Patch,
}

impl Write {
    fn options_kind(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch => "PatchOptions",
        }
    }
}

impl WriteOptions {
    /// Reads and checks them, as `ValidateCreateOptions` and its like do.
    pub(crate) fn parse(query: &Query, write: Write) -> Result<Self, ApiError> {
        let mut errors = Errors::new();
        if write == Write::Patch && query.get("force").is_some() {
            errors.forbidden(&FieldPath::new("force"), "may not be specified for non-apply patch");
        }
        check_field_manager(query.get("fieldManager").unwrap_or_default(), &mut errors);
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let field_validation = match query.get("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            // The server's default since v1.27.
            None | Some("" | "Warn") => FieldValidation::Warn,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                let known = ["", "Ignore", "Strict", "Warn"];
                errors.not_supported(&FieldPath::new("fieldValidation"), other, &known);
                FieldValidation::Strict
            }
        };
        checked(write.options_kind(), &errors)?;
        Ok(Self { dry_run, field_validation })
    }
}

fn check_field_manager(name: &str, errors: &mut Errors) {
    let field = FieldPath::new("fieldManager");
    if name.len() > FIELD_MANAGER_MAX {
        errors.too_long(&field, FIELD_MANAGER_MAX);
    }
    for (at, letter) in name.char_indices().filter(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
        errors.invalid(&field, name, why);
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Errors) -> DryRun {
    let values: Vec<&str> = values.collect();
    if values.iter().any(|v| *v != "All") {
        errors.not_supported(&FieldPath::new("dryRun"), validation::json(&values), &["All"]);
    }
    if values.is_empty() { DryRun::No } else { DryRun::All }
}

fn checked(kind: &str, errors: &Errors) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("meta.k8s.io", kind, "", errors)) }
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
        let mut errors = Errors::new();
        let propagation = propagation(&options, &mut errors);
        let in_body = options.dry_run.iter().flatten().map(String::as_str);
        let dry = dry_run(in_body.chain(query.all("dryRun")), &mut errors) == DryRun::All;
        checked("DeleteOptions", &errors)?;
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

fn propagation(options: &DeleteOptions, errors: &mut Errors) -> Option<Propagation> {
    let field = FieldPath::new("propagationPolicy");
    match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some(policy), Some(_)) => {
            errors.invalid(&field, policy, "orphanDependents and deletionPropagation cannot be both set");
            None
        }
        (None, None) => None,
        (None, Some(true)) | (Some("Orphan"), None) => Some(Propagation::Orphan),
        (None, Some(false)) | (Some("Background"), None) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some(other), None) => {
            errors.not_supported(&field, other, &["Background", "Foreground", "Orphan", "nil"]);
            None
        }
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
        let mut errors = Errors::new();
        let version_match = match given("resourceVersionMatch").as_deref() {
            None => None,
            Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
            Some("Exact") => Some(VersionMatch::Exact),
            Some(other) => {
                let known: &[&str] = if watch { &["NotOlderThan"] } else { &["", "Exact", "NotOlderThan"] };
                errors.not_supported(&FieldPath::new("resourceVersionMatch"), other, known);
                None
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
        if errors.is_empty() {
            options.check(watch, &mut errors);
        }
        checked("ListOptions", &errors)?;
        if options.continue_token.is_some() && options.resource_version.is_some_and(|v| v > 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(options)
    }

    /// The combinations `ValidateListOptions` forbids.
    fn check(&self, watch: bool, errors: &mut Errors) {
        let field = FieldPath::new("resourceVersionMatch");
        let mut forbid = |why: &str| errors.forbidden(&field, why);
        if watch {
            match (self.send_initial_events, self.version_match) {
                (None, Some(_)) => {
                    forbid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
                }
                (Some(_), None | Some(VersionMatch::Exact)) => {
                    forbid("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
                }
                _ => {}
            }
            if self.version_match == Some(VersionMatch::Exact) {
                errors.not_supported(&field, "Exact", &["NotOlderThan"]);
            }
            return;
        }
        if self.version_match.is_some() {
            if self.resource_version.is_none() {
                forbid("resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if self.continue_token.is_some() {
                forbid("resourceVersionMatch is forbidden when continue is provided");
            }
        }
        if self.version_match == Some(VersionMatch::Exact) && self.resource_version == Some(0) {
            forbid("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if self.send_initial_events.is_some() {
            let why = "sendInitialEvents is forbidden for list";
            errors.forbidden(&FieldPath::new("sendInitialEvents"), why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, ApiError>) -> Option<(u16, String)> {
        result.err().map(|e| (e.code(), e.message))
    }

    #[test]
    fn options_of_writes_are_checked() {
        let check = |query: &str, write: Write, expected: Option<&str>| {
            let expected = expected.map(|m| (422, m.to_owned()));
            assert_eq!(message(WriteOptions::parse(&Query::parse(query), write)), expected, "{query}");
        };
        check("dryRun=All&fieldManager=a&fieldValidation=Strict", Write::Create, None);
        check("force=true", Write::Update, None);
        check(
            "dryRun=Some",
            Write::Create,
            Some(
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All""#,
            ),
        );
        check(
            "fieldValidation=x",
            Write::Update,
            Some(
                r#"UpdateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "x": supported values: "", "Ignore", "Strict", "Warn""#,
            ),
        );
        check(
            "force=1",
            Write::Patch,
            Some(
                r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#,
            ),
        );
        let long = format!("fieldManager={}", "a".repeat(129));
        let why = r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes"#;
        check(&long, Write::Patch, Some(why));
        check(
            "fieldManager=a%09b",
            Write::Create,
            Some(
                r#"CreateOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "a\tb": invalid character U+0009 (at position 1)"#,
            ),
        );
    }

    #[test]
    fn options_of_deletions_are_checked() {
        let check = |query: &str, body: &str, expected: Option<&str>| {
            let expected = expected.map(|m| (422, m.to_owned()));
            assert_eq!(message(Deletion::parse(&Query::parse(query), body.as_bytes())), expected, "{query} {body}");
        };
        check("propagationPolicy=Orphan", "", None);
        check("dryRun=All", r#"{"gracePeriodSeconds":0}"#, None);
        check(
            "",
            r#"{"propagationPolicy":"Never"}"#,
            Some(
                r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Never": supported values: "Background", "Foreground", "Orphan", "nil""#,
            ),
        );
        check(
            "orphanDependents=true&propagationPolicy=Orphan",
            "",
            Some(
                r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set"#,
            ),
        );
    }

    #[test]
    fn options_of_lists_are_checked() {
        let check = |query: &str, watch: bool, expected: Option<&str>| {
            let expected = expected.map(|m| (422, format!("ListOptions.meta.k8s.io \"\" is invalid: {m}")));
            assert_eq!(message(ListOptions::parse(&Query::parse(query), watch)), expected, "{query}");
        };
        check("resourceVersion=5&resourceVersionMatch=Exact", false, None);
        check("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", true, None);
        check(
            "resourceVersionMatch=Exact",
            false,
            Some(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
        );
        check(
            "sendInitialEvents=true",
            true,
            Some(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        );
        check(
            "resourceVersionMatch=x&resourceVersion=1",
            false,
            Some(r#"resourceVersionMatch: Unsupported value: "x": supported values: "", "Exact", "NotOlderThan""#),
        );
        check(
            "sendInitialEvents=true",
            false,
            Some("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        );
        let both = message(ListOptions::parse(&Query::parse("continue=x&resourceVersion=7"), false));
        assert_eq!(both.map(|(code, _)| code), Some(400));
    }
}
