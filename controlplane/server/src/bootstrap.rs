//! The objects every cluster begins with. Each is made if it is missing; one that exists is left as it is, so a restart
//! writes nothing.

use std::net::SocketAddr;

use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::ServerConfig;
use crate::files::own_address;

/// Makes what is missing.
pub(crate) async fn first_objects(client: &Client, config: &ServerConfig, api: SocketAddr) -> Result<(), String> {
    for object in objects(config, api) {
        ensure(client, object).await?;
    }
    Ok(())
}

async fn ensure(client: &Client, object: Value) -> Result<(), String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let row = coracle_api::kinds::find_by_kind(&api_version, &kind).ok_or_else(|| format!("{kind} is no kind"))?;
    let resource = ApiResource {
        group: row.group.to_owned(),
        version: row.version.to_owned(),
        api_version,
        kind,
        plural: row.info.plural.to_owned(),
    };
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let objects: Api<DynamicObject> = if row.namespaced() {
        Api::namespaced_with(client.clone(), &namespace, &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    if objects.get_opt(&name).await.map_err(|e| e.to_string())?.is_some() {
        return Ok(());
    }
    let object: DynamicObject = serde_json::from_value(object).map_err(|e| e.to_string())?;
    match objects.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

fn objects(config: &ServerConfig, api: SocketAddr) -> Vec<Value> {
    let mut out: Vec<Value> = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
        .into();
    for (name, value, what) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        out.push(json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": what,
        }));
    }
    out.push(json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "wasm"}, "handler": "wasm",
    }));
    out.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [config.service_range.to_string()]},
    }));
    out.extend(kubernetes_service(config, api));
    out
}

/// The API as a Service, at the first address of the range: what a pod's `KUBERNETES_SERVICE_HOST` names.
fn kubernetes_service(config: &ServerConfig, api: SocketAddr) -> Vec<Value> {
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let ip = config.service_range.hosts().next().map(|ip| ip.to_string()).unwrap_or_default();
    let address = if api.ip().is_unspecified() { own_address().unwrap_or(api.ip()) } else { api.ip() };
    let mut out = vec![json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "sessionAffinity": "None",
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": api.port()}],
        },
    })];
    // Endpoints may not be loopback addresses; a server bound to one is reached from this machine only.
    if address.is_loopback() || address.is_unspecified() {
        return out;
    }
    out.push(json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": api.port(), "protocol": "TCP"}]}],
    }));
    out.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": api.port(), "protocol": "TCP"}],
    }));
    out
}
