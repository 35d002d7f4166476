use k8s_openapi::api::resource::v1::ResourceSlice;
use serde_json::{Value, json};

use crate::kind::Resource as _;
use crate::kinds::testing::{created, expect, faults, row, update_faults, with};

fn slice(patch: Value) -> Value {
    let spec = json!({"driver": "d.example.com", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}, "nodeName": "n"});
    json!({"metadata": {"name": "s", "creationTimestamp": "2024-05-01T11:55:00Z"}, "spec": with(spec, patch)})
}

#[track_caller]
fn check(patch: Value, expected: &[&str]) {
    expect(&faults::<ResourceSlice>(slice(patch)), expected);
}

#[track_caller]
fn check_device(patch: Value, expected: &[&str]) {
    check(json!({"devices": [with(json!({"name": "g"}), patch)]}), expected);
}

#[test]
fn slices() {
    let taints = json!([{"key": "k", "effect": "NoSchedule"}]);
    let mapping = json!({"cpu": {}});
    let made: ResourceSlice = created(slice(
        json!({"devices": [{"name": "g", "taints": taints, "nodeAllocatableResourceMappings": mapping}]}),
    ));
    let device = serde_json::to_value(&made.spec.devices.as_ref().unwrap()[0]).unwrap();
    assert_eq!(device["taints"][0]["timeAdded"], "2024-05-01T11:55:00Z");
    assert_eq!(device["nodeAllocatableResourceMappings"]["cpu"]["allocationMultiplier"], "1");
    assert_eq!(
        (made.selectable_field("spec.driver"), made.selectable_field("spec.nodeName")),
        ("d.example.com".into(), "n".into())
    );
    assert_eq!(row::<ResourceSlice>(slice(json!({}))), "s|n|d.example.com|p|5m");
    assert_eq!(row::<ResourceSlice>(slice(json!({"nodeName": null}))), "s|null|d.example.com|p|5m");
    check(json!({}), &[]);
    check(
        json!({"driver": "", "pool": {"name": "", "generation": -1, "resourceSliceCount": 0}, "nodeName": null}),
        &[
            "spec.driver: Required value",
            "spec.pool.name: Required value",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required",
        ],
    );
    check(
        json!({"nodeName": "", "allNodes": false, "perDeviceNodeSelection": true, "nodeSelector": {"nodeSelectorTerms": []}}),
        &[
            "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string",
            "spec.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term",
            "spec.nodeSelector.nodeSelectorTerms: Invalid value: []: must have exactly one node selector term",
            "spec.allNodes: Invalid value: false: must be either unset or set to true",
            "spec: Invalid value: \"{`nodeSelector`, `perDeviceNodeSelection`}\": exactly one of",
        ],
    );
    check(
        json!({"devices": [], "sharedCounters": [{"name": "c", "counters": {"m": {"value": "1"}}}, {"name": "c", "counters": {}}, {"name": "", "counters": {"M": {"value": "1"}}}]}),
        &[
            "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
            "spec.sharedCounters[1].counters: Required value",
            "spec.sharedCounters[2].name: Required value",
            "spec.sharedCounters[2].counters: Invalid value: \"M\"",
            "spec.sharedCounters[1]: Duplicate value: \"c\"",
        ],
    );
    let many = |device: Value| -> Vec<Value> {
        (0..129).map(|i| with(device.clone(), json!({"name": format!("g{i}")}))).collect()
    };
    check(json!({"devices": many(json!({}))}), &["spec.devices: Too many: 129: must have at most 128 items"]);
    let counted = json!({"consumesCounters": [{"counterSet": "c", "counters": {"m": {"value": "1"}}}]});
    check(json!({"devices": many(counted)}), &["spec.devices: Too many: 129: must have at most 64 items"]);
    expect(
        &update_faults::<ResourceSlice>(
            slice(json!({})),
            slice(json!({"driver": "e.example.com", "nodeName": "m", "pool": {"name": "q"}})),
        ),
        &[
            "spec.pool.name: Invalid value: \"q\": field is immutable",
            "spec.driver: Invalid value: \"e.example.com\": field is immutable",
            "spec.nodeName: Invalid value: \"m\": field is immutable",
        ],
    );
}

#[test]
fn attributes() {
    let at = "spec.devices[0].attributes";
    let check = |value: Value, expected: &[&str]| check_device(json!({"attributes": {"a": value}}), expected);
    check(json!({"version": "1.2.3-rc.1+x"}), &[]);
    check(json!({"strings": ["a"]}), &[]);
    check(json!({}), &[&format!("{at}[a]: Invalid value: \"\": exactly one value must be specified")]);
    check(
        json!({"int": 1, "bool": true}),
        &[&format!("{at}[a]: Invalid value: {{\"bool\":true,\"int\":1}}: exactly one value must be specified")],
    );
    check(json!({"ints": []}), &[&format!("{at}[a].ints: Invalid value: []: must not be empty if specified")]);
    let long = "x".repeat(65);
    check(json!({"string": long}), &[&format!("{at}[a].string: Too long: may not be more than 64 bytes")]);
    for bad in ["1.2", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "v1.2.3"] {
        let why =
            format!("{at}[a].version: Invalid value: {bad:?}: must be a string compatible with semver.org spec 2.0.0");
        check(json!({"version": bad}), &[&why]);
    }
    check_device(
        json!({"attributes": {"1a": {"int": 1}}}),
        &[&format!("{at}: Invalid value: \"1a\": a valid C identifier must start with")],
    );
    let names = |count: usize| -> Value {
        (0..count).map(|i| (format!("a{i:02}"), json!({"int": 1}))).collect::<serde_json::Map<_, _>>().into()
    };
    check_device(
        json!({"attributes": names(33)}),
        &["spec.devices[0]: Invalid value: 33: the total number of attributes and capacities must not exceed 32"],
    );
    check(
        json!({"ints": (0..49).collect::<Vec<_>>()}),
        &["spec.devices[0]: Invalid value: 49: the total number of attribute values must not exceed 48"],
    );
}

#[test]
fn capacities() {
    let at = "spec.devices[0].capacity[c].requestPolicy";
    let check = |policy: Value, expected: &[&str]| {
        let capacity = json!({"c": {"value": "10", "requestPolicy": policy}});
        check_device(json!({"allowMultipleAllocations": true, "capacity": capacity}), expected);
    };
    check_device(
        json!({"capacity": {"c": {"value": "1", "requestPolicy": {}}}}),
        &[&format!("{at}: Forbidden: allowMultipleAllocations must be true")],
    );
    check(json!({"default": "2", "validValues": ["1", "2"]}), &[]);
    check(json!({"default": "2", "validRange": {"min": "1", "max": "9", "step": "1"}}), &[]);
    check(
        json!({"validValues": ["1"], "validRange": {"min": "1"}}),
        &[&format!(
            "{at}: Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\""
        )],
    );
    check(
        json!({"validValues": ["1"]}),
        &[&format!("{at}.default: Required value: required when validValues is defined")],
    );
    check(
        json!({"validRange": {"min": "1"}}),
        &[&format!("{at}.default: Required value: required when validRange is defined")],
    );
    check(
        json!({"default": "3", "validValues": ["20", "1", "1"]}),
        &[
            &format!("{at}.validValues[1]: Invalid value: \"1\": values must be sorted in ascending order"),
            &format!("{at}.validValues[0]: Invalid value: \"20\": option is larger than capacity value: 10"),
            &format!("{at}.validValues[2]: Duplicate value: \"1\""),
            &format!(
                "{at}.validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy"
            ),
        ],
    );
    check(
        json!({"default": "1", "validRange": {"min": "12", "max": "11", "step": "0"}}),
        &[
            &format!("{at}.validRange.min: Invalid value: \"12\": min is larger than capacity value: 10"),
            &format!("{at}.validRange.default: Invalid value: \"1\": default is less than min: 12"),
            &format!("{at}.validRange.max: Invalid value: \"12\": min is larger than max: 11"),
            &format!("{at}.validRange.max: Invalid value: \"11\": max is larger than capacity value: 10"),
            &format!("{at}.validRange.step: Invalid value: \"0\": must be greater than zero"),
        ],
    );
    check(
        json!({"default": "4", "validRange": {"min": "1", "max": "3", "step": "10"}}),
        &[
            &format!("{at}.validRange.default: Invalid value: \"4\": default is more than max: 3"),
            &format!("{at}.validRange.step: Invalid value: \"10\": one step 11 is larger than capacity value: 10"),
            &format!(
                "{at}.validRange.step: Invalid value: \"4\": value is not a multiple of a given step (10) from (1)"
            ),
            &format!(
                "{at}.validRange.step: Invalid value: \"3\": value is not a multiple of a given step (10) from (1)"
            ),
        ],
    );
}

#[test]
fn taints_counters_places_and_bindings() {
    check_device(
        json!({"taints": [{"key": "", "value": "-", "effect": ""}, {"key": "k", "effect": "Never"}]}),
        &[
            "spec.devices[0].taints[0].key: Invalid value: \"\": name part must be non-empty",
            "spec.devices[0].taints[0].key: Invalid value: \"\": name part must consist",
            "spec.devices[0].taints[0].value: Invalid value: \"-\"",
            "spec.devices[0].taints[0].effect: Required value",
            "spec.devices[0].taints[1].effect: Unsupported value: \"Never\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
        ],
    );
    check_device(
        json!({"consumesCounters": [{"counterSet": "", "counters": {}}, {"counterSet": "c", "counters": {"m": {"value": "1"}}}, {"counterSet": "d", "counters": {}}]}),
        &["spec.devices[0].consumesCounters: Too many: 3: must have at most 2 items"],
    );
    check_device(
        json!({"nodeName": "n"}),
        &["spec.devices[0]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if"],
    );
    let each = |device: Value, expected: &[&str]| {
        check(
            json!({"nodeName": null, "perDeviceNodeSelection": true, "devices": [with(json!({"name": "g"}), device)]}),
            expected,
        );
    };
    each(json!({"nodeName": "n"}), &[]);
    each(
        json!({}),
        &["spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when"],
    );
    each(
        json!({"nodeName": "n", "allNodes": true}),
        &["spec.devices[0]: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of `nodeName`"],
    );
    check_device(
        json!({"bindingConditions": ["a", "a"], "bindingFailureConditions": ["a"]}),
        &[
            "spec.devices[0].bindingConditions[1]: Duplicate value: \"a\"",
            "spec.devices[0].bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with bindingConditions",
        ],
    );
    check_device(
        json!({"bindingFailureConditions": ["a"]}),
        &[
            "spec.devices[0].bindingConditions: Invalid value: []: bindingConditions are required to use bindingFailureConditions",
        ],
    );
    check_device(
        json!({"nodeAllocatableResourceMappings": {"cpu": {"capacityKey": "x", "allocationMultiplier": "0"}, "example.com/gpu": {"capacityKey": ""}}}),
        &[
            "spec.devices[0].nodeAllocatableResourceMappings[cpu].capacityKey: Not found: \"x\"",
            "spec.devices[0].nodeAllocatableResourceMappings[cpu].allocationMultiplier: Invalid value: \"0\": must be positive",
            "spec.devices[0].nodeAllocatableResourceMappings[example.com/gpu]: Invalid value: \"example.com/gpu\": must be a node allocatable resource name",
            "spec.devices[0].nodeAllocatableResourceMappings[example.com/gpu].capacityKey: Invalid value: \"\": capacityKey must not be an empty string",
        ],
    );
}
