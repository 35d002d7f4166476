use serde_json::{Value, json};

use super::{Subject, render};
use crate::discovery::Discovery;

fn check(kind: &str, object: Value, events: Option<Vec<Value>>, related: (&'static str, Vec<Value>), expect: &str) {
    let kind = match kind {
        "services" | "configmaps" | "secrets" | "widgets" => {
            crate::discovery::ApiKind { plural: kind.to_owned(), ..Default::default() }
        }
        kind => Discovery::sample().find(kind).expect("it is known").remove(0),
    };
    let now = "2026-01-01T00:01:00Z".parse().expect("a time");
    let text = render(&Subject { kind, object, events, related: [related].into() }, now);
    assert_eq!(text, expect, "\n{text}");
}

#[test]
fn a_pod_is_told_as_kubectl_does() {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "n", "labels": {"app": "x", "tier": "y"},
            "ownerReferences": [{"controller": true, "kind": "ReplicaSet", "name": "r"}]},
        "spec": {"nodeName": "node", "serviceAccountName": "default", "priority": 0,
            "containers": [{"name": "c", "image": "hello:v1", "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                "resources": {"limits": {"memory": "64Mi"}}, "env": [{"name": "A", "value": "b"}],
                "readinessProbe": {"httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"}, "periodSeconds": 5},
                "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
            "volumes": [{"name": "v", "emptyDir": {}}],
            "tolerations": [{"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]},
        "status": {"phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.42.0.2", "podIPs": [{"ip": "10.42.0.2"}], "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "c", "ready": false, "restartCount": 2, "containerID": "wasm://1", "imageID": "i",
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
    });
    let event = json!({"type": "Warning", "reason": "BackOff", "message": "Back-off\n", "count": 3, "source": {"component": "kubelet"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:50Z"});
    check(
        "pods",
        pod,
        Some(vec![event]),
        ("none", Vec::new()),
        "\
Name:             p
Namespace:        n
Priority:         0
Service Account:  default
Node:             node/10.0.0.1
Labels:           app=x
                  tier=y
Annotations:      <none>
Status:           Running
IP:               10.42.0.2
IPs:
  IP:           10.42.0.2
Controlled By:  ReplicaSet/r
Containers:
  c:
    Container ID:   wasm://1
    Image:          hello:v1
    Image ID:       i
    Port:           8080/TCP
    Host Port:      0/TCP
    State:          Waiting
      Reason:       CrashLoopBackOff
    Ready:          False
    Restart Count:  2
    Limits:
      memory:   64Mi
    Readiness:  http-get http://:http/health delay=0s timeout=1s period=5s #success=1 #failure=3
    Environment:
      A:  b
    Mounts:
      /data from v (rw)
Conditions:
  Type    Status
  Ready   False 
Volumes:
  v:
    Type:        EmptyDir (a temporary directory that shares a pod's lifetime)
    Medium:      
    SizeLimit:   <unset>
QoS Class:       Burstable
Node-Selectors:  <none>
Tolerations:     k:NoExecute op=Exists for 300s
Events:
  Type     Reason   Age                From     Message
  ----     ------   ----               ----     -------
  Warning  BackOff  10s (x3 over 60s)  kubelet  Back-off
",
    );
}

#[test]
fn a_service_tells_where_it_leads() {
    let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
        "ipFamilies": ["IPv4"], "selector": {"app": "x"}, "sessionAffinity": "None",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http", "nodePort": 30080}]}});
    let endpoint = |address: &str, ready: bool| json!({"addresses": [address], "conditions": {"ready": ready}});
    let slice = json!({"ports": [{"name": "http", "port": 8080}], "endpoints": [endpoint("10.42.0.2", true), endpoint("10.42.0.3", false)]});
    check(
        "services",
        service,
        None,
        ("endpointslices", vec![slice]),
        "\
Name:              s
Namespace:         n
Labels:            <none>
Annotations:       <none>
Selector:          app=x
Type:              NodePort
IP Families:       IPv4
IP:                10.43.0.5
IPs:               10.43.0.5
Port:              http  80/TCP
TargetPort:        http/TCP
NodePort:          http  30080/TCP
Endpoints:         10.42.0.2:8080
Session Affinity:  None
",
    );
}

#[test]
fn a_deployment_tells_of_its_sets() {
    let set = |name: &str, revision: &str, wanted: i64| {
        json!({"metadata": {"name": name, "ownerReferences": [{"uid": "u"}],
        "annotations": {"deployment.kubernetes.io/revision": revision}}, "spec": {"replicas": wanted}, "status": {"replicas": wanted}})
    };
    let deployment = json!({"metadata": {"name": "d", "namespace": "n", "uid": "u", "creationTimestamp": null,
            "annotations": {"deployment.kubernetes.io/revision": "2"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "strategy": {"type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 1}}, "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": []}}},
        "status": {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}});
    check(
        "deployments",
        deployment,
        Some(Vec::new()),
        ("replicasets", vec![set("new", "2", 2), set("old", "1", 0)]),
        "\
Name:                   d
Namespace:              n
CreationTimestamp:      <unset>
Labels:                 <none>
Annotations:            deployment.kubernetes.io/revision: 2
Selector:               app=x
Replicas:               2 desired | 2 updated | 2 total | 2 available | 0 unavailable
StrategyType:           RollingUpdate
MinReadySeconds:        0
RollingUpdateStrategy:  25% max unavailable, 1 max surge
Pod Template:
  Labels:  app=x
  Containers: <none>
  Volumes:         <none>
  Node-Selectors:  <none>
  Tolerations:     <none>
OldReplicaSets:    old (0/0 replicas created)
NewReplicaSet:     new (2/2 replicas created)
Events:            <none>
",
    );
}

#[test]
fn any_object_is_told_field_by_field() {
    let widget = json!({"apiVersion": "v1", "kind": "Widget", "metadata": {"name": "m", "namespace": "n", "managedFields": [], "uid": "u"},
        "data": {"a.conf": "x"}, "list": ["p", {"podIP": "q"}]});
    check(
        "widgets",
        widget,
        None,
        ("none", Vec::new()),
        "\
Name:         m
Namespace:    n
Labels:       <none>
Annotations:  <none>
API Version:  v1
Data:
  a.conf:  x
Kind:      Widget
List:
  p
  Pod IP:  q
Metadata:
  UID:  u
",
    );
}

#[test]
fn what_a_config_map_holds_is_shown_and_what_a_secret_holds_is_not() {
    let metadata = json!({"name": "m", "namespace": "n"});
    let map = json!({"metadata": metadata, "data": {"b": "2", "a": "1"}, "binaryData": {"c": "AAEC"}});
    check(
        "configmaps",
        map,
        Some(Vec::new()),
        ("none", Vec::new()),
        "\
Name:         m
Namespace:    n
Labels:       <none>
Annotations:  <none>

Data
====
a:
----
1

b:
----
2


BinaryData
====
c: 3 bytes

Events:  <none>
",
    );
    let secret = json!({"metadata": metadata, "type": "Opaque", "data": {"token": "c2VjcmV0", "key": "YWI="}});
    check(
        "secrets",
        secret,
        None,
        ("none", Vec::new()),
        "\
Name:         m
Namespace:    n
Labels:       <none>
Annotations:  <none>

Type:  Opaque

Data
====
key:    2 bytes
token:  6 bytes
",
    );
}
