//! The webhooks of the two kinds of configuration, which differ in one field only.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, RuleWithOperations, ServiceReference, ValidatingWebhook, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, Rule, validate_choice, validate_match_conditions,
    validate_rule,
};
use crate::kinds::fields::{default_number, default_to, list};
use crate::kinds::meta::{age_cell, name_cell};
use crate::table::{Cell, Column};
use crate::validation::{
    Errors, Path, dns1035_label, dns1123_subdomain, fully_qualified_name, json, port_number, validate_label_selector,
};

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];

/// The columns of both kinds.
pub(in crate::kinds) const WEBHOOK_COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Webhooks", "Webhooks indicates the number of webhooks registered in this configuration"),
    Column::AGE,
];

/// What a webhook of either kind says.
pub(in crate::kinds) struct View<'a> {
    name: &'a str,
    rules: &'a [RuleWithOperations],
    failure_policy: Option<&'a String>,
    match_policy: Option<&'a String>,
    side_effects: &'a str,
    timeout_seconds: Option<i32>,
    selectors: [(&'static str, Option<&'a LabelSelector>); 2],
    client_config: &'a WebhookClientConfig,
    match_conditions: &'a [MatchCondition],
    review_versions: &'a [String],
    reinvocation_policy: Option<&'a String>,
}

/// A webhook of one of the two kinds of configuration.
pub(in crate::kinds) trait Webhook {
    /// What it says.
    fn view(&self) -> View<'_>;
    /// Fills in what a client left out.
    fn apply_defaults(&mut self);
}

macro_rules! webhook {
    ($type:ty, |$hook:ident| $reinvocation:expr) => {
        impl Webhook for $type {
            fn view(&self) -> View<'_> {
                let $hook = self;
                View {
                    name: &self.name,
                    rules: list(&self.rules),
                    failure_policy: self.failure_policy.as_ref(),
                    match_policy: self.match_policy.as_ref(),
                    side_effects: &self.side_effects,
                    timeout_seconds: self.timeout_seconds,
                    selectors: [
                        ("namespaceSelector", self.namespace_selector.as_ref()),
                        ("objectSelector", self.object_selector.as_ref()),
                    ],
                    client_config: &self.client_config,
                    match_conditions: list(&self.match_conditions),
                    review_versions: &self.admission_review_versions,
                    reinvocation_policy: $reinvocation,
                }
            }

            fn apply_defaults(&mut self) {
                default_to(&mut self.failure_policy, "Fail");
                default_to(&mut self.match_policy, "Equivalent");
                self.namespace_selector.get_or_insert_default();
                self.object_selector.get_or_insert_default();
                self.timeout_seconds.get_or_insert(10);
                for rule in self.rules.iter_mut().flatten() {
                    rule.scope.get_or_insert_with(|| "*".to_owned());
                }
                if let Some(service) = &mut self.client_config.service {
                    default_number(&mut service.port, 443);
                }
            }
        }
    };
}
webhook!(ValidatingWebhook, |_hook| None);
webhook!(MutatingWebhook, |hook| hook.reinvocation_policy.as_ref());

/// Reports what is wrong with the webhooks of a configuration.
pub(in crate::kinds) fn validate_webhooks<W: Webhook>(webhooks: &[W], errors: &mut Errors) {
    let all = Path::new("webhooks");
    let views: Vec<View<'_>> = webhooks.iter().map(Webhook::view).collect();
    for (i, webhook) in views.iter().enumerate() {
        let at = all.index(i);
        validate_webhook(webhook, &at, errors);
        validate_review_versions(webhook.review_versions, &at.child("admissionReviewVersions"), errors);
        if !webhook.name.is_empty() && views[..i].iter().any(|v| v.name == webhook.name) {
            errors.duplicate(&at.child("name"), webhook.name);
        }
    }
}

/// The row of a configuration.
pub(in crate::kinds) fn webhooks_row(meta: &ObjectMeta, webhooks: usize, now: jiff::Timestamp) -> Vec<Cell> {
    vec![name_cell(meta), webhooks.into(), age_cell(meta, now)]
}

fn validate_webhook(webhook: &View<'_>, at: &Path<'_>, errors: &mut Errors) {
    if webhook.name.is_empty() {
        errors.required(&at.child("name"), "");
    } else if let Some(why) = fully_qualified_name(webhook.name) {
        errors.invalid(&at.child("name"), webhook.name, why);
    }
    for (i, rule) in webhook.rules.iter().enumerate() {
        validate_rule(&Rule::from(rule), &at.child("rules").index(i), errors);
    }
    validate_choice(webhook.failure_policy, &FAILURE_POLICIES, &at.child("failurePolicy"), errors);
    validate_choice(webhook.match_policy, &MATCH_POLICIES, &at.child("matchPolicy"), errors);
    match webhook.side_effects {
        "" => errors.required(&at.child("sideEffects"), "must specify one of None, NoneOnDryRun"),
        other if !SIDE_EFFECTS.contains(&other) => {
            errors.not_supported(&at.child("sideEffects"), other, &SIDE_EFFECTS);
        }
        _ => {}
    }
    if let Some(seconds) = webhook.timeout_seconds.filter(|s| !(1..=30).contains(s)) {
        errors.invalid(&at.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds");
    }
    for (field, selector) in webhook.selectors {
        if let Some(selector) = selector {
            validate_label_selector(selector, &at.child(field), errors);
        }
    }
    validate_choice(webhook.reinvocation_policy, &REINVOCATION_POLICIES, &at.child("reinvocationPolicy"), errors);
    let config = at.child("clientConfig");
    match (&webhook.client_config.url, &webhook.client_config.service) {
        (Some(url), None) => validate_url(url, &config.child("url"), errors),
        (None, Some(service)) => validate_service(service, &config.child("service"), errors),
        _ => errors.required(&config, "exactly one of url or service is required"),
    }
    validate_match_conditions(webhook.match_conditions, &at.child("matchConditions"), errors);
}

fn validate_review_versions(versions: &[String], at: &Path<'_>, errors: &mut Errors) {
    if versions.is_empty() {
        return errors.required(at, "must specify one of v1, v1beta1");
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.invalid(&at.index(i), version, "duplicate version");
            continue;
        }
        errors.invalid_each(&at.index(i), version, dns1035_label(version));
    }
    if !versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str())) {
        errors.invalid(at, json(&versions), "must include at least one of v1, v1beta1");
    }
}

/// A URL with a scheme of `https` and a host, and none of what has no meaning to a webhook (`ValidateWebhookURL`).
fn validate_url(url: &str, at: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let parts = match UrlParts::of(url) {
        Ok(parts) => parts,
        Err(why) => return errors.required(at, format!("url must be a valid URL: parse {url:?}: {why}{FORM}")),
    };
    if parts.scheme != "https" {
        errors.invalid(at, parts.scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if parts.host.is_empty() {
        errors.invalid(at, parts.host, format!("host must be specified{FORM}"));
    }
    for (part, why) in [
        (parts.user, "user information is not permitted in the URL"),
        (parts.fragment, "fragments are not permitted in the URL"),
        (parts.query, "query parameters are not permitted in the URL"),
    ] {
        if !part.is_empty() {
            errors.invalid(at, part, why);
        }
    }
}

/// The parts of a URL that a webhook's must or must not have; the path is of no interest.
struct UrlParts<'a> {
    scheme: &'a str,
    user: &'a str,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> UrlParts<'a> {
    /// Takes a URL apart as Go's `net/url` does, with its words for what cannot be taken apart.
    fn of(url: &'a str) -> Result<Self, String> {
        if url.bytes().any(|b| b.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, rest) = match rest.split_once(':') {
            Some(("", _)) => return Err("missing protocol scheme".to_owned()),
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            _ => ("", rest),
        };
        let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
        if let Some((_, port)) = after.split_once(':').filter(|(_, p)| !p.bytes().all(|b| b.is_ascii_digit())) {
            return Err(format!("invalid port {:?} after host", format!(":{port}")));
        }
        if let Some(bad) = host.chars().find(|c| matches!(c, ' ' | '\\' | '^' | '`' | '{' | '|' | '}')) {
            return Err(format!("invalid character {:?} in host name", bad.to_string()));
        }
        Ok(Self { scheme, user, host, query, fragment })
    }
}

fn is_scheme(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// The Service of a webhook (`ValidateWebhookService`).
pub(in crate::kinds) fn validate_service(service: &ServiceReference, at: &Path<'_>, errors: &mut Errors) {
    for (field, value) in [("name", &service.name), ("namespace", &service.namespace)] {
        if value.is_empty() {
            errors.required(&at.child(field), "");
        }
    }
    let port = service.port.unwrap_or_default();
    let broken = port_number(port);
    if !broken.is_empty() {
        errors.invalid(&at.child("port"), port, format!("port is not valid: {}", broken.join(", ")));
    }
    if let Some(path) = &service.path {
        validate_url_path(path, &at.child("path"), errors);
    }
}

fn validate_url_path(path: &str, at: &Path<'_>, errors: &mut Errors) {
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        return errors.invalid(at, path, "segment[0] may not be empty");
    }
    if !path.starts_with('/') {
        errors.invalid(at, path, "must start with a '/'");
    }
    // The first byte is skipped whatever it is, and one slash at the end.
    let mut inner = path.char_indices().nth(1).map_or("", |(i, _)| &path[i..]);
    inner = inner.strip_suffix('/').unwrap_or(inner);
    for (i, segment) in inner.split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(at, path, format!("segment[{i}] may not be empty"));
            continue;
        }
        for why in dns1123_subdomain(segment) {
            errors.invalid(at, path, format!("segment[{i}]: {why}"));
        }
    }
}
