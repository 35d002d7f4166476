//! A Service's own addresses: `clusterIP` and `clusterIPs` are one thing under two names, the families follow, and the
//! first of each never changes (`ValidateServiceClusterIPsRelatedFields`, the strategy's `normalizeClusterIPs` and
//! `patchAllocatedValues`). Nothing is given out here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{is_headless, kind, needs_health_check};
use crate::kinds::fields::{list, text};
use crate::validation::{Errors, Path, json, one_per_family, validate_ip};

const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

/// Makes the two forms say the same: a client mostly writes one.
pub(super) fn normalise(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        // The lone form wins; the list alone is an error that validation names.
        if spec.cluster_ips.is_none() {
            spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
        }
        return;
    };
    let (had, has) = (text(&old.cluster_ip).to_owned(), text(&spec.cluster_ip).to_owned());
    let same_list = spec.cluster_ips == old.cluster_ips;
    if !had.is_empty() && has.is_empty() && same_list {
        spec.cluster_ips = None;
    } else if had != has && same_list && !has.is_empty() {
        spec.cluster_ips = Some(vec![has]);
    }
}

/// What the server gave out stays where the client left it out of an update, unless the change of type ends it.
pub(super) fn carry_over(spec: &mut ServiceSpec, old: &ServiceSpec) {
    normalise(spec, Some(old));
    let (was, is) = (kind(old).to_owned(), kind(spec).to_owned());
    if was != "ExternalName" && is != "ExternalName" {
        if spec.cluster_ip.is_none() && spec.cluster_ips.is_none() {
            spec.cluster_ip.clone_from(&old.cluster_ip);
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
        if spec.ip_families.is_none() {
            spec.ip_families.clone_from(&old.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    let has_node_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if has_node_ports(&was) && has_node_ports(&is) {
        let before = list(&old.ports);
        for port in spec.ports.iter_mut().flatten().filter(|p| p.node_port.is_none()) {
            let same = before.iter().find(|o| o.port == port.port && o.protocol == port.protocol);
            port.node_port = same.and_then(|o| o.node_port);
        }
    } else if has_node_ports(&was) && node_ports(spec) == node_ports(old) {
        // The client changed the type and left the node ports as they were.
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
    }
    if needs_health_check(old) && needs_health_check(spec) && spec.health_check_node_port.is_none() {
        spec.health_check_node_port = old.health_check_node_port;
    } else if needs_health_check(old)
        && !needs_health_check(spec)
        && spec.health_check_node_port == old.health_check_node_port
    {
        spec.health_check_node_port = None;
    }
    drop_type_dependent(spec, old, &was, &is);
}

fn node_ports(spec: &ServiceSpec) -> BTreeSet<i32> {
    list(&spec.ports).iter().filter_map(|p| p.node_port).collect()
}

/// A change of type takes with it what only the old type had, as long as the client did not touch it.
fn drop_type_dependent(spec: &mut ServiceSpec, old: &ServiceSpec, was: &str, is: &str) {
    if was != "ExternalName" && is == "ExternalName" {
        if spec.cluster_ip == old.cluster_ip {
            spec.cluster_ip = None;
        }
        if spec.cluster_ips == old.cluster_ips {
            spec.cluster_ips = None;
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == old.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    if was == "LoadBalancer" && is != "LoadBalancer" {
        if spec.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == old.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
    if super::is_external(old)
        && !super::is_external(spec)
        && spec.external_traffic_policy == old.external_traffic_policy
    {
        spec.external_traffic_policy = None;
    }
}

pub(super) fn validate(spec: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    if kind(spec) == "ExternalName" {
        return;
    }
    let ips = list(&spec.cluster_ips);
    let ips_at = at.child("clusterIPs");
    match (text(&spec.cluster_ip), ips.first()) {
        ("", Some(_)) => errors.invalid(&ips_at, json(&ips), "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&ips_at, ""),
        (ip, Some(first)) if ip != first => errors.invalid(&ips_at, json(&ips), "first value must match `clusterIP`"),
        _ => {}
    }
    let families = list(&spec.ip_families);
    for (i, family) in families.iter().enumerate() {
        let families_at = at.child("ipFamilies");
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            errors.not_supported(&families_at.index(i), family, &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            errors.duplicate(&families_at.index(i), family);
        }
    }
    if let Some(policy) = spec.ip_family_policy.as_deref().filter(|p| !POLICIES.contains(p)) {
        errors.not_supported(&at.child("ipFamilyPolicy"), policy, &POLICIES);
    }
    let Some(parsed) = parse(ips, &ips_at, errors) else { return };
    if parsed.len() > 1 && !one_per_family(&parsed) {
        errors.invalid(&ips_at, json(&ips), "may specify no more than one IP for each IP family");
    }
    for (i, (ip, family)) in parsed.iter().zip(families).enumerate() {
        let expected = if family == "IPv4" { ip.is_ipv4() } else { ip.is_ipv6() };
        if !expected {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&ips_at.index(i), &ips[i], detail);
        }
    }
}

/// The addresses; `None` if one is none, so that nothing more need be said of them.
fn parse(ips: &[String], at: &Path<'_>, errors: &mut Errors) -> Option<Vec<IpAddr>> {
    if matches!(ips, [only] if only == "None") {
        return Some(Vec::new());
    }
    let mut parsed = Vec::with_capacity(ips.len());
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == "None" {
            errors.invalid(at, json(&ips), "'None' must be the first and only value");
        } else {
            parsed.extend(validate_ip(ip, &at.index(i), errors));
        }
    }
    if ips.len() > 2 {
        errors.invalid(at, json(&ips), "may only hold up to 2 values");
    }
    (parsed.len() == ips.len()).then_some(parsed)
}

pub(super) fn validate_update(spec: &ServiceSpec, old: &ServiceSpec, at: &Path<'_>, errors: &mut Errors) {
    if kind(spec) == "ExternalName" || kind(old) == "ExternalName" {
        return;
    }
    let (headless, was_headless) = (is_headless(spec), is_headless(old));
    if !(headless && was_headless) {
        validate_change("clusterIPs", "clusterIP", list(&spec.cluster_ips), list(&old.cluster_ips), spec, at, errors);
    }
    if !headless && !was_headless {
        validate_change("ipFamilies", "ipFamily", list(&spec.ip_families), list(&old.ip_families), spec, at, errors);
    }
}

/// A second value may come and go, the first stays.
fn validate_change(
    field: &str,
    one: &str,
    new: &[String],
    old: &[String],
    spec: &ServiceSpec,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    const ONCE: &str = "may not change once set";
    let list_at = at.child(field);
    if new.len() == old.len() {
        for (i, _) in old.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
            errors.invalid(&list_at.index(i), json(&new), ONCE);
        }
        return;
    }
    if old.len() > new.len() && new.is_empty() {
        errors.invalid(&list_at.index(0), json(&new), format!("primary {one} can not be unset"));
    }
    if let (Some(new_first), Some(old_first)) = (new.first(), old.first())
        && new_first != old_first
    {
        errors.invalid(&list_at.index(0), json(&new), ONCE);
    }
    if old.len() > new.len() && new.len() == 1 && text(&spec.ip_family_policy) != "SingleStack" {
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {one}");
        errors.invalid(&at.child("ipFamilyPolicy"), json(&spec.ip_family_policy), detail);
    }
}
