//! Records as Kubernetes v1.36 writes them. What is expected for the usual objects is what `kubectl get
//! --show-managed-fields` prints for them on a cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Value, json};

use super::*;
use crate::kind::{Kind, Subresource};
use crate::kinds::find_by_kind;

const NOW: &str = "2026-01-02T03:04:05Z";

fn kind(object: &Value) -> &'static Kind {
    find_by_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap()
}

fn writer(manager: &str) -> Writer<'_> {
    Writer { manager, subresource: None, now: NOW.parse().unwrap() }
}

/// The object's fields as its creator owns them.
fn created(object: &Value) -> Value {
    let text = object.to_string();
    let change = Change { kind: kind(object), old: None, new: text.as_bytes(), managed: None, given: Given::Nothing };
    let Outcome::New(Some(text)) = update(change, writer("kubectl-create")) else { panic!("nothing was recorded") };
    let list: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 1);
    let entry = &list[0];
    assert_eq!(entry["manager"], "kubectl-create");
    assert_eq!(entry["operation"], "Update");
    assert_eq!(entry["apiVersion"], object["apiVersion"]);
    assert_eq!(entry["time"], NOW);
    assert_eq!(entry["fieldsType"], "FieldsV1");
    entry["fieldsV1"].clone()
}

#[test]
fn a_created_pod_is_its_creators() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "nginx", "generateName": "nginx-", "namespace": "default", "uid": "1", "creationTimestamp": NOW,
            "labels": {"run": "nginx"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "7", "controller": true}],
            "finalizers": ["a.b/c"],
        },
        "spec": {
            "containers": [{
                "name": "nginx", "image": "nginx", "imagePullPolicy": "Always", "resources": {"limits": {"cpu": "1"}},
                "command": ["a", "b"],
                "env": [{"name": "B", "value": ""}, {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "a.b"}}}],
                "ports": [{"containerPort": 443, "protocol": "TCP"}, {"containerPort": 80}],
                "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 10},
            }],
            "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
            "securityContext": {}, "nodeSelector": {"a": "b"}, "hostNetwork": false, "volumes": [],
        },
        "status": {"phase": "Pending"},
    });
    let expected = json!({
        "f:metadata": {
            "f:finalizers": {".": {}, "v:\"a.b/c\"": {}},
            "f:generateName": {},
            "f:labels": {".": {}, "f:run": {}},
            "f:ownerReferences": {".": {}, "k:{\"uid\":\"7\"}": {}},
        },
        "f:spec": {
            "f:containers": {
                "k:{\"name\":\"nginx\"}": {
                    ".": {},
                    "f:command": {},
                    "f:env": {
                        ".": {},
                        "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:valueFrom": {".": {}, "f:fieldRef": {}}},
                        "k:{\"name\":\"B\"}": {".": {}, "f:name": {}},
                    },
                    "f:image": {},
                    "f:imagePullPolicy": {},
                    "f:livenessProbe": {
                        ".": {}, "f:httpGet": {".": {}, "f:path": {}, "f:port": {}}, "f:periodSeconds": {},
                    },
                    "f:name": {},
                    "f:ports": {
                        ".": {},
                        "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                        "k:{\"containerPort\":443,\"protocol\":\"TCP\"}": {
                            ".": {}, "f:containerPort": {}, "f:protocol": {},
                        },
                    },
                    "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}}},
                },
            },
            "f:dnsPolicy": {},
            "f:enableServiceLinks": {},
            "f:nodeSelector": {},
            "f:restartPolicy": {},
            "f:securityContext": {},
        },
    });
    assert_eq!(created(&pod), expected);
}

#[test]
fn usual_objects_are_recorded_as_upstream_records_them() {
    let check = |object: Value, expected: Value| assert_eq!(created(&object), expected);
    check(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v", "a/b": ""}}),
        json!({"f:data": {".": {}, "f:a/b": {}, "f:k": {}}}),
    );
    check(
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "labels": {"k8s-app": "kube-dns"}},
            "spec": {
                "clusterIP": "10.43.0.10", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP",
                "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53}, {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}],
                "selector": {"k8s-app": "kube-dns"},
            },
            "status": {"loadBalancer": {}},
        }),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:k8s-app": {}}},
            "f:spec": {
                "f:clusterIP": {},
                "f:internalTrafficPolicy": {},
                "f:ports": {
                    ".": {},
                    "k:{\"port\":53,\"protocol\":\"TCP\"}": {
                        ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {},
                    },
                    "k:{\"port\":53,\"protocol\":\"UDP\"}": {
                        ".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {},
                    },
                },
                "f:selector": {},
                "f:sessionAffinity": {},
                "f:type": {},
            },
        }),
    );
    check(
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "generation": 1},
            "spec": {
                "progressDeadlineSeconds": 600, "replicas": 1, "selector": {"matchLabels": {"app": "a"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c"}]}},
            },
        }),
        json!({
            "f:spec": {
                "f:progressDeadlineSeconds": {},
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {
                    "f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}},
                    "f:type": {},
                },
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:name": {}}}},
                },
            },
        }),
    );
    check(
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "count": 1, "reason": "Started", "type": "Normal",
            "involvedObject": {"kind": "Pod", "name": "a"}, "source": {"component": "kubelet"}, "firstTimestamp": NOW,
            "reportingComponent": "kubelet", "reportingInstance": "", "eventTime": null,
        }),
        json!({
            "f:count": {}, "f:firstTimestamp": {}, "f:involvedObject": {}, "f:reason": {}, "f:reportingComponent": {},
            "f:source": {"f:component": {}}, "f:type": {},
        }),
    );
}

/// A story of writes of one object, and the records after each.
struct Story {
    object: Value,
    managed: Option<Vec<u8>>,
}

impl Story {
    fn begin(object: Value, manager: &str) -> Self {
        let mut story = Self { object: Value::Null, managed: None };
        story.write(object, writer(manager), Given::Nothing);
        story
    }

    fn write(&mut self, new: Value, writer: Writer<'_>, given: Given<'_>) {
        let old = (!self.object.is_null()).then(|| self.object.to_string());
        let text = new.to_string();
        let change = Change {
            kind: kind(&new),
            old: old.as_deref().map(str::as_bytes),
            new: text.as_bytes(),
            managed: self.managed.as_deref(),
            given,
        };
        if let Outcome::New(managed) = update(change, writer) {
            assert_ne!(managed, self.managed, "news that are none");
            self.managed = managed;
        }
        self.object = new;
    }

    fn set(&mut self, pointer: &str, value: Value, writer: Writer<'_>) {
        let mut new = self.object.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = new.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(name);
        } else {
            parent.insert(name.to_owned(), value);
        }
        self.write(new, writer, Given::Nothing);
    }

    /// `manager/subresource@time fields` of each record.
    fn check(&self, expected: &[&str]) {
        let list: Vec<Value> = self.managed.as_ref().map(|m| serde_json::from_slice(m).unwrap()).unwrap_or_default();
        let shown: Vec<String> = list
            .iter()
            .map(|e| {
                let part = e["subresource"].as_str().map(|s| format!("/{s}")).unwrap_or_default();
                format!(
                    "{}{part}@{} {}",
                    e["manager"].as_str().unwrap(),
                    &e["time"].as_str().unwrap()[11..19],
                    e["fieldsV1"]
                )
            })
            .collect();
        assert_eq!(shown, expected);
    }
}

fn at<'a>(manager: &'a str, time: &str) -> Writer<'a> {
    Writer { now: format!("2026-01-02T{time}Z").parse().unwrap(), ..writer(manager) }
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[test]
fn what_a_write_changes_becomes_its_managers() {
    let mut story = Story::begin(config_map(json!({"a": "1", "b": "1"})), "one");
    story.check(&[r#"one@03:04:05 {"f:data":{".":{},"f:a":{},"f:b":{}}}"#]);
    story.set("/data/a", "2".into(), at("two", "04:00:00.9"));
    story.check(&[r#"one@03:04:05 {"f:data":{".":{},"f:b":{}}}"#, r#"two@04:00:00 {"f:data":{"f:a":{}}}"#]);
    // Nothing new: neither the time nor anything else changes.
    story.set("/data/a", "2".into(), at("two", "05:00:00"));
    story.set("/data/a", "2".into(), at("three", "05:00:00"));
    story.check(&[r#"one@03:04:05 {"f:data":{".":{},"f:b":{}}}"#, r#"two@04:00:00 {"f:data":{"f:a":{}}}"#]);
    story.set("/data/a", "3".into(), at("two", "05:00:00"));
    story.set("/data/c", "1".into(), at("one", "06:00:00"));
    story.check(&[r#"two@05:00:00 {"f:data":{"f:a":{}}}"#, r#"one@06:00:00 {"f:data":{".":{},"f:b":{},"f:c":{}}}"#]);
    // What is removed is nobody's; who removes leaves no record, and an empty record goes.
    story.set("/data/a", Value::Null, at("four", "07:00:00"));
    story.check(&[r#"one@06:00:00 {"f:data":{".":{},"f:b":{},"f:c":{}}}"#]);
    story.set("/data", Value::Null, at("four", "08:00:00"));
    story.check(&[]);
    // Then nothing is recorded any more.
    story.set("/data", json!({"a": "1"}), at("four", "09:00:00"));
    story.check(&[]);
}

#[test]
fn an_element_that_goes_takes_its_fields_along() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Pending"},
    });
    let mut story = Story::begin(pod, "kubectl");
    let status = |manager, time| Writer { subresource: Some(Subresource::Status), ..at(manager, time) };
    let condition =
        |state: &str| json!([{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": state}]);
    story.set("/status/conditions", condition("False"), status("kubelet", "04:00:00"));
    let spec =
        r#"kubectl@03:04:05 {"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}}}"#;
    let all = r#"{"f:status":{"f:conditions":{".":{},"k:{\"type\":\"PodScheduled\"}":{".":{},"f:status":{},"f:type":{}},"k:{\"type\":\"Ready\"}":{".":{},"f:status":{},"f:type":{}}}}}"#;
    story.check(&[spec, &format!("kubelet/status@04:00:00 {all}")]);
    // A change of what it owns already gives it a new time and nothing else.
    story.set("/status/conditions", condition("True"), status("kubelet", "05:00:00"));
    story.check(&[spec, &format!("kubelet/status@05:00:00 {all}")]);
    // The same manager is another one without the subresource.
    story.set("/metadata/labels", json!({"a": "b"}), at("kubelet", "06:00:00"));
    let labels = r#"kubelet@06:00:00 {"f:metadata":{"f:labels":{".":{},"f:a":{}}}}"#;
    story.check(&[spec, &format!("kubelet/status@05:00:00 {all}"), labels]);
    // A plain write has no say in the status.
    story.set("/status/phase", "Failed".into(), at("kubectl", "07:00:00"));
    story.check(&[spec, &format!("kubelet/status@05:00:00 {all}"), labels]);
    story.set("/status/conditions", json!([{"type": "PodScheduled", "status": "True"}]), status("other", "08:00:00"));
    let left = r#"kubelet/status@05:00:00 {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"PodScheduled\"}":{".":{},"f:status":{},"f:type":{}}}}}"#;
    story.check(&[spec, left, labels]);
}

#[test]
fn elements_that_cannot_be_told_apart_are_one_field() {
    let pod = |env: Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "c", "env": env}]},
        })
    };
    let one = json!([{"name": "A", "value": "1"}]);
    let two = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let shown = |env: &str| {
        format!(
            r#"x@03:04:05 {{"f:spec":{{"f:containers":{{"k:{{\"name\":\"c\"}}":{{".":{{}},"f:env":{{".":{{}},"k:{{\"name\":\"A\"}}":{env}}},"f:name":{{}}}}}}}}}}"#
        )
    };
    let (whole, parts) = (shown("{}"), shown(r#"{".":{},"f:name":{},"f:value":{}}"#));
    let mut story = Story::begin(pod(one.clone()), "x");
    story.check(&[&parts]);
    story.write(pod(two.clone()), writer("x"), Given::Nothing);
    story.check(&[&whole]);
    story.write(pod(two), writer("y"), Given::Nothing);
    story.check(&[&whole]);
    story.write(pod(one), writer("x"), Given::Nothing);
    story.check(&[&parts]);
}

fn given(list: &Value) -> Vec<ManagedFieldsEntry> {
    serde_json::from_value(list.clone()).unwrap()
}

#[test]
fn clients_clear_and_put_back_but_never_break() {
    let begin = || Story::begin(config_map(json!({"a": "1"})), "one");
    let here = r#"one@03:04:05 {"f:data":{".":{},"f:a":{}}}"#;
    let check = |list: Value, expected: &[&str]| {
        let mut story = begin();
        story.write(story.object.clone(), writer("two"), Given::Entries(&given(&list)));
        story.check(expected);
    };
    check(json!([]), &[here]);
    check(json!([{}]), &[]);
    let entry = |change: Value| {
        let mut entry = json!({
            "manager": "three", "operation": "Apply", "apiVersion": "v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:a": {}, "q:later": {}}},
        });
        entry.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!([entry])
    };
    check(entry(json!({})), &[r#"three@03:04:05 {"f:data":{"f:a":{}}}"#]);
    for broken in [
        json!({"operation": "Steal"}),
        json!({"apiVersion": ""}),
        json!({"fieldsType": "FieldsV2"}),
        json!({"fieldsV1": {"data": {}}}),
        json!({"fieldsV1": {"k:{": {}}}),
        json!({"fieldsV1": 7}),
    ] {
        check(entry(broken), &[here]);
    }
    // Who makes an object with records of others takes what is in it.
    let mut story = Story { object: Value::Null, managed: None };
    story.write(config_map(json!({"b": "1"})), writer("restore"), Given::Entries(&given(&entry(json!({})))));
    story.check(&[r#"three@03:04:05 {"f:data":{"f:a":{}}}"#, r#"restore@03:04:05 {"f:data":{".":{},"f:b":{}}}"#]);
}

#[test]
fn the_oldest_updates_are_joined() {
    let mut story = Story::begin(config_map(json!({"k0": "1"})), "m0");
    for i in 1..=11 {
        story.set(&format!("/data/k{i}"), "1".into(), at(&format!("m{i}"), &format!("04:00:{i:02}")));
    }
    let list: Value = serde_json::from_slice(story.managed.as_ref().unwrap()).unwrap();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(names, ["ancient-changes", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "m10", "m11"]);
    assert_eq!(list[0]["fieldsV1"], json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}}));
    assert_eq!(list[0]["time"], "2026-01-02T04:00:02Z");
}

#[test]
fn a_record_in_another_version_loses_what_it_calls_by_another_name() {
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a", "namespace": "b"},
        "eventTime": "2026-01-02T03:04:05.000000Z", "note": "x", "reason": "r", "type": "Normal",
        "reportingController": "c", "reportingInstance": "i", "action": "a",
    });
    let mut story = Story::begin(event, "new");
    let mut old = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a", "namespace": "b"}, "involvedObject": {},
        "eventTime": "2026-01-02T03:04:05.000000Z", "message": "x", "reason": "r", "type": "Normal",
        "reportingComponent": "c", "reportingInstance": "i", "action": "a",
    });
    story.object = old.clone();
    old["message"] = "y".into();
    story.write(old, at("old", "04:00:00"), Given::Nothing);
    story.check(&[
        r#"new@03:04:05 {"f:action":{},"f:eventTime":{},"f:reason":{},"f:reportingController":{},"f:reportingInstance":{},"f:type":{}}"#,
        r#"old@04:00:00 {"f:message":{}}"#,
    ]);
}

#[test]
fn sets_are_combined() {
    fn set(value: &Value) -> Set<'static> {
        // What a test writes is in the order of names, which is the order of the text.
        Set::read(value.to_string().leak().as_bytes())
    }
    let check = |actual: Set<'_>, expected: Value| {
        let mut text = Vec::new();
        actual.write(&mut text);
        assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), expected);
    };
    let a = set(&json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}, "f:c": {"f:y": {}}}));
    let b = set(&json!({"f:a": {}, "f:c": {"f:y": {}, "f:z": {}}, "f:d": {}}));
    check(
        a.clone().union(b.clone()),
        json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}, "f:c": {"f:y": {}, "f:z": {}}, "f:d": {}}),
    );
    check(a.clone().intersection(&b), json!({"f:a": {}, "f:c": {"f:y": {}}}));
    check(a.clone().difference(&b), json!({"f:a": {"f:x": {}}, "f:b": {}}));
    check(a.difference_with_contents(&b), json!({"f:b": {}}));
    check(b.clone().difference(&b), json!({}));
}

#[test]
fn managers_have_the_names_of_user_agents() {
    let check = |agent: &str, expected: &str| assert_eq!(manager_of_user_agent(agent), expected);
    check("kubectl/v1.32.0 (linux/amd64) kubernetes/abc", "kubectl");
    check("Mozilla", "Mozilla");
    check("", "");
    check("a\tb\u{7f}c/1", "abc");
    check(&"é".repeat(100), &"é".repeat(64));
}
