use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate};
use serde_json::{Value, json};

use crate::kinds::testing::{created, expect, faults, row, status_faults, update_faults, with};

fn claim(devices: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"devices": devices}})
}

fn request(name: &str) -> Value {
    json!({"name": name, "exactly": {"deviceClassName": "gpu"}})
}

fn class(spec: Value) -> Value {
    json!({"metadata": {"name": "c", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": spec})
}

#[track_caller]
fn check(devices: Value, expected: &[&str]) {
    expect(&faults::<ResourceClaim>(claim(devices.clone())), expected);
    // A template has the same rules below another path.
    let template = json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {"spec": {"devices": devices}}});
    let expected: Vec<String> = expected.iter().map(|e| format!("spec.{e}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    expect(&faults::<ResourceClaimTemplate>(template), &expected);
}

#[test]
fn a_request_is_for_one_device_if_it_says_no_more() {
    let one_of = json!([{"name": "a", "deviceClassName": "gpu", "allocationMode": "All"}, {"name": "b", "deviceClassName": "gpu"}]);
    let tolerant = with(request("r"), json!({"exactly": {"tolerations": [{"key": "k"}]}}));
    let made: ResourceClaim = created(claim(json!({"requests": [tolerant, {"name": "s", "firstAvailable": one_of}]})));
    let devices = serde_json::to_value(made.spec.devices).unwrap();
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "tolerations": [{"key": "k", "operator": "Equal"}]});
    assert_eq!(devices["requests"][0]["exactly"], exactly);
    let first = &devices["requests"][1]["firstAvailable"];
    assert_eq!(first[0], json!({"name": "a", "deviceClassName": "gpu", "allocationMode": "All"}));
    assert_eq!(first[1], json!({"name": "b", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}));
}

#[test]
fn requests() {
    check(json!({"requests": [request("r")]}), &[]);
    check(
        json!({"requests": [{"name": "R"}, with(request("r"), json!({"firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]})), request("r")]}),
        &[
            "spec.devices.requests[0].name: Invalid value: \"R\": a lowercase RFC 1123 label",
            "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.requests[1]: Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, but multiple",
            "spec.devices.requests[2]: Duplicate value: \"r\"",
        ],
    );
    let exactly = |patch: Value, expected: &[&str]| {
        check(json!({"requests": [with(request("r"), json!({"exactly": patch}))]}), expected);
    };
    let at = "spec.devices.requests[0].exactly";
    exactly(
        json!({"deviceClassName": "", "allocationMode": "All", "count": 2, "selectors": [{}, {"cel": {"expression": "x".repeat(10 * 1024 + 1)}}]}),
        &[
            &format!("{at}.deviceClassName: Required value"),
            &format!("{at}.selectors[0].cel: Required value"),
            &format!("{at}.selectors[1].cel.expression: Too long: may not be more than 10240 bytes"),
            &format!("{at}.count: Invalid value: 2: must not be specified when allocationMode is 'All'"),
        ],
    );
    exactly(
        json!({"deviceClassName": "G", "count": -1}),
        &[
            &format!("{at}.deviceClassName: Invalid value: \"G\""),
            &format!("{at}.count: Invalid value: -1: must be greater than zero"),
        ],
    );
    exactly(
        json!({"allocationMode": "Some", "tolerations": [{"key": "-", "operator": "Exists", "value": "v", "effect": "Never"}, {"operator": "Like"}]}),
        &[
            &format!("{at}.allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\""),
            &format!("{at}.tolerations[0].key: Invalid value: \"-\""),
            &format!("{at}.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`"),
            &format!(
                "{at}.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\""
            ),
            &format!(
                "{at}.tolerations[1].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\""
            ),
        ],
    );
    let many: Vec<Value> = (0..33).map(|i| request(&format!("r{i}"))).collect();
    check(json!({ "requests": many }), &["spec.devices.requests: Too many: 33: must have at most 32 items"]);
    let nine: Vec<Value> = (0..9).map(|i| json!({"name": format!("a{i}"), "deviceClassName": "gpu"})).collect();
    check(
        json!({"requests": [{"name": "r", "firstAvailable": nine}]}),
        &["spec.devices.requests[0].firstAvailable: Too many: 9: must have at most 8 items"],
    );
}

#[test]
fn constraints_and_configuration() {
    let one_of = json!({"name": "s", "firstAvailable": [{"name": "a", "deviceClassName": "gpu"}]});
    let with_requests = |rest: Value| with(json!({"requests": [request("r"), one_of]}), rest);
    let good = json!({"opaque": {"driver": "d.example.com", "parameters": {"a": 1}}, "requests": ["r", "s/a"]});
    check(with_requests(json!({"config": [good], "constraints": [{"matchAttribute": "d.example.com/a"}]})), &[]);
    check(
        with_requests(json!({"constraints": [
            {"requests": ["r", "r", "x", "s/b", "a/b/c"], "matchAttribute": "a"},
            {"distinctAttribute": "/1"}, {}, {"matchAttribute": "a/b/c"},
        ]})),
        &[
            "spec.devices.constraints[0].requests[2]: Invalid value: \"x\": must be the name of a request in the claim or",
            "spec.devices.constraints[0].requests[3]: Invalid value: \"s/b\": must be the name of a request",
            "spec.devices.constraints[0].requests[4]: Invalid value: \"a/b/c\": must be the name of a request",
            "spec.devices.constraints[0].requests[1]: Duplicate value: \"r\"",
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"a\": a fully qualified name must be a domain and a name separated by a slash",
            "spec.devices.constraints[1].distinctAttribute: Invalid value: \"\": the domain must not be empty",
            "spec.devices.constraints[1].distinctAttribute: Invalid value: \"1\": a valid C identifier must start",
            "spec.devices.constraints[2]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required",
            "spec.devices.constraints[3].matchAttribute: Invalid value: \"a/b/c\": must not contain more than one slash",
        ],
    );
    let config = |opaque: Value| json!({ "opaque": opaque });
    let long = json!({"a": "x".repeat(10 * 1024)});
    check(
        with_requests(json!({"config": [
            {}, config(json!({"driver": "", "parameters": null})), config(json!({"driver": "-", "parameters": 1})),
            config(json!({"driver": "d".repeat(64), "parameters": long})),
        ]})),
        &[
            "spec.devices.config[0].opaque: Required value",
            "spec.devices.config[1].opaque.driver: Required value",
            "spec.devices.config[1].opaque.parameters: Required value",
            "spec.devices.config[2].opaque.driver: Invalid value: \"-\"",
            "spec.devices.config[2].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
            "spec.devices.config[3].opaque.driver: Too long: may not be more than 63 bytes",
            "spec.devices.config[3].opaque.parameters: Too long: may not be more than 10240 bytes",
        ],
    );
}

#[test]
fn claims_do_not_change() {
    let (old, new) = (claim(json!({"requests": [request("r")]})), claim(json!({"requests": [request("s")]})));
    expect(&update_faults::<ResourceClaim>(old.clone(), new), &["spec: Invalid value: {\"devices\":"]);
    expect(&update_faults::<ResourceClaim>(old.clone(), old), &[]);
    let template = |name: &str| json!({"metadata": {"name": "t", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": {"metadata": {"labels": {"-": ""}}, "spec": {"devices": {"requests": [request(name)]}}}});
    expect(
        &update_faults::<ResourceClaimTemplate>(template("a"), template("b")),
        &["spec.metadata.labels: Invalid value: \"-\"", "spec: Invalid value: {"],
    );
    assert_eq!(row::<ResourceClaimTemplate>(template("a")), "t|5m");
}

#[test]
fn allocations() {
    let base = claim(json!({"requests": [request("r")]}));
    let result =
        |patch: Value| with(json!({"request": "r", "driver": "d.example.com", "pool": "p/q", "device": "g0"}), patch);
    let allocation = |result: Value| json!({"devices": {"results": [result]}});
    let check =
        |status: Value, expected: &[&str]| expect(&status_faults::<ResourceClaim>(base.clone(), status), expected);
    let user = json!({"resource": "pods", "name": "p", "uid": "u"});
    let device =
        json!({"driver": "d.example.com", "pool": "p/q", "device": "g0", "networkData": {"ips": ["10.0.0.1/24"]}});
    check(json!({"allocation": allocation(result(json!({}))), "reservedFor": [user], "devices": [device]}), &[]);
    check(
        json!({"reservedFor": [user, user, {"resource": "", "name": "", "uid": ""}]}),
        &[
            "status.reservedFor[2].resource: Required value",
            "status.reservedFor[2].name: Required value",
            "status.reservedFor[2].uid: Required value",
            "status.reservedFor[1]: Duplicate value: \"u\"",
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        ],
    );
    let wild = result(
        json!({"request": "x", "driver": "", "pool": "", "device": "G", "shareID": "1", "bindingConditions": ["a"]}),
    );
    let at = "status.allocation.devices.results[0]";
    check(
        json!({"allocation": with(allocation(wild), json!({"nodeSelector": {"nodeSelectorTerms": []}}))}),
        &[
            &format!("{at}.request: Invalid value: \"x\": must be the name of a request in the claim"),
            &format!("{at}.driver: Required value"),
            &format!("{at}.pool: Required value"),
            &format!("{at}.device: Invalid value: \"G\""),
            &format!(
                "{at}.bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions"
            ),
            &format!("{at}.shareID: Invalid value: \"1\": error validating uid"),
            "status.allocation.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
        ],
    );
    let strange = with(
        device,
        json!({"device": "g1", "data": [1], "networkData": {"ips": ["10.0.0.1"], "interfaceName": "x".repeat(257)}}),
    );
    check(
        json!({"allocation": allocation(result(json!({}))), "devices": [strange]}),
        &[
            "status.devices[0]: Invalid value: \"d.example.com/p/q/g1\": must be an allocated device in the claim",
            "status.devices[0].data: Invalid value: \"<value omitted>\": must be a valid JSON object",
            "status.devices[0].networkData.interfaceName: Too long: may not be more than 256 bytes",
            "status.devices[0].networkData.ips[0]: Invalid value: \"10.0.0.1\": must be a valid address in CIDR form",
        ],
    );
    let line = |patch: Value| row::<ResourceClaim>(with(base.clone(), patch));
    assert_eq!(line(json!({})), "c|pending|5m");
    let given = json!({"status": {"allocation": {}, "reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}});
    assert_eq!(line(given.clone()), "c|allocated,reserved|5m");
    let deleted = json!({"metadata": {"deletionTimestamp": "2024-05-01T11:55:00Z"}});
    assert_eq!(line(deleted.clone()), "c|deleted|5m");
    assert_eq!(line(with(given, deleted)), "c|deleted,allocated,reserved|5m");
}

#[test]
fn classes() {
    let long = json!({"selectors": [{"cel": {"expression": "x".repeat(10 * 1024 + 1)}}]});
    expect(
        &faults::<DeviceClass>(class(with(long.clone(), json!({"extendedResourceName": "cpu", "config": [{}]})))),
        &[
            "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
            "spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes",
            "spec.config[0].opaque: Required value",
        ],
    );
    // What was stored once stays good.
    expect(&update_faults::<DeviceClass>(class(long.clone()), class(long)), &[]);
    expect(&faults::<DeviceClass>(class(json!({"extendedResourceName": "example.com/gpu"}))), &[]);
    assert_eq!(row::<DeviceClass>(class(json!({}))), "c|5m");
}
