//! What the kinds that make pods from a template share: selectors, numbers of pods, amounts that may be percentages, and
//! the cells that show a template.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fields::text;
use super::pod;
use crate::selector::Selector;
use crate::validation::{Errors, IMMUTABLE, Path, Shown, json, validate_label_selector, validate_non_negative};

/// Names of the containers, separated by commas.
pub(super) fn container_names(template: &PodTemplateSpec) -> String {
    join(template, |c| &c.name)
}

/// Images of the containers, separated by commas.
pub(super) fn container_images(template: &PodTemplateSpec) -> String {
    join(template, |c| text(&c.image))
}

fn join(template: &PodTemplateSpec, of: impl Fn(&k8s_openapi::api::core::v1::Container) -> &str) -> String {
    let containers = template.spec.iter().flat_map(|s| &s.containers);
    containers.map(of).collect::<Vec<_>>().join(",")
}

/// `a=b,c=d`, or `<none>` (`labels.FormatLabels`).
pub(super) fn labels_text(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = labels.into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// The selector as text, or `<none>` (`metav1.FormatLabelSelector`).
pub(super) fn selector_text(selector: Option<&LabelSelector>) -> String {
    match selector.map(Selector::from_label_selector) {
        Some(Ok(selector)) if !selector.is_empty() => selector.to_string(),
        Some(Err(_)) => "<error>".to_owned(),
        _ => "<none>".to_owned(),
    }
}

/// What a client is told of a template that stands in `spec.template`.
pub(super) fn template_warnings(template: &PodTemplateSpec) -> Vec<String> {
    let Some(spec) = &template.spec else { return Vec::new() };
    let root = Path::new("spec");
    let template = root.child("template");
    pod::spec_warnings(spec, &template.child("spec"))
}

/// A percentage or a number as errors print it.
pub(super) struct IntOrPercent<'a>(pub(super) &'a IntOrString);

impl Shown for IntOrPercent<'_> {
    fn shown(&self) -> String {
        match self.0 {
            IntOrString::Int(n) => n.to_string(),
            IntOrString::String(s) => format!("{s:?}"),
        }
    }
}

/// The number in front of a percent sign.
fn percent(text: &str) -> Option<i64> {
    let digits = text.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().unwrap_or(i64::MAX))
}

/// A number that is not negative, or a percentage.
pub(super) fn validate_int_or_percent(value: &IntOrString, at: &Path<'_>, errors: &mut Errors) {
    match value {
        IntOrString::Int(n) => validate_non_negative(*n, at, errors),
        IntOrString::String(s) => {
            if percent(s).is_none() {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                errors.invalid(at, s, detail);
            }
        }
    }
}

/// A percentage of 100 at most.
pub(super) fn validate_at_most_100_percent(value: &IntOrString, at: &Path<'_>, errors: &mut Errors) {
    if matches!(value, IntOrString::String(s) if percent(s).is_some_and(|p| p > 100)) {
        errors.invalid(at, IntOrPercent(value), "must not be greater than 100%");
    }
}

/// Whether it is 0 or 0 %.
pub(super) fn is_zero(value: &IntOrString) -> bool {
    match value {
        IntOrString::Int(n) => *n == 0,
        IntOrString::String(s) => percent(s).unwrap_or_default() == 0,
    }
}

/// What a kind calls itself where its rules are the same as another's.
pub(super) struct Words {
    /// `empty selector is invalid for deployment`.
    pub(super) empty_selector: &'static str,
    /// `activeDeadlineSeconds in ReplicaSet is not Supported`.
    pub(super) deadline: &'static str,
}

/// A selector that selects something, and the template it must match.
pub(super) fn validate_selector_and_template(
    selector: &LabelSelector,
    template: &PodTemplateSpec,
    words: &Words,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    validate_selector(selector, words.empty_selector, &at.child("selector"), errors);
    match Selector::from_label_selector(selector) {
        Err(_) => errors.invalid(&at.child("selector"), json(selector), "invalid label selector"),
        Ok(selector) => {
            validate_matches(&selector, template, &at.child("template"), errors);
            pod::validate_template(template, &at.child("template"), errors);
            validate_runs_forever(template, words.deadline, &at.child("template"), errors);
        }
    }
}

/// A selector that selects something.
pub(super) fn validate_selector(selector: &LabelSelector, empty: &str, at: &Path<'_>, errors: &mut Errors) {
    validate_label_selector(selector, at, errors);
    let labels = selector.match_labels.as_ref().map_or(0, BTreeMap::len);
    if labels + selector.match_expressions.as_ref().map_or(0, Vec::len) == 0 {
        errors.invalid(at, json(selector), empty);
    }
}

/// What a controller selects may not change.
pub(super) fn validate_selector_kept(selector: &LabelSelector, old: &LabelSelector, errors: &mut Errors) {
    if selector != old {
        let at = Path::new("spec");
        errors.invalid(&at.child("selector"), json(selector), IMMUTABLE);
    }
}

/// The template makes pods that the selector finds.
pub(super) fn validate_matches(selector: &Selector, template: &PodTemplateSpec, at: &Path<'_>, errors: &mut Errors) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    if !selector.is_empty() && !selector.matches_opt(labels) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&at.child("metadata").child("labels"), json(&labels), detail);
    }
}

/// Pods of a controller that replaces them run until they are told to stop.
pub(super) fn validate_runs_forever(template: &PodTemplateSpec, deadline: &str, at: &Path<'_>, errors: &mut Errors) {
    let empty = PodSpec::default();
    let spec = template.spec.as_ref().unwrap_or(&empty);
    let at = at.child("spec");
    if text(&spec.restart_policy) != "Always" {
        errors.not_supported(&at.child("restartPolicy"), text(&spec.restart_policy), &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        errors.forbidden(&at.child("activeDeadlineSeconds"), deadline);
    }
}

/// Counts of a status: none negative, none above the whole.
pub(super) fn validate_counts(replicas: i32, parts: &[(&str, Option<i32>)], at: &Path<'_>, errors: &mut Errors) {
    validate_non_negative(replicas, &at.child("replicas"), errors);
    for (field, count) in parts {
        validate_non_negative(count.unwrap_or_default(), &at.child(field), errors);
    }
    for (field, count) in parts {
        let count = count.unwrap_or_default();
        if count > replicas {
            errors.invalid(&at.child(field), count, "cannot be greater than status.replicas");
        }
    }
    let of = |name: &str| parts.iter().find(|(f, _)| *f == name).and_then(|(_, c)| *c).unwrap_or_default();
    if of("availableReplicas") > of("readyReplicas") {
        let detail = "cannot be greater than readyReplicas";
        errors.invalid(&at.child("availableReplicas"), of("availableReplicas"), detail);
    }
}

/// A count of hash collisions, which only grows.
pub(super) fn validate_collisions(new: Option<i32>, old: Option<i32>, errors: &mut Errors) {
    let at = Path::new("status");
    let at = at.child("collisionCount");
    validate_non_negative(new.unwrap_or_default(), &at, errors);
    if old.is_some() && new < old {
        errors.invalid(&at, new.unwrap_or_default(), "cannot be decremented");
    }
}
