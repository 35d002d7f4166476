//! Documented examples of every sort of patch, and properties that hold for any two objects.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");
const POD: (&str, &str) = ("v1", "Pod");

fn check(gvk: (&str, &str), target: Value, patch: Value, expect: Value) {
    assert_eq!(strategic_merge_named(gvk, &target, &patch), Ok(expect), "{patch}");
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn json_patches_apply_or_say_why_not() {
    let cases = [
        (json!([{"op": "add", "path": "/b", "value": 2}]), Ok(json!({"a": [1], "b": 2}))),
        (json!([{"op": "add", "path": "/a/-", "value": 2}]), Ok(json!({"a": [1, 2]}))),
        (json!([{"op": "remove", "path": "/a/0"}]), Ok(json!({"a": []}))),
        (json!([{"op": "replace", "path": "/a", "value": {}}]), Ok(json!({"a": {}}))),
        (json!([{"op": "copy", "from": "/a", "path": "/b"}]), Ok(json!({"a": [1], "b": [1]}))),
        (json!([{"op": "move", "from": "/a", "path": "/b"}]), Ok(json!({"b": [1]}))),
        (json!([{"op": "test", "path": "/a/0", "value": 1}]), Ok(json!({"a": [1]}))),
        (json!([{"op": "test", "path": "/zz", "value": null}]), Ok(json!({"a": [1]}))),
        (json!([{"op": "test", "path": "/a/0", "value": 2}]), Err(422)),
        (json!([{"op": "remove", "path": "/zz"}]), Err(422)),
        (json!([{"op": "add", "path": "/x/y", "value": 1}]), Err(422)),
        (json!([{"op": "frobnicate", "path": "/a"}]), Err(422)),
        (json!({"op": "add"}), Err(400)),
        (json!([1]), Err(400)),
        (Value::Array(vec![json!({"op": "test", "path": "/a/0", "value": 1}); MAX_OPERATIONS + 1]), Err(413)),
    ];
    for (patch, expect) in cases {
        let got = json_patch(&json!({"a": [1]}), &patch).map_err(|e| ApiError::from(e).reason.code());
        assert_eq!(got, expect, "{patch:.200}");
    }
}

#[test]
fn copies_may_not_blow_up_the_object() {
    let big = json!({"a": "x".repeat(1 << 20)});
    let ops: Vec<Value> = (0..4).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/b{i}")})).collect();
    assert!(json_patch(&big, &Value::from(ops[..2].to_vec())).is_ok());
    assert!(matches!(json_patch(&big, &Value::Array(ops)), Err(PatchError::Unprocessable(_))));
}

#[test]
fn merge_patches_follow_the_examples_of_rfc_7386() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (target, patch, expect) in cases {
        assert_eq!(merge_patch(&target, &patch), Ok(expect), "{patch}");
    }
    assert!(matches!(merge_patch(&json!({}), &json!([1])), Err(PatchError::Malformed(_))));
}

#[test]
fn deep_patches_are_refused() {
    let deep = (0..MAX_DEPTH * 2).fold(json!(1), |v, _| json!({ "a": v }));
    assert!(matches!(merge_patch(&json!({}), &deep), Err(PatchError::Malformed(_))));
    assert!(matches!(strategic_merge_named(POD, &json!({}), &deep), Err(PatchError::Malformed(_))));
}

#[test]
fn containers_merge_by_name_and_tolerations_are_replaced() {
    // The examples of the page "Update API Objects in Place Using kubectl patch".
    check(
        DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "nginx"}],
            "tolerations": [{"key": "dedicated", "value": "test-team"}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "redis"}],
            "tolerations": [{"key": "disktype"}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "redis"}, {"name": "a", "image": "nginx"}],
            "tolerations": [{"key": "disktype"}]}}}}),
    );
}

#[test]
fn retained_keys_clear_the_others() {
    check(
        DEPLOYMENT,
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let got = strategic_merge_named(DEPLOYMENT, &json!({"spec": {"strategy": {}}}), &bad);
    assert_eq!(got, Err(PatchError::Malformed("invalid patch format of retainKeys".to_owned())));
}

#[test]
fn directives_do_what_they_say() {
    let three = || pod(json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}));
    let cases = [
        (json!([{"name": "b", "$patch": "delete"}]), json!([{"name": "a"}, {"name": "c"}])),
        (json!([{"$patch": "replace"}, {"name": "z"}]), json!([{"name": "z"}])),
        (json!([{"name": "b", "image": "i"}]), json!([{"name": "a"}, {"name": "b", "image": "i"}, {"name": "c"}])),
    ];
    for (patch, expect) in cases {
        check(POD, three(), json!({"spec": {"containers": patch}}), pod(json!({ "containers": expect })));
    }
    let order = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "d"}, {"name": "a"}],
        "containers": [{"name": "d"}]}});
    let expect = json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "d"}, {"name": "a"}]});
    check(POD, three(), order, pod(expect));
    check(
        POD,
        json!({"metadata": {"finalizers": ["a", "b", "c"], "labels": {"x": "1", "y": "2"}}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "finalizers": ["d"],
            "$setElementOrder/finalizers": ["d", "a", "c"], "labels": {"$patch": "replace", "z": "3"}}}),
        json!({"metadata": {"finalizers": ["d", "a", "c"], "labels": {"z": "3"}}}),
    );
    check(
        POD,
        json!({"spec": {"nodeSelector": {"a": "b"}}}),
        json!({"spec": {"nodeSelector": {"$patch": "delete"}}}),
        json!({"spec": {"nodeSelector": {}}}),
    );
    check(
        POD,
        json!({"spec": {"nodeSelector": {"a": "b"}}}),
        json!({"spec": {"nodeSelector": null}}),
        json!({"spec": {}}),
    );
}

#[test]
fn directives_that_meet_nothing_leave_nothing() {
    check(
        POD,
        json!({}),
        json!({"spec": {"nodeName": null, "$setElementOrder/containers": [{"name": "a"}],
            "containers": [{"name": "a", "env": null}, {"name": "gone", "$patch": "delete"}],
            "volumes": [{"name": "v", "$retainKeys": ["name", "emptyDir"], "emptyDir": {}}]}}),
        json!({"spec": {"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {}}]}}),
    );
}

#[test]
fn patches_that_do_not_fit_say_so() {
    let cases = [
        (
            json!({"spec": {"containers": [{"image": "x"}]}}),
            "map: map[image:x] does not contain declared merge key: name",
            500,
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "frob"}]}}),
            "unknown patch type: frob in map: map[$patch:frob name:a]",
            500,
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}),
            "merging lists cannot yet be specified in the patch",
            500,
        ),
        (json!({"spec": {"containers": ["a"]}}), "list element types are not identical: [[map[name:a]] [a]]", 500),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "x"}], "containers": [{"name": "y"}]}}),
            "The order in patch list:\n[map[name:y]]\n doesn't match $setElementOrder list:\n[map[name:x]]\n",
            500,
        ),
        (json!([]), "invalid JSON document", 400),
    ];
    for (patch, message, code) in cases {
        let error = strategic_merge_named(POD, &pod(json!({"containers": [{"name": "a"}]})), &patch).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert_eq!(ApiError::from(error).reason.code(), code);
    }
}

#[test]
fn every_merging_list_of_the_table_merges() {
    for ty in schema::types() {
        for field in ty.fields {
            if let schema::Strategy::MergeBy(key) = field.strategy {
                assert!(!key.is_empty() && field.of.is_none_or(|t| !t.fields.is_empty()), "{}.{}", ty.name, field.name);
            }
        }
    }
    // One list of each depth, to see that the table leads there.
    let cases = [
        (("batch/v1", "CronJob"), vec!["spec", "jobTemplate", "spec", "template", "spec", "containers"], "name"),
        (("apps/v1", "StatefulSet"), vec!["spec", "template", "spec", "imagePullSecrets"], "name"),
        (("v1", "Service"), vec!["spec", "ports"], "port"),
        (("v1", "Node"), vec!["status", "addresses"], "type"),
        (("v1", "Secret"), vec!["metadata", "ownerReferences"], "uid"),
        (("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"), vec!["webhooks"], "name"),
        (("example.com/v1", "Unknown"), vec!["metadata", "ownerReferences"], "uid"),
    ];
    for (gvk, path, key) in cases {
        let wrap = |list: Value| path.iter().rev().fold(list, |v, name| json!({ *name: v }));
        let (old, new) = (wrap(json!([{key: "1", "x": 1}, {key: "2"}])), wrap(json!([{key: "1", "y": 2}])));
        check(gvk, old, new, wrap(json!([{key: "1", "x": 1, "y": 2}, {key: "2"}])));
    }
}

#[test]
fn diffs_are_those_kubectl_makes() {
    let original = pod(json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "nodeName": "n"}));
    let modified = pod(json!({"containers": [{"name": "c"}, {"name": "a", "image": "2"}]}));
    let expect = json!({"spec": {
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c"}, {"name": "a", "image": "2"}, {"$patch": "delete", "name": "b"}],
        "nodeName": null}});
    assert_eq!(two_way(POD, &original, &modified), Ok(expect));
    let (old, new) = (
        json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {}}}}),
        json!({"spec": {"strategy": {"type": "Recreate"}}}),
    );
    let expect = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate", "rollingUpdate": null}}});
    assert_eq!(two_way(DEPLOYMENT, &old, &new), Ok(expect));
}

#[test]
fn three_way_patches_leave_alone_what_others_set() {
    let original = json!({"metadata": {"name": "p", "labels": {"old": "1", "same": "1"}}, "spec": {"containers": [{"name": "a"}, {"name": "gone"}]}});
    let modified = json!({"metadata": {"name": "p", "labels": {"same": "1", "new": "1"}}, "spec": {"containers": [{"name": "a", "image": "2"}]}});
    let current = json!({"metadata": {"name": "p", "labels": {"old": "1", "same": "1", "other": "1"}},
        "spec": {"containers": [{"name": "a", "image": "1", "tty": false}, {"name": "gone"}, {"name": "injected"}], "nodeName": "n"}});
    let patch = three_way(POD, &original, &modified, &current).unwrap();
    let expect = json!({"metadata": {"name": "p", "labels": {"same": "1", "new": "1", "other": "1"}},
        "spec": {"containers": [{"name": "a", "image": "2", "tty": false}, {"name": "injected"}], "nodeName": "n"}});
    check(POD, current.clone(), patch, expect);
    assert_eq!(three_way(POD, &modified, &modified, &modified), Ok(json!({})));

    let patch = three_way_merge(&json!({"a": 1, "b": 1}), &json!({"a": 2}), &json!({"a": 1, "b": 1, "c": 1})).unwrap();
    assert_eq!(patch, json!({"a": 2, "b": null}));
    let renamed = json!({"metadata": {"name": "q"}});
    assert_eq!(three_way(POD, &renamed, &renamed, &pod(json!({}))), Err(PatchError::IdentityChanged));
}

/// Pods with a few merging lists, a merging set, a map and a replaced list.
fn pods() -> impl Strategy<Value = Value> {
    let scalar = || prop_oneof![Just(json!("x")), Just(json!("y")), Just(json!(1))];
    let names = |all: &'static [&'static str]| {
        (Just(all.to_vec()).prop_shuffle(), 0..=all.len()).prop_map(|(mut v, n)| {
            v.truncate(n);
            v
        })
    };
    let env = (names(&["A", "B", "C"]), scalar())
        .prop_map(|(n, v)| n.iter().map(|n| json!({"name": n, "value": v})).collect::<Vec<_>>());
    let containers = names(&["a", "b", "c", "d"]).prop_flat_map(move |names| {
        let n = names.len();
        (Just(names), prop::collection::vec((env.clone(), scalar()), n)).prop_map(|(names, rest)| {
            names
                .iter()
                .zip(rest)
                .map(|(n, (env, image))| json!({"name": n, "env": env, "image": image}))
                .collect::<Vec<_>>()
        })
    });
    let volumes = names(&["v", "w"]).prop_flat_map(move |names| {
        let n = names.len();
        let source = prop_oneof![Just("emptyDir"), Just("hostPath")];
        (Just(names), prop::collection::vec(source, n)).prop_map(|(names, sources)| {
            names.iter().zip(sources).map(|(n, s)| json!({"name": n, s: {}})).collect::<Vec<_>>()
        })
    });
    let labels =
        names(&["l", "m"]).prop_map(|n| n.iter().map(|k| ((*k).to_owned(), json!("1"))).collect::<Map<_, _>>());
    (containers, names(&["f1", "f2", "f3"]), labels, volumes, prop::collection::vec(scalar(), 0..3)).prop_map(
        |(containers, finalizers, labels, volumes, args)| {
            json!({"metadata": {"name": "p", "finalizers": finalizers, "labels": labels},
                   "spec": {"containers": containers, "volumes": volumes, "args": args}})
        },
    )
}

proptest! {
    #[test]
    fn a_diff_applied_gives_the_modified_object(original in pods(), modified in pods()) {
        let patch = two_way(POD, &original, &modified).unwrap();
        prop_assert_eq!(strategic_merge_named(POD, &original, &patch).unwrap(), modified);
    }

    #[test]
    fn a_three_way_patch_of_the_current_object_is_the_two_way_one(original in pods(), modified in pods()) {
        let patch = three_way(POD, &original, &modified, &original).unwrap();
        prop_assert_eq!(strategic_merge_named(POD, &original, &patch).unwrap(), modified);
    }

    #[test]
    fn applying_twice_changes_nothing_more(original in pods(), modified in pods(), current in pods()) {
        let patch = three_way(POD, &original, &modified, &current).unwrap();
        let applied = strategic_merge_named(POD, &current, &patch).unwrap();
        let again = three_way(POD, &modified, &modified, &applied).unwrap();
        prop_assert_eq!(strategic_merge_named(POD, &applied, &again).unwrap(), applied);
    }

    #[test]
    fn a_merge_diff_applied_gives_the_modified_object(original in pods(), modified in pods()) {
        let patch = two_way_merge(&original, &modified).unwrap();
        prop_assert_eq!(merge_patch(&original, &patch).unwrap(), modified);
    }
}
