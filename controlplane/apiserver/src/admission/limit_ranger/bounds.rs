//! The bounds of a LimitRange, in Kubernetes' words. Pure.
//!
//! What an update leaves as it was is not looked at again: it was admitted when it came.

use std::collections::BTreeMap;

use coracle_api::Object;
use coracle_api::quantity::Amount;
use coracle_api::quota::{Amounts, PodTotals, amounts, declared_totals};
use k8s_openapi::api::core::v1::{Container, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

type List = Option<BTreeMap<String, Quantity>>;

/// What is wrong with an object by the items of a LimitRange.
pub(super) fn faults(object: &dyn Object, old: Option<&dyn Object>, items: &[LimitRangeItem]) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(pod) = object.as_any().downcast_ref::<Pod>() {
        let old = old.and_then(|o| o.as_any().downcast_ref::<Pod>());
        items.iter().for_each(|item| of_pod(pod, old, item, &mut faults));
    } else if let Some(claim) = object.as_any().downcast_ref::<PersistentVolumeClaim>() {
        let old = old.and_then(|o| o.as_any().downcast_ref::<PersistentVolumeClaim>());
        items.iter().for_each(|item| of_claim(claim, old, item, &mut faults));
    }
    faults
}

fn of_pod(pod: &Pod, old: Option<&Pod>, item: &LimitRangeItem, faults: &mut Vec<String>) {
    let Some(spec) = &pod.spec else { return };
    let old = old.and_then(|old| old.spec.as_ref());
    match item.type_.as_str() {
        "Container" => {
            let init = spec.init_containers.iter().flatten();
            for container in spec.containers.iter().chain(init) {
                let before = old.and_then(|old| {
                    let mut all = old.containers.iter().chain(old.init_containers.iter().flatten());
                    all.find(|c| c.name == container.name).map(of_container)
                });
                check(item, &of_container(container), before.as_ref(), faults);
            }
        }
        "Pod" => check(item, &declared_totals(spec), old.map(declared_totals).as_ref(), faults),
        _ => {}
    }
}

fn of_container(container: &Container) -> PodTotals {
    let resources = container.resources.as_ref();
    let read = |list: Option<&BTreeMap<String, Quantity>>| amounts(list.into_iter().flatten());
    PodTotals {
        requests: read(resources.and_then(|r| r.requests.as_ref())),
        limits: read(resources.and_then(|r| r.limits.as_ref())),
    }
}

fn of_claim(
    claim: &PersistentVolumeClaim,
    old: Option<&PersistentVolumeClaim>,
    item: &LimitRangeItem,
    faults: &mut Vec<String>,
) {
    if item.type_ != "PersistentVolumeClaim" {
        return;
    }
    let requests = |claim: &PersistentVolumeClaim| {
        let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
        amounts(resources.and_then(|r| r.requests.as_ref()).into_iter().flatten())
    };
    // Limits of claims are nobody's: only what is requested is bounded.
    let have = PodTotals { requests: requests(claim), limits: Amounts::new() };
    let before = old.map(|old| PodTotals { requests: requests(old), limits: Amounts::new() });
    let kind = item.type_.as_str();
    for (name, bound) in changed(&item.min, &have, before.as_ref()) {
        faults.extend(below_min(kind, name, bound, &have));
    }
    for (name, bound) in changed(&item.max, &have, before.as_ref()) {
        let fault = format!("maximum {name} usage per {kind} is {bound}");
        faults.extend(match have.requests.get(name) {
            None => Some(format!("{fault}.  No request is specified")),
            Some(request) if *request > bound => Some(format!("{fault}, but request is {request}")),
            Some(_) => None,
        });
    }
}

/// The bounds on what is new in `have`.
fn changed<'a>(
    bounds: &'a List,
    have: &'a PodTotals,
    before: Option<&'a PodTotals>,
) -> impl Iterator<Item = (&'a str, Amount)> {
    let is_new = move |name: &str| {
        before.is_none_or(|b| {
            b.requests.get(name) != have.requests.get(name) || b.limits.get(name) != have.limits.get(name)
        })
    };
    let bounds = bounds.iter().flatten().filter(move |(name, _)| is_new(name));
    bounds.map(|(name, quantity)| (name.as_str(), Amount::of(quantity).unwrap_or_default()))
}

fn check(item: &LimitRangeItem, have: &PodTotals, before: Option<&PodTotals>, faults: &mut Vec<String>) {
    let kind = item.type_.as_str();
    for (name, bound) in changed(&item.min, have, before) {
        faults.extend(below_min(kind, name, bound, have));
    }
    for (name, bound) in changed(&item.max, have, before) {
        faults.extend(above_max(kind, name, bound, have));
    }
    for (name, bound) in changed(&item.max_limit_request_ratio, have, before) {
        faults.extend(above_ratio(kind, name, bound, have));
    }
}

fn below_min(kind: &str, name: &str, bound: Amount, have: &PodTotals) -> Option<String> {
    let fault = format!("minimum {name} usage per {kind} is {bound}");
    match (have.requests.get(name), have.limits.get(name)) {
        (None, _) => Some(format!("{fault}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{fault}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{fault}, but limit is {limit}")),
        _ => None,
    }
}

fn above_max(kind: &str, name: &str, bound: Amount, have: &PodTotals) -> Option<String> {
    let fault = format!("maximum {name} usage per {kind} is {bound}");
    match (have.limits.get(name), have.requests.get(name)) {
        (None, _) => Some(format!("{fault}.  No limit is specified")),
        (Some(limit), _) if *limit > bound => Some(format!("{fault}, but limit is {limit}")),
        (_, Some(request)) if *request > bound => Some(format!("{fault}, but request is {request}")),
        _ => None,
    }
}

fn above_ratio(kind: &str, name: &str, bound: Amount, have: &PodTotals) -> Option<String> {
    let fault = format!("{name} max limit to request ratio per {kind} is {bound}");
    let given = |list: &Amounts| list.get(name).copied().filter(|amount| !amount.is_zero());
    let Some(request) = given(&have.requests) else {
        return Some(format!("{fault}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(&have.limits) else {
        return Some(format!("{fault}, but no limit is specified or limit is 0"));
    };
    // Thousandths of a ratio are exact enough: bounds of ratios are checked to that.
    #[expect(clippy::cast_precision_loss, reason = "a ratio that is shown with six digits")]
    let (ratio, bound) = (limit.nano() as f64 / request.nano() as f64, bound.nano() as f64 / 1e9);
    (ratio > bound).then(|| format!("{fault}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn pod(resources: Value) -> Pod {
        from(json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": resources}]}}))
    }

    fn check(item: Value, resources: Value, old: Option<Value>, expected: &[&str]) {
        let old = old.map(pod);
        let old = old.as_ref().map(|o| o as &dyn Object);
        assert_eq!(faults(&pod(resources), old, &[from(item)]), expected);
    }

    #[test]
    fn containers_are_bounded() {
        let item = || {
            json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "800m", "memory": "1Gi"},
                "maxLimitRequestRatio": {"cpu": "2"}})
        };
        let fits = json!({"requests": {"cpu": "400m"}, "limits": {"cpu": "800m", "memory": "1Gi"}});
        check(item(), fits, None, &[]);
        let much = || json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "1500m", "memory": "2Gi"}});
        let wrong = [
            "minimum cpu usage per Container is 100m, but request is 50m",
            "maximum cpu usage per Container is 800m, but limit is 1500m",
            "maximum memory usage per Container is 1Gi, but limit is 2Gi",
            "cpu max limit to request ratio per Container is 2, but provided ratio is 30.000000",
        ];
        check(item(), much(), None, &wrong);
        // What was there before stays; what is changed must fit.
        check(item(), much(), Some(much()), &[]);
        let before = json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "1500m", "memory": "1Gi"}});
        check(item(), much(), Some(before), &[wrong[2]]);
        let none = [
            "minimum cpu usage per Container is 100m.  No request is specified",
            "maximum cpu usage per Container is 800m.  No limit is specified",
            "maximum memory usage per Container is 1Gi.  No limit is specified",
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ];
        check(item(), json!({}), None, &none);
    }

    #[test]
    fn pods_and_claims_are_bounded() {
        let item = json!({"type": "Pod", "max": {"cpu": "1"}});
        check(item, json!({"limits": {"cpu": "2"}}), None, &["maximum cpu usage per Pod is 1, but limit is 2"]);
        let claim: PersistentVolumeClaim =
            from(json!({"metadata": {}, "spec": {"resources": {"requests": {"storage": "5Gi"}}}}));
        let item =
            || from(json!({"type": "PersistentVolumeClaim", "min": {"storage": "6Gi"}, "max": {"storage": "2Gi"}}));
        assert_eq!(
            faults(&claim, None, &[item()]),
            [
                "minimum storage usage per PersistentVolumeClaim is 6Gi, but request is 5Gi",
                "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 5Gi",
            ]
        );
        assert_eq!(faults(&claim, Some(&claim), &[item()]), Vec::<String>::new());
    }
}
