use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

fn named(rest: Value) -> Value {
    with(json!({"metadata": {"name": "x", "creationTimestamp": "2024-05-01T11:55:00Z"}}), rest)
}

#[track_caller]
fn check<T: Resource>(object: Value, expected: &[&str]) {
    expect(&faults::<T>(named(object)), expected);
}

#[test]
fn rules() {
    let rules = |rules: Value| json!({ "rules": rules });
    let resources = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
    check::<Role>(rules(json!([resources])), &[]);
    check::<ClusterRole>(rules(json!([resources, {"verbs": ["get"], "nonResourceURLs": ["/a"]}])), &[]);
    check::<Role>(
        rules(json!([{"verbs": []}, {"verbs": ["get"], "nonResourceURLs": ["/a"], "resourceNames": ["b"]}])),
        &[
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
            "rules[1].nonResourceURLs: Invalid value: [\"/a\"]: namespaced rules cannot apply to non-resource URLs",
            "rules[1].nonResourceURLs: Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs",
        ],
    );
    check::<ClusterRole>(
        json!({"aggregationRule": {}}),
        &[
            "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil",
        ],
    );
    check::<ClusterRole>(
        json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"-": "a"}}]}}),
        &["aggregationRule.clusterRoleSelectors[0].matchLabels: Invalid value: \"-\""],
    );
}

#[test]
fn bindings() {
    let binding = |rest: Value| with(json!({"roleRef": {"kind": "ClusterRole", "name": "r"}}), rest);
    let subjects = json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]);
    let made: RoleBinding = created(named(binding(json!({ "subjects": subjects }))));
    assert_eq!(made.role_ref.api_group, Some("rbac.authorization.k8s.io".to_owned()));
    let groups: Vec<_> = made.subjects.unwrap().into_iter().map(|s| s.api_group.unwrap_or_default()).collect();
    assert_eq!(groups, ["rbac.authorization.k8s.io", ""]);
    check::<RoleBinding>(binding(json!({ "subjects": subjects })), &[]);
    check::<RoleBinding>(
        json!({"roleRef": {"kind": "Pod", "name": "", "apiGroup": "a"}}),
        &[
            "roleRef.apiGroup: Unsupported value: \"a\": supported values: \"rbac.authorization.k8s.io\"",
            "roleRef.kind: Unsupported value: \"Pod\": supported values: \"Role\", \"ClusterRole\"",
            "roleRef.name: Required value",
        ],
    );
    check::<ClusterRoleBinding>(
        json!({"roleRef": {"kind": "Role", "name": "a/b"}}),
        &[
            "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
            "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
        ],
    );
    check::<ClusterRoleBinding>(
        binding(json!({"subjects": [
            {"kind": "ServiceAccount", "name": "S", "apiGroup": "a"}, {"kind": "Group", "name": "", "apiGroup": "b"},
            {"kind": "Pod", "name": "p"},
        ]})),
        &[
            "subjects[0].name: Invalid value: \"S\": a lowercase RFC 1123 subdomain",
            "subjects[0].apiGroup: Unsupported value: \"a\": supported values: \"\"",
            "subjects[0].namespace: Required value",
            "subjects[1].name: Required value",
            "subjects[1].apiGroup: Unsupported value: \"b\": supported values: \"rbac.authorization.k8s.io\"",
            "subjects[2].kind: Unsupported value: \"Pod\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
        ],
    );
    let other = named(binding(json!({"roleRef": {"name": "other"}})));
    for faults in [
        update_faults::<RoleBinding>(named(binding(json!({}))), other.clone()),
        update_faults::<ClusterRoleBinding>(named(binding(json!({}))), other),
    ] {
        expect(
            &faults,
            &[
                "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"other\"}: cannot change roleRef",
            ],
        );
    }
}

#[test]
fn rows() {
    let subjects = json!([
        {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"}, {"kind": "User", "name": "v"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
    ]);
    let binding = named(json!({"roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": subjects}));
    assert_eq!(row::<RoleBinding>(binding.clone()), "x|ClusterRole/r|5m|u, v|g|n/s");
    assert_eq!(row::<ClusterRoleBinding>(binding), "x|ClusterRole/r|5m|u, v|g|n/s");
    assert_eq!(row::<Role>(named(json!({"rules": []}))), "x|2024-05-01T11:55:00Z");
    assert_eq!(row::<ClusterRole>(named(json!({"rules": []}))), "x|2024-05-01T11:55:00Z");
    let described = |columns: &[crate::table::Column]| columns.iter().map(|c| c.description).collect::<Vec<_>>();
    assert_eq!(described(RoleBinding::INFO.columns)[3], "Users in the roleBinding");
    assert_eq!(described(ClusterRoleBinding::INFO.columns)[3], "Users in the clusterRoleBinding");
}
