//! One device of a slice: its attributes, capacities, taints, the counters it consumes and where it is.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{
    CapacityRequestPolicy, CapacityRequestPolicyRange, Counter, Device, DeviceAttribute, DeviceCapacity,
    DeviceCounterConsumption, DeviceTaint, NodeAllocatableResourceMapping,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kinds::devices::{
    Bound, validate_binding_conditions, validate_list, validate_qualified, validate_set, validate_taint_effect,
};
use crate::kinds::fields::{is_true, list, text};
use crate::kinds::pod::validate_node_selector;
use crate::quantity::Amount;
use crate::validation::{Errors, Path, dns1123_label, dns1123_subdomain, json, label_value, qualified_name};

const MAX_NAMES: usize = 32;
const MAX_VALUES: usize = 48;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMPTIONS: usize = 2;
const MAX_TAINTS: usize = 16;
const MAX_TEXT: usize = 64;
const MAX_OPTIONS: usize = 10;
/// Longer names of attributes are cut in the middle where a path shows them.
const MAX_SHOWN_KEY: usize = 63 + 1 + 32;

/// Who says on which nodes a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The slice, for all its devices.
    OfSlice,
    /// Each device.
    PerDevice,
}

/// What a multiplier that is left out stands for.
pub(super) fn one() -> Quantity {
    Quantity("1".to_owned())
}

/// Reports what is wrong with a device. What it had before is not looked at again.
pub(super) fn validate(device: &Device, old: Option<&Device>, place: Place, at: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(&at.child("name"), &device.name, dns1123_label(&device.name));
    validate_sizes(device, at, errors);
    for (name, attribute) in device.attributes.iter().flatten() {
        let at = at.child("attributes");
        validate_qualified(name, &at, errors);
        validate_attribute(attribute, &at.key(&shortened(name)), errors);
    }
    if old.is_none_or(|old| old.capacity != device.capacity) {
        for (name, capacity) in device.capacity.iter().flatten() {
            let at = at.child("capacity");
            validate_qualified(name, &at, errors);
            validate_capacity(capacity, device, &at.key(&shortened(name)), errors);
        }
    }
    if old.is_none_or(|old| old.taints != device.taints) {
        validate_list(list(&device.taints), Bound::AtMost(MAX_TAINTS), &at.child("taints"), errors, validate_taint);
    }
    let consumed = list(&device.consumes_counters);
    let most = Bound::AtMost(MAX_CONSUMPTIONS);
    validate_set(consumed, most, |c| &c.counter_set, &at.child("consumesCounters"), errors, validate_consumption);
    validate_place(device, place, at, errors);
    let (good, bad) = (list(&device.binding_conditions), list(&device.binding_failure_conditions));
    validate_binding_conditions(good, bad, at, errors);
    for (name, mapping) in device.node_allocatable_resource_mappings.iter().flatten() {
        let at = at.child("nodeAllocatableResourceMappings");
        validate_mapping(name, mapping, device, &at.key(name), errors);
    }
}

/// A name no longer than a path shows it.
fn shortened(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    if chars.len() <= MAX_SHOWN_KEY {
        return name.to_owned();
    }
    let kept = MAX_SHOWN_KEY - "...".len();
    let (head, tail) = (&chars[..kept.div_ceil(2)], &chars[chars.len() - kept / 2..]);
    head.iter().chain(&['.', '.', '.']).chain(tail).collect()
}

fn validate_sizes(device: &Device, at: &Path<'_>, errors: &mut Errors) {
    let names = |map: usize, other: usize| map + other;
    let count =
        names(device.attributes.as_ref().map_or(0, BTreeMap::len), device.capacity.as_ref().map_or(0, BTreeMap::len));
    if count > MAX_NAMES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_NAMES}");
        errors.invalid(at, count, why);
    }
    let values: usize = device.attributes.iter().flatten().map(|(_, a)| list_len(a).max(1)).sum();
    if values > MAX_VALUES {
        let why = format!("the total number of attribute values must not exceed {MAX_VALUES}");
        errors.invalid(at, values, why);
    }
}

fn list_len(a: &DeviceAttribute) -> usize {
    list(&a.bools).len() + list(&a.ints).len() + list(&a.strings).len() + list(&a.versions).len()
}

/// An attribute has one value, or one list of values.
fn validate_attribute(attribute: &DeviceAttribute, at: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = &attribute.string {
        validate_text(value, &at.child("string"), errors);
    }
    if let Some(value) = &attribute.version {
        validate_version(value, &at.child("version"), errors);
    }
    for (field, empty) in [
        ("bools", attribute.bools.as_ref().map(Vec::is_empty)),
        ("ints", attribute.ints.as_ref().map(Vec::is_empty)),
        ("strings", attribute.strings.as_ref().map(Vec::is_empty)),
        ("versions", attribute.versions.as_ref().map(Vec::is_empty)),
    ] {
        if empty == Some(true) {
            errors.invalid(&at.child(field), json(&[(); 0]), "must not be empty if specified");
        }
    }
    for (i, value) in list(&attribute.strings).iter().enumerate() {
        validate_text(value, &at.child("strings").index(i), errors);
    }
    for (i, value) in list(&attribute.versions).iter().enumerate() {
        validate_version(value, &at.child("versions").index(i), errors);
    }
    let set = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.bools.is_some(),
        attribute.ints.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    match set.into_iter().filter(|set| *set).count() {
        0 => errors.invalid(at, "", "exactly one value must be specified"),
        1 => {}
        _ => errors.invalid(at, json(attribute), "exactly one value must be specified"),
    }
}

fn validate_text(value: &str, at: &Path<'_>, errors: &mut Errors) {
    if value.len() > MAX_TEXT {
        errors.too_long(at, MAX_TEXT);
    }
}

fn validate_version(value: &str, at: &Path<'_>, errors: &mut Errors) {
    if !is_semantic_version(value) {
        errors.invalid(at, value, "must be a string compatible with semver.org spec 2.0.0");
    }
    validate_text(value, at, errors);
}

/// `1.2.3-pre.1+build.7`, as semver.org 2.0.0 has it.
fn is_semantic_version(value: &str) -> bool {
    let (rest, build) = value.split_once('+').map_or((value, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let parts: Vec<&str> = core.split('.').collect();
    parts.len() == 3
        && parts.into_iter().all(number)
        && pre.is_none_or(|p| p.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|b| b.split('.').all(word))
}

/// What may be asked of a capacity. Only a device that is allocated more than once can be asked for a part.
fn validate_capacity(capacity: &DeviceCapacity, device: &Device, at: &Path<'_>, errors: &mut Errors) {
    let at = at.child("requestPolicy");
    let Some(policy) = &capacity.request_policy else { return };
    if !is_true(device.allow_multiple_allocations) {
        return errors.forbidden(&at, "allowMultipleAllocations must be true");
    }
    let Ok(whole) = Amount::of(&capacity.value) else { return };
    match (list(&policy.valid_values), &policy.valid_range) {
        ([_, ..], Some(_)) => {
            let why = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
            errors.forbidden(&at, why);
        }
        ([], None) => {}
        (options @ [_, ..], None) => match default_of(policy) {
            None => errors.required(&at.child("default"), "required when validValues is defined"),
            Some(default) => validate_options(options, default, whole, &at.child("validValues"), errors),
        },
        ([], Some(range)) => match default_of(policy) {
            None => errors.required(&at.child("default"), "required when validRange is defined"),
            Some(default) => validate_range(range, default, whole, &at.child("validRange"), errors),
        },
    }
}

fn default_of(policy: &CapacityRequestPolicy) -> Option<Amount> {
    policy.default.as_ref().and_then(|q| Amount::of(q).ok())
}

fn amount(quantity: &Quantity) -> Amount {
    Amount::of(quantity).unwrap_or_default()
}

fn validate_options(options: &[Quantity], default: Amount, whole: Amount, at: &Path<'_>, errors: &mut Errors) {
    let amounts: Vec<Amount> = options.iter().map(amount).collect();
    for (i, pair) in amounts.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        errors.invalid(&at.index(i + 1), pair[1].to_string(), "values must be sorted in ascending order");
    }
    if amounts.len() > MAX_OPTIONS {
        errors.too_many(at, amounts.len(), MAX_OPTIONS);
    } else {
        for (i, option) in amounts.iter().enumerate() {
            if *option > whole {
                let why = format!("option is larger than capacity value: {whole}");
                errors.invalid(&at.index(i), option.to_string(), why);
            }
            if amounts[..i].contains(option) {
                errors.duplicate(&at.index(i), option.to_string());
            }
        }
    }
    if !amounts.contains(&default) {
        errors.invalid(at, default.to_string(), "default value is not valid according to the requestPolicy");
    }
}

fn validate_range(
    range: &CapacityRequestPolicyRange,
    default: Amount,
    whole: Amount,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let min = amount(&range.min);
    let mut refuse = |field: &str, value: Amount, why: String| errors.invalid(&at.child(field), value.to_string(), why);
    if min > whole {
        refuse("min", min, format!("min is larger than capacity value: {whole}"));
    }
    if default < min {
        refuse("default", default, format!("default is less than min: {min}"));
    }
    let max = range.max.as_ref().map(amount);
    if let Some(max) = max {
        if min > max {
            refuse("max", min, format!("min is larger than max: {max}"));
        }
        if max > whole {
            refuse("max", max, format!("max is larger than capacity value: {whole}"));
        }
        if default > max {
            refuse("default", default, format!("default is more than max: {max}"));
        }
    }
    let Some(step) = range.step.as_ref().map(amount) else { return };
    if step <= Amount::ZERO {
        return refuse("step", step, "must be greater than zero".to_owned());
    }
    if min + step > whole {
        refuse("step", step, format!("one step {} is larger than capacity value: {whole}", min + step));
    }
    for value in [Some(default), max].into_iter().flatten() {
        if (value - min).nano() % step.nano() != 0 {
            refuse("step", value, format!("value is not a multiple of a given step ({step}) from ({min})"));
        }
    }
}

fn validate_taint(taint: &DeviceTaint, at: &Path<'_>, errors: &mut Errors) {
    errors.invalid_each(&at.child("key"), &taint.key, qualified_name(&taint.key));
    let value = text(&taint.value);
    errors.invalid_each(&at.child("value"), value, label_value(value));
    validate_taint_effect(&taint.effect, &at.child("effect"), errors);
}

fn validate_consumption(consumption: &DeviceCounterConsumption, at: &Path<'_>, errors: &mut Errors) {
    validate_counter_name(&consumption.counter_set, &at.child("counterSet"), errors);
    validate_counters(&consumption.counters, &at.child("counters"), errors);
}

/// The name of a set of counters.
pub(super) fn validate_counter_name(name: &str, at: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(at, "");
    } else {
        errors.invalid_each(at, name, dns1123_label(name));
    }
}

/// Counters by name: some, and not too many.
pub(super) fn validate_counters(counters: &BTreeMap<String, Counter>, at: &Path<'_>, errors: &mut Errors) {
    if counters.is_empty() {
        return errors.required(at, "");
    }
    if counters.len() > MAX_COUNTERS {
        return errors.too_many(at, counters.len(), MAX_COUNTERS);
    }
    for name in counters.keys() {
        errors.invalid_each(at, name, dns1123_label(name));
    }
}

/// Where a device is, if that is for it to say.
fn validate_place(device: &Device, place: Place, at: &Path<'_>, errors: &mut Errors) {
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if place == Place::OfSlice {
        if device.node_name.is_some() || device.node_selector.is_some() || device.all_nodes.is_some() {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.invalid(at, serde_json::Value::Null, why);
        }
        return;
    }
    let mut set = Vec::new();
    match device.node_name.as_deref() {
        None => {}
        Some("") => errors.invalid(&at.child("nodeName"), "", "must not be empty"),
        Some(name) => {
            set.push("`nodeName`");
            errors.invalid_each(&at.child("nodeName"), name, dns1123_subdomain(name));
        }
    }
    if let Some(selector) = &device.node_selector {
        set.push("`nodeSelector`");
        validate_node_selector(selector, &at.child("nodeSelector"), errors);
    }
    match device.all_nodes {
        None => {}
        Some(true) => set.push("`allNodes`"),
        Some(false) => errors.invalid(&at.child("allNodes"), false, "must be either unset or set to true"),
    }
    match set.len() {
        0 => errors.required(at, ONE),
        1 => {}
        _ => errors.invalid(at, format!("{{{}}}", set.join(", ")), ONE),
    }
}

/// How much of a node's own resources comes with the device.
fn validate_mapping(
    name: &str,
    mapping: &NodeAllocatableResourceMapping,
    device: &Device,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !name.starts_with("hugepages-") {
        errors.invalid(at, name, "must be a node allocatable resource name");
    }
    if let Some(key) = &mapping.capacity_key {
        let at = at.child("capacityKey");
        if key.is_empty() {
            errors.invalid(&at, "", "capacityKey must not be an empty string");
        } else if device.capacity.as_ref().is_none_or(|c| !c.contains_key(key)) {
            errors.not_found(&at, key);
        }
    }
    if let Some(multiplier) = mapping.allocation_multiplier.as_ref().filter(|m| amount(m) <= Amount::ZERO) {
        errors.invalid(&at.child("allocationMultiplier"), &multiplier.0, "must be positive");
    }
}
