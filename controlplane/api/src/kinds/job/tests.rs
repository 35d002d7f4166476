use k8s_openapi::api::batch::v1::Job;
use serde_json::{Value, json};

use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

fn job(spec: Value) -> Value {
    let base = json!({
        "metadata": {"name": "j", "namespace": "n", "uid": "u", "creationTimestamp": "2024-05-01T11:55:00Z"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}},
    });
    with(base, json!({ "spec": spec }))
}

#[test]
fn a_new_job_has_defaults_and_a_selector() {
    let made: Job = created(job(json!({})));
    let spec = serde_json::to_value(made.spec.unwrap()).unwrap();
    let labels = json!({"controller-uid": "u", "job-name": "j", "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
    assert_eq!(spec["template"]["metadata"]["labels"], labels);
    assert_eq!(spec["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    for (field, value) in [
        ("completions", json!(1)),
        ("parallelism", json!(1)),
        ("backoffLimit", json!(6)),
        ("suspend", json!(false)),
        ("completionMode", json!("NonIndexed")),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
}

#[test]
fn new_jobs() {
    #[track_caller]
    fn check(spec: Value, expected: &[&str]) {
        expect(&faults::<Job>(job(spec)), expected);
    }
    check(json!({}), &[]);
    check(
        json!({"template": {"spec": {"restartPolicy": null}}}),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    check(json!({"parallelism": -1}), &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"]);
    check(
        json!({"completionMode": "Indexed", "parallelism": 100001, "maxFailedIndexes": 1}),
        &[
            "spec.completions: Required value: when completion mode is Indexed",
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        ],
    );
    check(
        json!({"podFailurePolicy": {"rules": [{"action": "Retry"}]}, "template": {"spec": {"restartPolicy": "OnFailure"}}}),
        &[
            "spec.podFailurePolicy.rules[0].action: Unsupported value: \"Retry\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            "spec.podFailurePolicy.rules[0]: Invalid value: {\"action\":\"Retry\"}: specifying one of OnExitCodes and OnPodConditions is required",
            "spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified",
        ],
    );
}

#[test]
fn changed_jobs() {
    let old = serde_json::to_value(created::<Job>(job(json!({})))).unwrap();
    let change = |spec: Value| update_faults::<Job>(old.clone(), with(old.clone(), json!({ "spec": spec })));
    expect(&change(json!({"parallelism": 3, "suspend": true})), &[]);
    expect(&change(json!({"completions": 2})), &["spec.completions: Invalid value: 2: field is immutable"]);
    expect(
        &change(json!({"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}})),
        &["spec.template: Invalid value: {"],
    );
}

#[test]
fn rows() {
    let status = |status: Value| row::<Job>(with(job(json!({"completions": 2})), json!({ "status": status })));
    assert_eq!(status(json!({"startTime": "2024-05-01T11:59:00Z"})), "j|Running|0/2|60s|5m|c|i:1|<none>");
    assert_eq!(
        status(json!({"succeeded": 2, "startTime": "2024-05-01T11:55:00Z", "completionTime": "2024-05-01T11:55:09Z",
            "conditions": [{"type": "Complete", "status": "True"}]})),
        "j|Complete|2/2|9s|5m|c|i:1|<none>"
    );
}
