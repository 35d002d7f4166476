use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

fn service(spec: Value) -> Value {
    let base = json!({"metadata": {"name": "s", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"ports": [{"port": 80}]}});
    with(base, json!({ "spec": spec }))
}

#[test]
fn defaults() {
    let spec = |spec: Value| {
        let made: Service = created(service(spec));
        serde_json::to_value(made.spec.unwrap()).unwrap()
    };
    assert_eq!(
        spec(json!({})),
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    assert_eq!(
        spec(json!({"type": "NodePort", "sessionAffinity": "ClientIP", "clusterIP": "10.0.0.1"})),
        json!({"type": "NodePort", "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}},
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Cluster", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    assert_eq!(
        spec(json!({"type": "ExternalName", "externalName": "a.b", "ports": null})),
        json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"})
    );
}

#[test]
fn new_services() {
    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        expect(&faults::<Service>(service(spec)), expected);
    }
    check(json!({}), &[]);
    check(json!({"clusterIP": "None", "ports": null}), &[]);
    check(json!({"ports": null}), &["spec.ports: Required value"]);
    check(
        json!({"type": "NodePort", "clusterIP": "None"}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    check(
        json!({"type": "Magic"}),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(
        json!({"type": "ExternalName", "clusterIP": "10.0.0.1"}),
        &["spec.clusterIPs: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value"],
    );
    check(json!({"clusterIP": "x"}), &["spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address"]);
    check(
        json!({"clusterIPs": ["10.0.0.1"]}),
        &["spec.clusterIPs: Invalid value: [\"10.0.0.1\"]: must be empty when `clusterIP` is not specified"],
    );
    check(
        json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"], "ipFamilies": ["IPv6", "IPv6"]}),
        &[
            "spec.ipFamilies[1]: Duplicate value: \"IPv6\"",
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
            "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            "spec.clusterIPs[1]: Invalid value: \"10.0.0.2\": expected an IPv6 value as indicated by `ipFamilies[1]`",
        ],
    );
    check(
        json!({"ports": [{"port": 80, "nodePort": 30000}, {"port": 80, "name": "a"}, {"port": 0, "name": "a", "targetPort": "UP"}]}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[2].name: Duplicate value: \"a\"",
            "spec.ports[2].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[2].targetPort: Invalid value: \"UP\": must contain only alpha-numeric",
            "spec.ports[2].targetPort: Invalid value: \"UP\": must contain at least one letter",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
        ],
    );
    check(
        json!({"externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": true, "externalIPs": ["x"], "sessionAffinity": "Cookie"}),
        &[
            "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
            "spec.externalIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g.",
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ],
    );
    check(
        json!({"externalTrafficPolicy": "Local"}),
        &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
    );
}

#[test]
fn changed_services() {
    let given = || {
        service(
            json!({"type": "NodePort", "clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080}], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
        )
    };
    let change = |spec: Value| update_faults::<Service>(given(), with(given(), json!({ "spec": spec })));
    expect(&change(json!({"selector": {"a": "b"}})), &[]);
    expect(
        &change(json!({"clusterIP": "10.0.0.2"})),
        &["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"],
    );
    expect(
        &change(json!({"clusterIP": "None"})),
        &[
            "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            "spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set",
        ],
    );
    // From NodePort to ClusterIP: the node port that the client did not touch goes away.
    expect(&change(json!({"type": "ClusterIP"})), &[]);
    expect(&change(json!({"type": "ExternalName", "externalName": "a.b"})), &[]);
    // What the server gave out need not be repeated.
    let bare = service(json!({"type": "NodePort"}));
    let old: Service = created(given());
    let mut new: Service = serde_json::from_value(bare).unwrap();
    crate::kind::Resource::apply_defaults(&mut new);
    crate::kind::Resource::prepare_update(&mut new, &old);
    assert_eq!(new.spec, old.spec);
}

#[test]
fn rows() {
    let check = |spec: Value, expected: &str| assert_eq!(row::<Service>(service(spec)), expected);
    check(
        json!({"type": "NodePort", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"a": "b", "c": "d"}}),
        "s|NodePort|10.0.0.1|<none>|80:30080/TCP,53/UDP|5m|a=b,c=d",
    );
    check(
        json!({"type": "ExternalName", "externalName": "x.y", "ports": null}),
        "s|ExternalName|<none>|x.y|<none>|5m|<none>",
    );
    check(json!({"type": "LoadBalancer", "ports": null}), "s|LoadBalancer|<none>|<pending>|<none>|5m|<none>");
}
