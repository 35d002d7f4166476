//! Tables over the resolution of environments.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::*;
use crate::resources::ResourceMap;

fn sources() -> Sources {
    let map: ConfigMap = serde_json::from_value(json!({"data": {"k": "v", "bad=key": "x"}})).unwrap();
    let secret: Secret = serde_json::from_value(json!({"data": {"s": "c2VjcmV0"}})).unwrap();
    Sources {
        config_maps: [("cm".to_owned(), Some(Arc::new(map))), ("gone".to_owned(), None)].into(),
        secrets: [("sec".to_owned(), Some(Arc::new(secret)))].into(),
    }
}

fn services() -> ServiceVariables {
    let service = |value: Value| -> Service { serde_json::from_value(value).unwrap() };
    service_variables(&[
        service(json!({"metadata": {"name": "my-db"}, "spec": {"clusterIP": "10.0.0.1",
            "ports": [{"name": "sql-x", "port": 5432}, {"port": 53, "protocol": "UDP"}]}})),
        service(json!({"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}})),
    ])
}

fn resolved(container: Value) -> Result<Environment, String> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [container]},
    }))
    .unwrap();
    let own = &pod.spec.as_ref().unwrap().containers[0];
    let around = Surroundings { pod_ips: &[], host_ips: &[], allocatable: &ResourceMap::new() };
    resolve(&pod, own, &sources(), &services(), &around)
}

fn check(env: Value, name: &str, expect: Result<Option<&str>, &str>) {
    let got = resolved(json!({"name": "c", "env": env}));
    let got = got.as_ref().map(|env| env.get(name)).map_err(String::as_str);
    assert_eq!(got, expect);
}

#[test]
fn variables_come_from_every_source() {
    check(json!([{"name": "A", "value": "1"}]), "A", Ok(Some("1")));
    check(
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)"}]),
        "B",
        Ok(Some("1-$(C)-$(A)")),
    );
    check(json!([{"name": "B", "value": "$(MY_DB_SERVICE_HOST)"}]), "B", Ok(Some("10.0.0.1")));
    check(json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]), "A", Ok(Some("v")));
    check(json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "s"}}}]), "A", Ok(Some("secret")));
    check(json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]), "A", Ok(Some("p")));
    check(json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), "A", Ok(Some("2")));
}

#[test]
fn what_is_missing_is_said_as_the_kubelet_says_it() {
    let map = |name: &str, key: &str, optional: bool| json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": name, "key": key, "optional": optional}}}]);
    check(map("gone", "k", false), "A", Err("configmap \"gone\" not found"));
    check(map("gone", "k", true), "A", Ok(None));
    check(map("cm", "none", false), "A", Err("couldn't find key none in ConfigMap ns/cm"));
    check(map("cm", "none", true), "A", Ok(None));
    let secret = json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]);
    check(secret, "A", Err("secret \"no\" not found"));
}

#[test]
fn env_from_takes_a_prefix_and_skips_what_is_no_name() {
    let env = resolved(json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
        "env": [{"name": "P_k", "value": "own"}]}))
    .unwrap();
    assert_eq!(env.get("P_k"), Some("own"));
    assert_eq!(env.skipped, [("configMap ns/cm".to_owned(), vec!["P_bad=key".to_owned()])]);
}

#[test]
fn services_are_announced_in_both_old_forms() {
    let env = resolved(json!({"name": "c"})).unwrap();
    for (name, expect) in [
        ("MY_DB_SERVICE_PORT", "5432"),
        ("MY_DB_SERVICE_PORT_SQL_X", "5432"),
        ("MY_DB_PORT", "tcp://10.0.0.1:5432"),
        ("MY_DB_PORT_53_UDP_PROTO", "udp"),
        ("MY_DB_PORT_5432_TCP_ADDR", "10.0.0.1"),
    ] {
        assert_eq!(env.get(name), Some(expect), "{name}");
    }
    assert!(env.get("HEADLESS_SERVICE_HOST").is_none());
}
