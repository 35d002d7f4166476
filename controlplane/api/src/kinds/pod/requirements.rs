//! The rules for requests and limits, of a container or of a pod as a whole (`validateResourceRequirements`).

use k8s_openapi::api::core::v1::ResourceRequirements;

use super::resources::{is_native, is_overcommit_allowed, is_pod_level};
use super::spec::Context;
use crate::kinds::fields::{ResourceList, list, text};
use crate::quantity::Amount;
use crate::validation::{Errors, Path, qualified_name};

/// Whose resources they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Container,
    Pod,
}

/// Requests and limits: known names, good amounts, no request above its limit.
pub(super) fn validate_resources(
    context: &Context<'_>,
    resources: &ResourceRequirements,
    level: Level,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let (limits_at, requests_at) = (at.child("limits"), at.child("requests"));
    let limits = resources.limits.as_ref();
    let (mut compute, mut huge) = (false, false);
    for (of, list_at) in [(limits, &limits_at), (resources.requests.as_ref(), &requests_at)] {
        for (name, quantity) in of.into_iter().flatten() {
            validate_resource_name(name, level, &list_at.key(name), errors);
            validate_amount(name, &quantity.0, &list_at.key(name), errors);
            compute |= matches!(name.as_str(), "cpu" | "memory");
            huge |= name.starts_with("hugepages-");
            if std::ptr::eq(list_at, &requests_at) {
                validate_against_limit(name, &quantity.0, limits, at, errors);
            }
        }
    }
    if huge && !compute {
        errors.forbidden(at, "HugePages require cpu or memory");
    }
    let claims = list(&resources.claims);
    for (i, claim) in claims.iter().enumerate() {
        let claims_at = at.child("claims");
        let at = claims_at.index(i);
        let known = list(&context.spec.resource_claims);
        if claim.name.is_empty() {
            errors.required(&at, "");
            continue;
        }
        if claims[..i]
            .iter()
            .any(|c| c.name == claim.name && (c.request == claim.request || text(&c.request).is_empty()))
        {
            errors.duplicate(&at, &claim.name);
        }
        if !known.iter().any(|c| c.name == claim.name) {
            errors.not_found(&at, &claim.name);
        }
    }
}

fn validate_against_limit(
    name: &str,
    request: &str,
    limits: Option<&ResourceList>,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    let limit = limits.and_then(|l| l.get(name));
    let Some(limit) = limit else {
        if !is_overcommit_allowed(name) {
            errors.required(&at.child("limits"), "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let (Ok(asked), Ok(most)) = (Amount::parse(request), Amount::of(limit)) else { return };
    if asked != most && !is_overcommit_allowed(name) {
        errors.invalid(&at.child("requests"), request, format!("must be equal to {name} limit of {}", limit.0));
    } else if asked > most {
        let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
        errors.invalid(&at.child("requests"), request, detail);
    }
}

fn validate_resource_name(name: &str, level: Level, at: &Path<'_>, errors: &mut Errors) {
    let broken = qualified_name(name);
    if !broken.is_empty() {
        errors.invalid_each(at, name, broken);
        return;
    }
    let huge = name.starts_with("hugepages-");
    if !name.contains('/') {
        const STANDARD: [&str; 21] = [
            "cpu",
            "memory",
            "ephemeral-storage",
            "requests.cpu",
            "requests.memory",
            "requests.ephemeral-storage",
            "limits.cpu",
            "limits.memory",
            "limits.ephemeral-storage",
            "pods",
            "resourcequotas",
            "services",
            "replicationcontrollers",
            "secrets",
            "configmaps",
            "persistentvolumeclaims",
            "storage",
            "requests.storage",
            "services.nodeports",
            "services.loadbalancers",
            "storage",
        ];
        if !huge && !STANDARD.contains(&name) {
            errors.invalid(at, name, "must be a standard resource type or fully qualified");
        }
        if level == Level::Container && !huge && !matches!(name, "cpu" | "memory" | "ephemeral-storage") {
            errors.invalid(at, name, "must be a standard resource for containers");
        }
    } else if level == Level::Container && !is_native(name) {
        // An extended resource's quota is `requests.<name>`, so that must be a good name as well.
        if name.starts_with("requests.") || !qualified_name(&format!("requests.{name}")).is_empty() {
            errors.invalid(at, name, "doesn't follow extended resource name standard");
        }
    }
    if level == Level::Pod && !is_pod_level(name) {
        errors.not_supported(at, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// An amount of a resource: not negative, and whole where the resource has no parts (`ValidateResourceQuantityValue`).
pub(crate) fn validate_amount(name: &str, quantity: &str, at: &Path<'_>, errors: &mut Errors) {
    let amount = match Amount::parse(quantity) {
        Ok(amount) => amount,
        Err(e) => return errors.invalid(at, quantity, e.to_string()),
    };
    if amount.is_negative() {
        errors.invalid(at, quantity, "must be greater than or equal to 0");
    }
    const COUNTED: [&str; 9] = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    let integer = COUNTED.contains(&name) || (!is_native(name) && name.contains('/'));
    if integer && amount.milli() % 1000 != 0 {
        errors.invalid(at, quantity, "must be an integer");
    }
    if let Some(page) = name.strip_prefix("hugepages-").and_then(|p| Amount::parse(p).ok())
        && (page.value() == 0 || amount.value() % page.value() != 0 || amount.value() < 0)
    {
        errors.invalid(at, quantity, format!("{quantity} is not positive integer multiple of {name}"));
    }
}
