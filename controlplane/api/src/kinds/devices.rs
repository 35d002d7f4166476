//! What the kinds of `resource.k8s.io` share: claims for devices, their configuration, and the names of drivers, pools,
//! attributes and devices (`pkg/apis/resource/validation`).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceConstraint, DeviceRequest, DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration,
};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;

use super::fields::{list, text};
use super::volume::validate_driver;
use crate::validation::{
    Errors, Path, Shown, c_identifier, dns1123_label, dns1123_subdomain, label_value, qualified_name,
};

/// The most requests, constraints, configurations, selectors or results of a claim.
pub(super) const MAX_OF_CLAIM: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_TOLERATIONS: usize = 16;
const MAX_BINDING_CONDITIONS: usize = 4;
/// The longest expression of a selector, in bytes.
const MAX_EXPRESSION: usize = 10 * 1024;
/// The longest parameters or data of a driver, in bytes of JSON.
const MAX_RAW: usize = 10 * 1024;
const MAX_POOL: usize = 253;
const MAX_IDENTIFIER: usize = 32;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const REQUEST_REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Whether a list may hold the same thing twice.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bound {
    /// So many entries.
    AtMost(usize),
    /// Any number.
    None,
}

/// Each entry of a list by its own rule, unless the list is too long: then only that is said.
pub(super) fn validate_list<T>(
    items: &[T],
    bound: Bound,
    at: &Path<'_>,
    errors: &mut Errors,
    mut rule: impl FnMut(&T, &Path<'_>, &mut Errors),
) {
    if let Bound::AtMost(most) = bound
        && items.len() > most
    {
        return errors.too_many(at, items.len(), most);
    }
    for (i, item) in items.iter().enumerate() {
        rule(item, &at.index(i), errors);
    }
}

/// The same for a list that names each thing once.
pub(super) fn validate_set<'a, T, K: Shown + Ord + 'a>(
    items: &'a [T],
    bound: Bound,
    key: impl Fn(&'a T) -> K,
    at: &Path<'_>,
    errors: &mut Errors,
    rule: impl FnMut(&T, &Path<'_>, &mut Errors),
) {
    validate_list(items, bound, at, errors, rule);
    if matches!(bound, Bound::AtMost(most) if items.len() > most) {
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let key = key(item);
        if seen.contains(&key) {
            errors.duplicate(&at.index(i), &key);
        }
        seen.insert(key);
    }
}

/// The name of a pool: domains with slashes between them.
pub(super) fn validate_pool(name: &str, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(at, "");
    }
    if name.len() > MAX_POOL {
        errors.too_long(at, MAX_POOL);
    }
    for part in name.split('/') {
        errors.invalid_each(at, part, dns1123_subdomain(part));
    }
}

fn validate_identifier(id: &str, at: &Path<'_>, errors: &mut Errors) {
    if id.len() > MAX_IDENTIFIER {
        errors.too_long(at, MAX_IDENTIFIER);
    }
    errors.invalid_each(at, id, c_identifier(id));
}

/// The name of an attribute or a capacity, `[domain/]identifier`.
pub(super) fn validate_qualified(name: &str, at: &Path<'_>, errors: &mut Errors) {
    let Some((domain, id)) = name.split_once('/') else {
        return validate_identifier(name, at, errors);
    };
    if id.contains('/') {
        return errors.invalid(at, name, "must not contain more than one slash");
    }
    if domain.is_empty() {
        errors.invalid(at, "", "the domain must not be empty");
    } else {
        validate_driver(domain, at, errors);
    }
    if id.is_empty() {
        errors.invalid(at, "", "the name must not be empty");
    } else {
        validate_identifier(id, at, errors);
    }
}

fn validate_fully_qualified(name: &str, at: &Path<'_>, errors: &mut Errors) {
    validate_qualified(name, at, errors);
    if !name.contains('/') {
        errors.invalid(at, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// An id as `uuid` libraries write it.
pub(super) fn validate_uuid(uid: &str, at: &Path<'_>, errors: &mut Errors) {
    let groups: Vec<usize> = uid.split('-').map(str::len).collect();
    let hex = uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if !hex || groups != [8, 4, 4, 4, 12] {
        errors.invalid(at, uid, "error validating uid: invalid UUID format");
    } else if uid.bytes().any(|b| b.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.invalid(at, uid, why);
    }
}

/// Whether what a client sent was valid before, so that only its shape is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is new.
    New,
    /// It is stored already, from a time when rules may have been wider.
    Stored,
}

/// A driver's own JSON: an object, not too long.
pub(super) fn validate_raw(raw: &RawExtension, seen: Seen, at: &Path<'_>, errors: &mut Errors) {
    match &raw.0 {
        serde_json::Value::Null => errors.required(at, ""),
        value if seen == Seen::New && value.to_string().len() > MAX_RAW => errors.too_long(at, MAX_RAW),
        serde_json::Value::Object(_) => {}
        _ => errors.invalid(at, "<value omitted>", "must be a valid JSON object"),
    }
}

/// The configuration of a claim, a class or an allocation: that of a driver, being the one sort there is.
pub(super) fn validate_configuration(
    opaque: Option<&OpaqueDeviceConfiguration>,
    seen: Seen,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let at = at.child("opaque");
    match opaque {
        None => errors.required(&at, ""),
        Some(opaque) => {
            validate_driver(&opaque.driver, &at.child("driver"), errors);
            validate_raw(&opaque.parameters, seen, &at.child("parameters"), errors);
        }
    }
}

/// Selectors of devices. Their expressions are compiled by whoever evaluates them.
pub(super) fn validate_selectors(selectors: &[DeviceSelector], seen: Seen, at: &Path<'_>, errors: &mut Errors) {
    validate_list(selectors, Bound::AtMost(MAX_OF_CLAIM), at, errors, |selector, at, errors| {
        let at = at.child("cel");
        match &selector.cel {
            None => errors.required(&at, ""),
            Some(cel) if seen == Seen::New && cel.expression.len() > MAX_EXPRESSION => {
                errors.too_long(&at.child("expression"), MAX_EXPRESSION);
            }
            Some(_) => {}
        }
    });
}

/// Fills in how many devices each request of a claim asks for.
pub(super) fn default_claim(claim: &mut DeviceClaim) {
    let default = |mode: &mut Option<String>, count: &mut Option<i64>| {
        let mode = mode.get_or_insert_default();
        if mode.is_empty() {
            "ExactCount".clone_into(mode);
        }
        if mode == "ExactCount" && count.unwrap_or_default() == 0 {
            *count = Some(1);
        }
    };
    for request in claim.requests.iter_mut().flatten() {
        let exactly = request.exactly.iter_mut().map(|r| (&mut r.allocation_mode, &mut r.count, &mut r.tolerations));
        let one_of = request.first_available.iter_mut().flatten();
        let one_of = one_of.map(|r| (&mut r.allocation_mode, &mut r.count, &mut r.tolerations));
        for (mode, count, tolerations) in exactly.chain(one_of) {
            default(mode, count);
            for toleration in tolerations.iter_mut().flatten() {
                toleration.operator.get_or_insert_with(|| "Equal".to_owned());
            }
        }
    }
}

/// Reports what is wrong with a claim for devices.
pub(super) fn validate_claim(claim: &DeviceClaim, at: &Path<'_>, errors: &mut Errors) {
    let most = Bound::AtMost(MAX_OF_CLAIM);
    let requests = list(&claim.requests);
    validate_set(requests, most, |r| &r.name, &at.child("requests"), errors, validate_request);
    validate_list(list(&claim.constraints), most, &at.child("constraints"), errors, |constraint, at, errors| {
        validate_constraint(constraint, requests, at, errors);
    });
    validate_list(list(&claim.config), most, &at.child("config"), errors, |config, at, errors| {
        validate_references(list(&config.requests), requests, &at.child("requests"), errors);
        validate_configuration(config.opaque.as_ref(), Seen::New, at, errors);
    });
}

fn validate_request(request: &DeviceRequest, at: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(&at.child("name"), &request.name, dns1123_label(&request.name));
    let one_of = list(&request.first_available);
    match (&request.exactly, one_of) {
        (None, []) => errors.required(at, "exactly one of `exactly` or `firstAvailable` is required"),
        (Some(_), [_, ..]) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(at, serde_json::Value::Null, why);
        }
        (Some(exactly), []) => {
            let asked = Asked {
                class: &exactly.device_class_name,
                selectors: list(&exactly.selectors),
                mode: text(&exactly.allocation_mode),
                count: exactly.count.unwrap_or_default(),
                tolerations: list(&exactly.tolerations),
            };
            validate_asked(&asked, &at.child("exactly"), errors);
        }
        (None, one_of) => {
            let at = at.child("firstAvailable");
            validate_set(
                one_of,
                Bound::AtMost(MAX_ALTERNATIVES),
                |r| &r.name,
                &at,
                errors,
                |request, at, errors| {
                    errors.invalid_each(&at.child("name"), &request.name, dns1123_label(&request.name));
                    let asked = Asked {
                        class: &request.device_class_name,
                        selectors: list(&request.selectors),
                        mode: text(&request.allocation_mode),
                        count: request.count.unwrap_or_default(),
                        tolerations: list(&request.tolerations),
                    };
                    validate_asked(&asked, at, errors);
                },
            );
        }
    }
}

/// What a request asks for, or one of its alternatives.
struct Asked<'a> {
    class: &'a str,
    selectors: &'a [DeviceSelector],
    mode: &'a str,
    count: i64,
    tolerations: &'a [DeviceToleration],
}

fn validate_asked(asked: &Asked<'_>, at: &Path<'_>, errors: &mut Errors) {
    let class_at = at.child("deviceClassName");
    if asked.class.is_empty() {
        errors.required(&class_at, "");
    } else {
        errors.invalid_each(&class_at, asked.class, dns1123_subdomain(asked.class));
    }
    validate_selectors(asked.selectors, Seen::New, &at.child("selectors"), errors);
    let count_at = at.child("count");
    match asked.mode {
        "All" if asked.count != 0 => {
            errors.invalid(&count_at, asked.count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if asked.count <= 0 => errors.invalid(&count_at, asked.count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&at.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    validate_tolerations(asked.tolerations, &at.child("tolerations"), errors);
}

/// Tolerations of the taints of devices.
pub(super) fn validate_tolerations(tolerations: &[DeviceToleration], at: &Path<'_>, errors: &mut Errors) {
    validate_list(tolerations, Bound::AtMost(MAX_TOLERATIONS), at, errors, |toleration, at, errors| {
        let (key, value) = (text(&toleration.key), text(&toleration.value));
        if !key.is_empty() {
            errors.invalid_each(&at.child("key"), key, qualified_name(key));
        }
        match text(&toleration.operator) {
            "Exists" if !value.is_empty() => {
                errors.invalid(&at.child("value"), value, "must be empty for operator `Exists`");
            }
            "Exists" => {}
            "Equal" => errors.invalid_each(&at.child("value"), value, label_value(value)),
            "" => errors.required(&at.child("operator"), ""),
            other => errors.not_supported(&at.child("operator"), other, &["Equal", "Exists"]),
        }
        let effect = text(&toleration.effect);
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(&at.child("effect"), effect, &EFFECTS);
        }
    });
}

/// The effect of a taint of a device, which it must have.
pub(super) fn validate_taint_effect(effect: &str, at: &Path<'_>, errors: &mut Errors) {
    if effect.is_empty() {
        errors.required(at, "");
    } else if !EFFECTS.contains(&effect) {
        errors.not_supported(at, effect, &EFFECTS);
    }
}

fn validate_constraint(constraint: &DeviceConstraint, requests: &[DeviceRequest], at: &Path<'_>, errors: &mut Errors) {
    validate_references(list(&constraint.requests), requests, &at.child("requests"), errors);
    if let Some(attribute) = &constraint.match_attribute {
        validate_fully_qualified(attribute, &at.child("matchAttribute"), errors);
    } else if let Some(attribute) = &constraint.distinct_attribute {
        validate_fully_qualified(attribute, &at.child("distinctAttribute"), errors);
    } else {
        let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set";
        errors.required(at, why);
    }
}

/// Names of requests of the claim, each once.
pub(super) fn validate_references(names: &[String], requests: &[DeviceRequest], at: &Path<'_>, errors: &mut Errors) {
    validate_set(
        names,
        Bound::AtMost(MAX_OF_CLAIM),
        |name| name,
        at,
        errors,
        |name, at, errors| {
            validate_reference(name, requests, at, errors);
        },
    );
}

/// The name of a request of the claim, or of one of its alternatives after a slash.
pub(super) fn validate_reference(name: &str, requests: &[DeviceRequest], at: &Path<'_>, errors: &mut Errors) {
    let (request, alternative) = name.split_once('/').map_or((name, None), |(r, a)| (r, Some(a)));
    if alternative.is_some_and(|a| a.contains('/')) {
        return errors.invalid(at, name, REQUEST_REFERENCE);
    }
    for part in [Some(request), alternative].into_iter().flatten() {
        errors.invalid_each(at, part, dns1123_label(part));
    }
    let known = requests.iter().filter(|r| r.name == request).any(|r| match alternative {
        None => true,
        Some(alternative) => list(&r.first_available).iter().any(|a| a.name == alternative),
    });
    if !known {
        errors.invalid(at, name, REQUEST_REFERENCE);
    }
}

/// Conditions for which binding waits, and those which end the wait: both or neither, and none in both.
pub(super) fn validate_binding_conditions(good: &[String], bad: &[String], at: &Path<'_>, errors: &mut Errors) {
    let (good_at, bad_at) = (at.child("bindingConditions"), at.child("bindingFailureConditions"));
    let most = Bound::AtMost(MAX_BINDING_CONDITIONS);
    for (names, at) in [(good, &good_at), (bad, &bad_at)] {
        validate_set(
            names,
            most,
            |name| name,
            at,
            errors,
            |name, at, errors| {
                errors.invalid_each(at, name, qualified_name(name));
            },
        );
    }
    for (i, name) in bad.iter().enumerate().filter(|(_, name)| good.contains(name)) {
        errors.invalid(&bad_at.index(i), name, "bindingFailureConditions must not overlap with bindingConditions");
    }
    if good.is_empty() && !bad.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        errors.invalid(&good_at, crate::validation::json(&good), why);
    }
    if bad.is_empty() && !good.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        errors.invalid(&bad_at, crate::validation::json(&bad), why);
    }
}
