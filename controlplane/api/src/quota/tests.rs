use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2024-05-01T12:00:00Z".parse().unwrap()
}

fn shown(used: &Amounts) -> String {
    used.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

fn pod(resources: Value, more: Value) -> Pod {
    let mut pod = json!({
        "metadata": {},
        "spec": {"containers": [{"name": "a", "resources": resources}, {"name": "b"}]},
    });
    for (part, fields) in more.as_object().unwrap() {
        for (name, value) in fields.as_object().unwrap() {
            pod[part][name] = value.clone();
        }
    }
    from(pod)
}

#[test]
fn pods_are_charged_until_they_end() {
    let resources = json!({
        "requests": {"cpu": "500m", "memory": "1Gi", "example.com/gpu": "2"}, "limits": {"cpu": "1"},
    });
    let check = |more: Value, expected: &str| {
        let pod = pod(resources.clone(), more);
        assert_eq!(shown(&Counted::Pod(&pod).usage(now())), expected);
    };
    let whole = "count/pods=1 cpu=500m limits.cpu=1 memory=1Gi pods=1 requests.cpu=500m requests.example.com/gpu=2 \
                 requests.memory=1Gi";
    check(json!({}), whole);
    let more = "count/pods=1 cpu=750m limits.cpu=1250m memory=1Gi pods=1 requests.cpu=750m requests.example.com/gpu=2 \
                requests.memory=1Gi";
    check(json!({"spec": {"overhead": {"cpu": "250m"}}}), more);
    check(json!({"status": {"phase": "Succeeded"}}), "count/pods=1");
    let going = |at: &str| json!({"metadata": {"deletionTimestamp": at, "deletionGracePeriodSeconds": 30}});
    check(going("2024-05-01T11:59:40Z"), whole);
    check(going("2024-05-01T11:59:20Z"), "count/pods=1");
    // What the node has not given back yet is still charged.
    let shrinking = json!({"status": {"containerStatuses": [{
        "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "resources": {"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "3"}},
    }]}});
    let held = "count/pods=1 cpu=2 limits.cpu=3 memory=1Gi pods=1 requests.cpu=2 requests.example.com/gpu=2 \
                requests.memory=1Gi";
    check(shrinking, held);
}

#[test]
fn others_are_charged_by_sort() {
    let service = |spec: Value| -> String {
        let service: Service = from(json!({ "spec": spec }));
        shown(&Counted::Service(&service).usage(now()))
    };
    let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
    let line = |nodes: i32, balancers: i32| {
        format!("count/services=1 services=1 services.loadbalancers={balancers} services.nodeports={nodes}")
    };
    assert_eq!(service(json!({"ports": ports})), line(0, 0));
    assert_eq!(service(json!({"ports": ports, "type": "NodePort"})), line(2, 0));
    assert_eq!(service(json!({"ports": ports, "type": "LoadBalancer"})), line(2, 1));
    let without = json!({"ports": ports, "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false});
    assert_eq!(service(without), line(1, 1));
    let claim: PersistentVolumeClaim =
        from(json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}}));
    assert_eq!(
        shown(&Counted::Claim(&claim).usage(now())),
        "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
         gold.storageclass.storage.k8s.io/requests.storage=2 persistentvolumeclaims=1 requests.storage=2"
    );
    let other = |group, plural| shown(&Counted::Other { group, plural }.usage(now()));
    assert_eq!(other("", "secrets"), "count/secrets=1 secrets=1");
    assert_eq!(other("apps", "deployments"), "count/deployments.apps=1");
}

#[test]
fn only_some_resources_concern_an_object() {
    let pod = pod(json!({}), json!({}));
    let (service, claim) = (Service::default(), PersistentVolumeClaim::default());
    let other = |group, plural| Counted::Other { group, plural };
    let check = |counted: Counted<'_>, resource: &str, expected: bool| {
        assert_eq!(counted.is_charged_with(resource), expected, "{counted:?} {resource}");
    };
    for (resource, expected) in [
        ("pods", true),
        ("requests.cpu", true),
        ("requests.hugepages-2Mi", true),
        ("requests.example.com/gpu", true),
        ("requests.storage", false),
        ("services", false),
        ("count/pods", true),
    ] {
        check(Counted::Pod(&pod), resource, expected);
    }
    check(Counted::Service(&service), "services.nodeports", true);
    check(Counted::Service(&service), "pods", false);
    check(Counted::Claim(&claim), "gold.storageclass.storage.k8s.io/requests.storage", true);
    check(Counted::Claim(&claim), "storage", false);
    check(other("", "configmaps"), "configmaps", true);
    check(other("", "configmaps"), "secrets", false);
    check(other("apps", "deployments"), "count/deployments.apps", true);
    check(other("apps", "deployments"), "count/deployments", false);
}

#[test]
fn scopes_narrow_a_quota() {
    let check = |spec: Value, pod: &Pod, expected: bool| {
        let quota: ResourceQuota = from(json!({"spec": spec, "status": {"hard": {"pods": "1"}}}));
        assert_eq!(Counted::Pod(pod).is_subject_to(&quota), expected, "{spec}");
    };
    let idle = pod(json!({}), json!({}));
    let busy = pod(
        json!({"requests": {"cpu": "1"}}),
        json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "affinity": {"podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "k", "namespaces": ["x"]}]}}}}),
    );
    check(json!({}), &idle, true);
    for (scope, of_idle) in [
        ("BestEffort", true),
        ("NotBestEffort", false),
        ("Terminating", false),
        ("NotTerminating", true),
        ("PriorityClass", false),
        ("CrossNamespacePodAffinity", false),
        ("VolumeAttributesClass", false),
    ] {
        check(json!({"scopes": [scope]}), &idle, of_idle);
        check(json!({"scopes": [scope]}), &busy, !of_idle && scope != "VolumeAttributesClass");
    }
    let selector = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    check(selector("In", json!(["high"])), &busy, true);
    check(selector("In", json!(["high"])), &idle, false);
    check(selector("NotIn", json!(["high"])), &busy, false);
    check(selector("NotIn", json!(["high"])), &idle, true);
    check(selector("DoesNotExist", json!([])), &idle, true);
    let quota: ResourceQuota = from(json!({"status": {"hard": {"services": "1"}}}));
    assert!(!Counted::Pod(&idle).is_subject_to(&quota));
}

#[test]
fn counted_cpu_and_memory_must_be_set() {
    let pod = pod(json!({"requests": {"cpu": "1"}}), json!({}));
    let meets = |limited: &[&str]| Counted::Pod(&pod).meets(&limited.iter().copied().collect());
    assert_eq!(meets(&["pods", "requests.ephemeral-storage"]), Ok(()));
    assert_eq!(
        meets(&["requests.cpu", "memory", "limits.memory"]),
        Err("must specify limits.memory for: a,b; memory for: a,b; requests.cpu for: b".to_owned())
    );
}
