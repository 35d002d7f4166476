//! LimitRange: bounds and defaults of resources in a namespace.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};

use super::fields::{ResourceList, canonical_resources};
use crate::kind::{Info, Resource};
use crate::quantity::Amount;
use crate::validation::{Errors, Path, qualified_name};

impl Resource for LimitRange {
    const INFO: Info =
        Info { short_names: &["limits"], create_on_update: true, ..Info::namespaced("limitranges", "limitrange") };

    fn apply_defaults(&mut self) {
        for item in self.spec.iter_mut().flat_map(|s| &mut s.limits) {
            for amounts in [&mut item.max, &mut item.min, &mut item.default, &mut item.default_request] {
                canonical_resources(amounts.as_mut());
            }
            canonical_resources(item.max_limit_request_ratio.as_mut());
            if item.type_ == "Container" {
                default_container(item);
            }
        }
    }

    fn validate(&self, errors: &mut Errors) {
        let mut types = BTreeSet::new();
        for (i, item) in self.spec.iter().flat_map(|s| &s.limits).enumerate() {
            let at = Path::new("spec");
            let at = at.child("limits");
            let at = at.index(i);
            validate_item(item, &at, errors);
            if !types.insert(&item.type_) {
                errors.duplicate(&at.child("type"), &item.type_);
            }
        }
    }
}

/// Fills a container's defaults from its bounds: the limit from the most, the request from the limit, then from the least.
fn default_container(item: &mut LimitRangeItem) {
    let max = item.max.clone().unwrap_or_default();
    let min = item.min.clone().unwrap_or_default();
    let default = item.default.get_or_insert_default();
    for (name, amount) in max {
        default.entry(name).or_insert(amount);
    }
    let request = item.default_request.get_or_insert_default();
    for (name, amount) in default.clone().into_iter().chain(min) {
        request.entry(name).or_insert(amount);
    }
}

type Amounts = BTreeMap<String, Amount>;

fn amounts(field: &str, values: &Option<ResourceList>, at: &Path<'_>, errors: &mut Errors) -> Amounts {
    let mut out = Amounts::new();
    for (name, quantity) in values.iter().flatten() {
        let list = at.child(field);
        let at = list.key(name);
        errors.invalid_each(&at, name, qualified_name(name));
        match Amount::of(quantity) {
            Ok(amount) => drop(out.insert(name.clone(), amount)),
            Err(e) => errors.invalid(&at, &quantity.0, e.to_string()),
        }
    }
    out
}

fn validate_item(item: &LimitRangeItem, at: &Path<'_>, errors: &mut Errors) {
    let kind = item.type_.as_str();
    let standard = matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim");
    if !standard {
        errors.invalid_each(&at.child("type"), kind, qualified_name(kind));
        if !kind.contains('/') {
            errors.invalid(&at.child("type"), kind, "must be a standard limit type or fully qualified");
        }
    }
    let max = amounts("max", &item.max, at, errors);
    let min = amounts("min", &item.min, at, errors);
    let (mut default, mut request) = (Amounts::new(), Amounts::new());
    if kind == "Pod" {
        for (field, values) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if values.as_ref().is_some_and(|v| !v.is_empty()) {
                errors.forbidden(&at.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
    } else {
        default = amounts("default", &item.default, at, errors);
        request = amounts("defaultRequest", &item.default_request, at, errors);
    }
    if kind == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&at.child("limits"), why);
    }
    let pairs: [(&str, &Amounts, &str, &Amounts, &str); 6] = [
        ("min", &min, "min value", &max, "max value"),
        ("defaultRequest", &min, "min value", &request, "default request value"),
        ("defaultRequest", &request, "default request value", &max, "max value"),
        ("defaultRequest", &request, "default request value", &default, "default limit value"),
        ("default", &min, "min value", &default, "default value"),
        ("default", &default, "default value", &max, "max value"),
    ];
    for (field, low, low_name, high, high_name) in pairs {
        for (name, low) in low {
            let Some(high) = high.get(name).filter(|high| low > high) else { continue };
            let list = at.child(field);
            // The value printed is that of the field the error is at.
            let shown = if field == "min"
                || low_name.starts_with(if field == "default" { "default value" } else { "default request" })
            {
                low
            } else {
                high
            };
            let why = format!("{low_name} {low} is greater than {high_name} {high}");
            errors.invalid(&list.key(name), shown.to_string(), why);
        }
    }
    let ratios = amounts("maxLimitRequestRatio", &item.max_limit_request_ratio, at, errors);
    for (name, ratio) in ratios.iter().filter(|(_, ratio)| **ratio < Amount::from_value(1)) {
        let list = at.child("maxLimitRequestRatio");
        errors.invalid(&list.key(name), ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{expect, faults, row};

    #[test]
    fn a_containers_defaults_follow_its_bounds() {
        let one = |name: &str, amount: &str| Some([(name.to_owned(), Quantity(amount.to_owned()))].into());
        let mut item = LimitRangeItem {
            type_: "Container".to_owned(),
            max: one("cpu", "1"),
            min: one("memory", "1Gi"),
            ..Default::default()
        };
        default_container(&mut item);
        assert_eq!(item.default, one("cpu", "1"));
        let request = item.default_request.clone().unwrap();
        assert_eq!((request["cpu"].0.as_str(), request["memory"].0.as_str()), ("1", "1Gi"));

        item.max = one("memory", "512Mi");
        item.default = None;
        let mut errors = Errors::new();
        validate_item(&item, &Path::new("limits"), &mut errors);
        let first = errors.iter().next().unwrap().to_string();
        assert_eq!(first, "limits.min[memory]: Invalid value: \"1Gi\": min value 1Gi is greater than max value 512Mi");
    }

    #[test]
    fn ranges() {
        let check = |limit: Value, expected: &[&str]| {
            let range = json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"limits": [limit]}});
            expect(&faults::<LimitRange>(range), expected);
        };
        check(
            json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}),
            &[],
        );
        check(
            json!({"type": "Chair"}),
            &["spec.limits[0].type: Invalid value: \"Chair\": must be a standard limit type or fully qualified"],
        );
        check(
            json!({"type": "Pod", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1"}}),
            &[
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'",
            ],
        );
        check(
            json!({"type": "PersistentVolumeClaim"}),
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        );
        check(
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}),
            &["spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1"],
        );
        let twice = json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}});
        expect(&faults::<LimitRange>(twice), &["spec.limits[1].type: Duplicate value: \"Pod\""]);
        let range = json!({"metadata": {"name": "r", "creationTimestamp": "2024-05-01T11:55:00Z"}});
        assert_eq!(row::<LimitRange>(range), "r|2024-05-01T11:55:00Z");
    }
}
