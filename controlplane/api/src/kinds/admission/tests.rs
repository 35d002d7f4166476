use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::kinds::testing::{created, expect, faults, row, status_faults, with};

fn named(rest: Value) -> Value {
    with(json!({"metadata": {"name": "p", "creationTimestamp": "2024-05-01T11:55:00Z"}}), rest)
}

fn rule() -> Value {
    json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]})
}

fn webhook(patch: Value) -> Value {
    let base = json!({
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}}, "rules": [rule()],
    });
    with(base, patch)
}

/// The faults of a webhook are the same for both kinds of configuration.
#[track_caller]
fn check_webhook(patch: Value, expected: &[&str]) {
    let configuration = named(json!({"webhooks": [webhook(patch)]}));
    expect(&faults::<ValidatingWebhookConfiguration>(configuration.clone()), expected);
    expect(&faults::<MutatingWebhookConfiguration>(configuration), expected);
}

#[test]
fn webhooks_have_defaults() {
    fn webhook_of<T: Resource>() -> Value {
        let made: T = created(named(json!({"webhooks": [webhook(json!({}))]})));
        serde_json::to_value(made).unwrap()["webhooks"][0].clone()
    }
    let common = json!({
        "failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {},
        "timeoutSeconds": 10, "rules": [with(rule(), json!({"scope": "*"}))],
        "clientConfig": {"service": {"name": "s", "namespace": "n", "port": 443}},
    });
    let expected = webhook(common);
    assert_eq!(webhook_of::<ValidatingWebhookConfiguration>(), expected);
    let mutating = with(expected, json!({"reinvocationPolicy": "Never"}));
    assert_eq!(webhook_of::<MutatingWebhookConfiguration>(), mutating);
}

#[test]
fn webhooks() {
    check_webhook(json!({}), &[]);
    check_webhook(json!({"name": ""}), &["webhooks[0].name: Required value"]);
    check_webhook(
        json!({"name": "a.b", "failurePolicy": "Maybe", "matchPolicy": "Roughly", "sideEffects": "Some", "timeoutSeconds": 31}),
        &[
            "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            "webhooks[0].failurePolicy: Unsupported value: \"Maybe\": supported values: \"Fail\", \"Ignore\"",
            "webhooks[0].matchPolicy: Unsupported value: \"Roughly\": supported values: \"Equivalent\", \"Exact\"",
            "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ],
    );
    check_webhook(
        json!({"sideEffects": "", "admissionReviewVersions": [], "clientConfig": {"url": "https://a", "service": null}, "objectSelector": {"matchLabels": {"-": "a"}}}),
        &[
            "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
            "webhooks[0].objectSelector.matchLabels: Invalid value: \"-\"",
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ],
    );
    check_webhook(
        json!({"admissionReviewVersions": ["v2", "v2", "V"], "clientConfig": {"service": null}}),
        &[
            "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
            "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
            "webhooks[0].admissionReviewVersions[2]: Invalid value: \"V\": a DNS-1035 label",
            "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\",\"V\"]: must include at least one of v1, v1beta1",
        ],
    );
    let twice = named(json!({"webhooks": [webhook(json!({})), webhook(json!({}))]}));
    let duplicate = ["webhooks[1].name: Duplicate value: \"a.example.com\""];
    expect(&faults::<ValidatingWebhookConfiguration>(twice.clone()), &duplicate);
    assert_eq!(row::<ValidatingWebhookConfiguration>(twice.clone()), "p|2|5m");
    assert_eq!(row::<MutatingWebhookConfiguration>(twice), "p|2|5m");
    let again = named(json!({"webhooks": [webhook(json!({"reinvocationPolicy": "Often"}))]}));
    expect(
        &faults::<MutatingWebhookConfiguration>(again),
        &["webhooks[0].reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\""],
    );
}

#[test]
fn webhooks_are_called_by_url_or_service() {
    let url = |url: &str, expected: &[&str]| {
        check_webhook(json!({"clientConfig": {"service": null, "url": url}}), expected);
    };
    let at = "webhooks[0].clientConfig.url";
    let form = "; desired format: https://host[/path]";
    url("https://host:8443/path", &[]);
    url(
        "http://u:p@/x?q#f",
        &[
            &format!("{at}: Invalid value: \"http\": 'https' is the only allowed URL scheme{form}"),
            &format!("{at}: Invalid value: \"\": host must be specified{form}"),
            &format!("{at}: Invalid value: \"u:p\": user information is not permitted in the URL"),
            &format!("{at}: Invalid value: \"f\": fragments are not permitted in the URL"),
            &format!("{at}: Invalid value: \"q\": query parameters are not permitted in the URL"),
        ],
    );
    let start = format!("{at}: Required value: url must be a valid URL: parse");
    url(":a", &[&format!("{start} \":a\": missing protocol scheme{form}")]);
    url("https://a:b", &[&format!("{start} \"https://a:b\": invalid port \":b\" after host{form}")]);
    url("https://a b", &[&format!("{start} \"https://a b\": invalid character \" \" in host name{form}")]);

    let service = |patch: Value, expected: &[&str]| {
        check_webhook(json!({"clientConfig": {"service": patch}}), expected);
    };
    let at = "webhooks[0].clientConfig.service";
    service(json!({"path": "/a/b/"}), &[]);
    service(
        json!({"name": "", "namespace": "", "port": 70000, "path": "a"}),
        &[
            &format!("{at}.name: Required value"),
            &format!("{at}.namespace: Required value"),
            &format!("{at}.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive"),
            &format!("{at}.path: Invalid value: \"a\": must start with a '/'"),
            &format!("{at}.path: Invalid value: \"a\": segment[0] may not be empty"),
        ],
    );
    service(json!({"path": "//"}), &[&format!("{at}.path: Invalid value: \"//\": segment[0] may not be empty")]);
    service(
        json!({"path": "/a//B"}),
        &[
            &format!("{at}.path: Invalid value: \"/a//B\": segment[1] may not be empty"),
            &format!("{at}.path: Invalid value: \"/a//B\": segment[2]: a lowercase RFC 1123 subdomain"),
        ],
    );
}

#[test]
fn rules() {
    let check = |patch: Value, expected: &[&str]| check_webhook(json!({"rules": [with(rule(), patch)]}), expected);
    check(
        json!({"apiGroups": [], "apiVersions": [], "operations": [], "resources": [], "scope": "Galaxy"}),
        &[
            "webhooks[0].rules[0].operations: Required value",
            "webhooks[0].rules[0].apiGroups: Required value",
            "webhooks[0].rules[0].apiVersions: Required value",
            "webhooks[0].rules[0].resources: Required value",
            "webhooks[0].rules[0].scope: Unsupported value: \"Galaxy\": supported values: \"*\", \"Cluster\", \"Namespaced\"",
        ],
    );
    check(
        json!({"apiGroups": ["*", ""], "apiVersions": ["*", ""], "operations": ["*", "READ"]}),
        &[
            "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
            "webhooks[0].rules[0].operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\"",
            "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API groups",
            "webhooks[0].rules[0].apiVersions: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API versions",
            "webhooks[0].rules[0].apiVersions[1]: Required value",
        ],
    );
    for (resources, expected) in [
        (json!(["pods", "pods/log", "*/scale"]), vec![]),
        (json!(["*", "*/scale"]), vec![]),
        (json!([""]), vec!["webhooks[0].rules[0].resources[0]: Required value"]),
        (
            json!(["pods/*", "pods/log"]),
            vec![
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/log\": if 'pods/*' is present, must not specify pods/log",
            ],
        ),
        (
            json!(["*/scale", "a/scale"]),
            vec![
                "webhooks[0].rules[0].resources[1]: Invalid value: \"a/scale\": if '*/scale' is present, must not specify a/scale",
            ],
        ),
        (
            json!(["*/*", "a"]),
            vec![
                "webhooks[0].rules[0].resources: Invalid value: [\"*/*\",\"a\"]: if '*/*' is present, must not specify other resources",
            ],
        ),
        (
            json!(["*", "a"]),
            vec![
                "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources",
            ],
        ),
    ] {
        check(json!({ "resources": resources }), &expected);
    }
}

#[test]
fn match_conditions() {
    let one = |name: &str| json!({"name": name, "expression": "true"});
    let many: Vec<Value> = (0..65).map(|i| one(&format!("c{i}"))).collect();
    check_webhook(
        json!({"matchConditions": many}),
        &["webhooks[0].matchConditions: Too many: 65: must have at most 64 items"],
    );
    check_webhook(
        json!({"matchConditions": [one("a"), one("a"), {"name": "", "expression": " "}, one("-")]}),
        &[
            "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
            "webhooks[0].matchConditions[2].expression: Required value",
            "webhooks[0].matchConditions[2].name: Required value",
            "webhooks[0].matchConditions[3].name: Invalid value: \"-\": name part must consist",
        ],
    );
}

fn policy(patch: Value) -> Value {
    let base = json!({"matchConstraints": {"resourceRules": [rule()]}, "validations": [{"expression": "true"}]});
    named(json!({"spec": with(base, patch)}))
}

fn mutating(patch: Value) -> Value {
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}});
    let base = json!({"reinvocationPolicy": "Never", "validations": null, "mutations": [mutation]});
    policy(with(base, patch))
}

#[track_caller]
fn check_policy(patch: Value, expected: &[&str]) {
    expect(&faults::<ValidatingAdmissionPolicy>(policy(patch)), expected);
}

#[test]
fn policies() {
    let made: ValidatingAdmissionPolicy = created(policy(json!({})));
    let spec = serde_json::to_value(made.spec.unwrap()).unwrap();
    assert_eq!(spec["failurePolicy"], "Fail");
    let matched = json!({"matchPolicy": "Equivalent", "namespaceSelector": {}, "objectSelector": {}, "resourceRules": [with(rule(), json!({"scope": "*"}))]});
    assert_eq!(spec["matchConstraints"], matched);
    check_policy(json!({}), &[]);
    check_policy(
        json!({"failurePolicy": "Never", "matchConstraints": null, "validations": []}),
        &[
            "spec.failurePolicy: Unsupported value: \"Never\": supported values: \"Fail\", \"Ignore\"",
            "spec.matchConstraints: Required value",
            "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
            "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
        ],
    );
    let named_rule = with(rule(), json!({"resourceNames": ["a/b", "c", "c"]}));
    check_policy(
        json!({"matchConstraints": {"matchPolicy": "X", "resourceRules": [], "excludeResourceRules": [named_rule]}}),
        &[
            "spec.matchConstraints.matchPolicy: Unsupported value: \"X\"",
            "spec.matchConstraints.excludeResourceRules[0].resourceNames[0]: Invalid value: \"a/b\": may not contain '/'",
            "spec.matchConstraints.excludeResourceRules[0].resourceNames[2]: Duplicate value: \"c\"",
            "spec.matchConstraints.resourceRules: Required value",
        ],
    );
    check_policy(
        json!({"variables": [{"name": " ", "expression": ""}, {"name": "in", "expression": "1"}, {"name": "a-b", "expression": "1"}]}),
        &[
            "spec.variables[0].name: Required value: name is not specified",
            "spec.variables[0].expression: Required value: expression is not specified",
            "spec.variables[1].name: Invalid value: \"in\": name is not a valid CEL identifier",
            "spec.variables[2].name: Invalid value: \"a-b\": name is not a valid CEL identifier",
        ],
    );
    check_policy(
        json!({"validations": [{"expression": " ", "message": " ", "messageExpression": " ", "reason": "Bored"}, {"expression": "true", "message": "a\nb"}]}),
        &[
            "spec.validations[0].expression: Required value: expression is not specified",
            "spec.validations[0].messageExpression: Invalid value: \" \": must be non-empty if specified",
            "spec.validations[0].message: Invalid value: \" \": message must be non-empty if specified",
            "spec.validations[0].reason: Unsupported value: \"Bored\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            "spec.validations[1].message: Invalid value: \"a\\nb\": message must not contain line breaks",
        ],
    );
}

#[test]
fn parameters_and_audits() {
    for (kind, expected) in [
        (json!({"apiVersion": "v1", "kind": "ConfigMap"}), vec![]),
        (json!({}), vec!["spec.paramKind.apiVersion: Required value", "spec.paramKind.kind: Required value"]),
        (
            json!({"apiVersion": "a/b/c", "kind": "1"}),
            vec![
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Invalid value: \"1\": may have mixed case, but should otherwise match: a DNS-1035 label",
            ],
        ),
        (
            json!({"apiVersion": "A/", "kind": "K"}),
            vec![
                "spec.paramKind.apiVersion: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
                "spec.paramKind.apiVersion: Invalid value: \"A/\": version must be specified",
            ],
        ),
        (
            json!({"apiVersion": "a/1", "kind": "K"}),
            vec!["spec.paramKind.apiVersion: Invalid value: \"1\": a DNS-1035 label"],
        ),
    ] {
        check_policy(json!({ "paramKind": kind }), &expected);
    }
    let long = "x".repeat(5 * 1024 + 1);
    check_policy(
        json!({"auditAnnotations": [{"key": "a", "valueExpression": ""}, {"key": "a", "valueExpression": long}, {"key": "a/b", "valueExpression": "'v'"}]}),
        &[
            "spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified",
            "spec.auditAnnotations[1].valueExpression: Required value: must not exceed 5120 bytes in length",
            "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
            "spec.auditAnnotations[2].key: Invalid value: \"p/a/b\": a qualified name must consist",
        ],
    );
    let audits: Vec<Value> = (0..21).map(|i| json!({"key": format!("k{i}"), "valueExpression": "'v'"})).collect();
    let faults = faults::<ValidatingAdmissionPolicy>(policy(json!({ "auditAnnotations": audits })));
    assert!(faults[0].ends_with("must not have more than 20 auditAnnotations"), "{faults:?}");
    expect(
        &status_faults::<ValidatingAdmissionPolicy>(
            policy(json!({})),
            json!({"typeChecking": {"expressionWarnings": [{"fieldRef": " ", "warning": ""}]}, "conditions": [{"type": "A", "status": "Yes", "reason": "R", "message": "", "lastTransitionTime": "2024-05-01T11:55:00Z"}]}),
        ),
        &[
            "status.typeChecking.expressionWarnings[0].warning: Required value",
            "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
            "status.conditions[0].status: Unsupported value: \"Yes\"",
        ],
    );
}

#[test]
fn mutating_policies() {
    #[track_caller]
    fn check(patch: Value, expected: &[&str]) {
        expect(&faults::<MutatingAdmissionPolicy>(mutating(patch)), expected);
    }
    check(json!({}), &[]);
    check(
        json!({"mutations": [], "reinvocationPolicy": null, "matchConstraints": {"resourceRules": [with(rule(), json!({"operations": ["DELETE"]}))]}}),
        &[
            "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
            "spec.mutations: Required value: mutations must contain at least one item",
            "spec.reinvocationPolicy: Required value",
        ],
    );
    check(
        json!({"reinvocationPolicy": "Often", "mutations": [{"patchType": ""}, {"patchType": "X"}, {"patchType": "JSONPatch", "applyConfiguration": {"expression": "a"}}, {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": " "}}]}),
        &[
            "spec.mutations[0].patchType: Required value",
            "spec.mutations[1].patchType: Unsupported value: \"X\": supported values: \"ApplyConfiguration\", \"JSONPatch\"",
            "spec.mutations[2].jsonPatch: Required value: must be specified when patchType is JSONPatch",
            "spec.mutations[2].applyConfiguration: Invalid value: {\"expression\":\"a\"}: must not be specified when patchType is JSONPatch",
            "spec.mutations[3].applyConfiguration.expression: Required value",
            "spec.reinvocationPolicy: Unsupported value: \"Often\": supported values: \"IfNeeded\", \"Never\"",
        ],
    );
    let params = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}});
    assert_eq!(row::<MutatingAdmissionPolicy>(mutating(json!({}))), "p|1|<unset>|5m");
    assert_eq!(row::<ValidatingAdmissionPolicy>(policy(params)), "p|1|v1/ConfigMap|5m");
}

#[test]
fn bindings() {
    let binding = |patch: Value| {
        let base = json!({"policyName": "q", "validationActions": ["Deny"]});
        named(json!({"spec": with(base, patch)}))
    };
    let check = |patch: Value, expected: &[&str]| {
        expect(&faults::<ValidatingAdmissionPolicyBinding>(binding(patch)), expected);
    };
    check(json!({}), &[]);
    check(
        json!({"policyName": "", "paramRef": {}, "validationActions": []}),
        &[
            "spec.policyName: Required value",
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Required value",
            "spec.validationActions: Required value: at least one validation action is required",
        ],
    );
    check(
        json!({"policyName": "Q", "paramRef": {"name": "a/b", "selector": {}, "parameterNotFoundAction": "Wait"}, "validationActions": ["Deny", "Warn", "Warn", "Log"]}),
        &[
            "spec.policyName: Invalid value: \"Q\": a lowercase RFC 1123 subdomain",
            "spec.paramRef.name: Invalid value: \"a/b\": may not contain '/'",
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.parameterNotFoundAction: Unsupported value: \"Wait\": supported values: \"Deny\", \"Allow\"",
            "spec.validationActions[2]: Duplicate value: \"Warn\"",
            "spec.validationActions[3]: Unsupported value: \"Log\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\",\"Log\"]: must not contain both Deny and Warn",
        ],
    );
    let deletes = with(rule(), json!({"operations": ["DELETE"]}));
    expect(
        &faults::<MutatingAdmissionPolicyBinding>(binding(
            json!({"validationActions": null, "matchResources": {"resourceRules": [deletes]}}),
        )),
        &["spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\""],
    );
    for (params, shown) in [
        (json!(null), "<unset>"),
        (json!({"name": "a"}), "*/a"),
        (json!({"name": "a", "namespace": "n"}), "n/a"),
        (
            json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]}}),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:c,Operator:In,Values:[d e],},},}",
        ),
    ] {
        let line = format!("p|q|{shown}|5m");
        let binding = binding(json!({ "paramRef": params }));
        assert_eq!(row::<ValidatingAdmissionPolicyBinding>(binding.clone()), line);
        assert_eq!(row::<MutatingAdmissionPolicyBinding>(binding), line);
    }
}
