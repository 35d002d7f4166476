//! The objects every cluster has. Each is made if it is missing; one that exists is left as it is, so a restart writes
//! nothing. Only where the API is reached is kept true: a machine's address changes.

use std::net::SocketAddr;

use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::ServerConfig;
use crate::certificates::own_address;

/// Makes what is missing, and mends what says that the API is elsewhere.
pub(crate) async fn reconcile(client: &Client, config: &ServerConfig, api: SocketAddr) -> Result<(), String> {
    for object in objects(config) {
        ensure(client, object).await?;
    }
    for object in kubernetes_service(config, api) {
        let Some(there) = ensure(client, object.clone()).await? else { continue };
        if !is_within(&changeable(&object), &there) {
            replace(client, &object, &there).await?;
        }
    }
    Ok(())
}

/// The API's way to the objects of a kind, and an object's name.
fn place(client: &Client, object: &Value) -> Result<(Api<DynamicObject>, String), String> {
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
    let objects = if row.namespaced() {
        Api::namespaced_with(client.clone(), &text("/metadata/namespace"), &resource)
    } else {
        Api::all_with(client.clone(), &resource)
    };
    Ok((objects, text("/metadata/name")))
}

/// Makes an object if it is missing; else what is there.
async fn ensure(client: &Client, object: Value) -> Result<Option<Value>, String> {
    let (objects, name) = place(client, &object)?;
    if let Some(there) = objects.get_opt(&name).await.map_err(|e| e.to_string())? {
        return serde_json::to_value(there).map(Some).map_err(|e| e.to_string());
    }
    let object: DynamicObject = serde_json::from_value(object).map_err(|e| e.to_string())?;
    match objects.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

async fn replace(client: &Client, object: &Value, there: &Value) -> Result<(), String> {
    let (objects, name) = place(client, object)?;
    let failed = |e: kube::Error| format!("{name}: {e}");
    // The sort of a slice's addresses cannot change.
    if object["addressType"] != there["addressType"] {
        objects.delete(&name, &DeleteParams::default()).await.map_err(failed)?;
        return ensure(client, object.clone()).await.map(drop);
    }
    let patch = Patch::Merge(changeable(object));
    objects.patch(&name, &PatchParams::default(), &patch).await.map(drop).map_err(failed)
}

/// What of an object says where the API is.
fn changeable(object: &Value) -> Value {
    match object["kind"].as_str() {
        Some("Service") => json!({"spec": {"ports": object["spec"]["ports"]}}),
        Some("Endpoints") => json!({"subsets": object["subsets"]}),
        _ => json!({"addressType": object["addressType"], "endpoints": object["endpoints"], "ports": object["ports"]}),
    }
}

/// Whether all that is wanted is there, among whatever else.
fn is_within(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => {
            wanted.iter().all(|(key, wanted)| there.get(key).is_some_and(|there| is_within(wanted, there)))
        }
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| is_within(wanted, there))
        }
        _ => wanted == there,
    }
}

fn objects(config: &ServerConfig) -> Vec<Value> {
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
    // As metrics-server brings it: who may look at pods may see what they use.
    out.push(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "system:aggregated-metrics-reader", "labels": {
            "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            "rbac.authorization.k8s.io/aggregate-to-edit": "true",
            "rbac.authorization.k8s.io/aggregate-to-view": "true",
        }},
        "rules": [{
            "apiGroups": ["metrics.k8s.io"], "resources": ["nodes", "pods"], "verbs": ["get", "list", "watch"],
        }],
    }));
    out.push(json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "wasm"}, "handler": "wasm",
    }));
    out.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": [config.service_range.to_string()]},
    }));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;

    async fn get(client: &Client, object: &Value) -> Value {
        let (objects, name) = place(client, object).unwrap();
        serde_json::to_value(objects.get(&name).await.unwrap()).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_api_is_where_its_objects_say() {
        let root = tempfile::tempdir().unwrap();
        let mut config = ServerConfig::new(root.path().join("data"));
        (config.bind, config.port) = ([127, 0, 0, 1].into(), 0);
        let server = Server::start(config.clone()).await.unwrap();
        let client = server.client();
        // The machine gets an address, then another.
        for address in ["192.0.2.7:6443", "192.0.2.8:7443"] {
            let api: SocketAddr = address.parse().unwrap();
            reconcile(&client, &config, api).await.unwrap();
            let [service, endpoints, slice] = kubernetes_service(&config, api).try_into().unwrap();
            assert_eq!(get(&client, &service).await["spec"]["ports"][0]["targetPort"], api.port());
            let endpoints = get(&client, &endpoints).await;
            assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], api.ip().to_string());
            assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], api.port());
            let slice = get(&client, &slice).await;
            assert_eq!(slice["endpoints"][0]["addresses"][0], api.ip().to_string());
            // Nothing to mend, nothing written.
            reconcile(&client, &config, api).await.unwrap();
            assert_eq!(get(&client, &endpoints).await["metadata"], endpoints["metadata"]);
            assert_eq!(get(&client, &slice).await["metadata"], slice["metadata"]);
        }
        // An address of the other sort needs another slice.
        let api: SocketAddr = "[2001:db8::7]:6443".parse().unwrap();
        reconcile(&client, &config, api).await.unwrap();
        let [service, _, slice] = kubernetes_service(&config, api).try_into().unwrap();
        assert_eq!(get(&client, &slice).await["addressType"], "IPv6");
        // What somebody deletes comes back, at the address pods know.
        let (services, name) = place(&client, &service).unwrap();
        services.delete(&name, &DeleteParams::default()).await.unwrap();
        reconcile(&client, &config, api).await.unwrap();
        assert_eq!(get(&client, &service).await["spec"]["clusterIP"], "10.43.0.1");
        server.stop().await.unwrap();
    }
}
