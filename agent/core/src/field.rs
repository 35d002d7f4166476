//! `fieldRef` and `resourceFieldRef`: what the downward API shows of a pod, for environment variables and for files.

use std::{collections::BTreeMap, net::IpAddr};

use coracle_api::quantity::Amount;
use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceFieldSelector},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::resources::{ResourceMap, milli, units};

/// What the pod's object does not say yet when its containers start.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// Allocatable of the node: what a missing limit reads as.
    pub allocatable: &'a ResourceMap,
}

/// The value of a `fieldPath`.
pub fn field(pod: &Pod, path: &str, around: &Surroundings<'_>) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("fieldPath {path:?} does not support subscript")),
        };
        return Ok(values.as_ref().and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => first(around.host_ips),
        "status.hostIPs" => joined(around.host_ips),
        "status.podIP" => first(around.pod_ips),
        "status.podIPs" => joined(around.pod_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// The value of a `resourceFieldRef`, rounded up to the divisor.
pub fn resource(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    around: &Surroundings<'_>,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        None => own,
        Some(name) => container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
    };
    let (kind, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let chosen = match kind {
        // A limit that is not set is what the node could give.
        "limits" => limits.filter(|map| map.contains_key(name)).or(Some(around.allocatable)),
        "requests" => requests.filter(|map| map.contains_key(name)).or(limits),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let (amount, divisor) = if name == "cpu" {
        (milli(chosen, name), divisor(selector, 1000, Amount::milli))
    } else {
        (units(chosen, name), divisor(selector, 1, Amount::value))
    };
    let amount = amount.unwrap_or(0);
    Ok((amount / divisor + i64::from(amount % divisor != 0)).to_string())
}

/// The container or init container of a name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name)
}

fn divisor(selector: &ResourceFieldSelector, unset: i64, read: fn(Amount) -> i64) -> i64 {
    let given = |quantity: &Quantity| Amount::of(quantity).ok().map(read).filter(|value| *value > 0);
    selector.divisor.as_ref().and_then(given).unwrap_or(unset)
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']").and_then(|path| path.split_once("['"))
}

/// One `key="value"` line per entry, in order, as the downward API writes maps.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let line = |(key, value): (&String, &String)| format!("{key}={}", quoted(value));
    map.into_iter().flatten().map(line).collect::<Vec<_>>().join("\n")
}

/// Go's `%q` for the characters that occur.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(IpAddr::to_string).unwrap_or_default()
}

fn joined(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_fields_and_resources() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"app": "x", "a/b": "say \"hi\""}},
            "spec": {"nodeName": "n", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}}]},
        }))
        .unwrap();
        let allocatable: ResourceMap = [("memory".to_owned(), Quantity("1Gi".into()))].into();
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let around = Surroundings { pod_ips: &ips, host_ips: &ips[..1], allocatable: &allocatable };
        for (path, expect) in [
            ("metadata.name", "p"),
            ("metadata.labels['app']", "x"),
            ("metadata.labels['none']", ""),
            ("metadata.labels", "a/b=\"say \\\"hi\\\"\"\napp=\"x\""),
            ("spec.nodeName", "n"),
            ("status.podIPs", "10.0.0.1,fd00::1"),
        ] {
            assert_eq!(field(&pod, path, &around).unwrap(), expect, "{path}");
        }
        assert!(field(&pod, "spec.hostname", &around).is_err());
        let own = &pod.spec.as_ref().unwrap().containers[0];
        for (name, divisor, expect) in [
            ("limits.cpu", "1", "2"),
            ("limits.cpu", "1m", "1500"),
            ("limits.memory", "1Mi", "1024"),
            ("requests.memory", "1Mi", "100"),
            ("requests.cpu", "1m", "1500"),
        ] {
            let selector = ResourceFieldSelector {
                container_name: None,
                divisor: Some(Quantity(divisor.into())),
                resource: name.into(),
            };
            assert_eq!(resource(&pod, own, &selector, &around).unwrap(), expect, "{name} / {divisor}");
        }
    }
}
