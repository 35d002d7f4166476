use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{
    CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::kinds::testing::{created, expect, faults, row, status_faults, update_faults, with};

fn named(rest: Value) -> Value {
    with(json!({"metadata": {"name": "x", "creationTimestamp": "2024-05-01T11:55:00Z"}}), rest)
}

#[track_caller]
fn check<T: Resource>(object: Value, expected: &[&str]) {
    expect(&faults::<T>(named(object)), expected);
}

#[track_caller]
fn change<T: Resource>(old: Value, new: Value, expected: &[&str]) {
    expect(&update_faults::<T>(named(old), named(new)), expected);
}

#[track_caller]
fn line<T: Resource>(object: Value, expected: &str) {
    assert_eq!(row::<T>(named(object)), expected);
}

#[test]
fn drivers() {
    let driver = |spec: Value| json!({ "spec": spec });
    let made: CSIDriver = created(named(driver(json!({}))));
    assert_eq!(
        serde_json::to_value(&made.spec).unwrap(),
        json!({
            "attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"],
        })
    );
    check::<CSIDriver>(
        driver(json!({
            "fsGroupPolicy": "x", "volumeLifecycleModes": ["y"], "nodeAllocatableUpdatePeriodSeconds": 9,
            "tokenRequests": [
                {"audience": "a", "expirationSeconds": 599}, {"audience": "a"},
                {"audience": "b", "expirationSeconds": 4_294_967_297_i64},
            ],
        })),
        &[
            "spec.fsGroupPolicy: Unsupported value: \"x\": supported values: \"File\", \"None\", \"ReadWriteOnceWithFSType\"",
            "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.tokenRequests[2].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            "spec.volumeLifecycleModes: Unsupported value: \"y\": supported values: \"Persistent\", \"Ephemeral\"",
            "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
        ],
    );
    change::<CSIDriver>(
        driver(json!({})),
        driver(json!({"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": true})),
        &[
            "spec.attachedRequired: Invalid value: false: field is immutable",
            "spec.volumeLifecycleModes: Invalid value: [\"Ephemeral\"]: field is immutable",
        ],
    );
    let changed: CSIDriver = created(named(driver(json!({"requiresRepublish": true}))));
    assert!(CSIDriver::INFO.has_generation && Resource::spec_changed(&changed, &made));
    line::<CSIDriver>(driver(json!({})), "x|true|false|false|<unset>|false|<none>|5m");
    line::<CSIDriver>(
        driver(json!({
            "attachRequired": false, "tokenRequests": [{"audience": "a"}, {"audience": "b"}],
            "volumeLifecycleModes": ["Persistent", "Ephemeral"],
        })),
        "x|false|false|false|a,b|false|Persistent,Ephemeral|5m",
    );
}

#[test]
fn drivers_of_nodes() {
    let node = |drivers: Value| json!({"spec": {"drivers": drivers}});
    check::<CSINode>(node(json!([{"name": "D.example.com", "nodeID": "1", "topologyKeys": ["a/b"]}])), &[]);
    check::<CSINode>(
        node(json!([
            {"name": "", "nodeID": ""},
            {"name": "-", "nodeID": "n".repeat(257), "allocatable": {"count": -1}, "topologyKeys": ["", "a", "a"]},
            {"name": "d".repeat(64), "nodeID": "n"}, {"name": "-", "nodeID": "n"},
        ])),
        &[
            "spec.drivers[0].name: Required value",
            "spec.drivers[0].nodeID: Required value",
            "spec.drivers[1].name: Invalid value: \"-\": a lowercase RFC 1123 subdomain",
            "spec.drivers[1].nodeID: Invalid value: \"nnn",
            "spec.drivers[1].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
            "spec.drivers[1]: Required value",
            "spec.drivers[1]: Invalid value: \"\": name part must be non-empty",
            "spec.drivers[1]: Invalid value: \"\": name part must consist of",
            "spec.drivers[1]: Duplicate value: \"a\"",
            "spec.drivers[2].name: Too long: may not be more than 63 bytes",
            "spec.drivers[3].name: Invalid value: \"-\"",
            "spec.drivers[3].name: Duplicate value: \"-\"",
        ],
    );
    let one = |rest: Value| node(json!([with(json!({"name": "d", "nodeID": "n"}), rest)]));
    change::<CSINode>(one(json!({})), node(json!([])), &[]);
    change::<CSINode>(one(json!({})), one(json!({"allocatable": {"count": 3}})), &[]);
    change::<CSINode>(
        one(json!({})),
        one(json!({"nodeID": "m"})),
        &["spec.drivers: Invalid value: {\"name\":\"d\",\"nodeID\":\"m\"}: field is immutable"],
    );
    line::<CSINode>(one(json!({})), "x|1|5m");
}

#[test]
fn capacities() {
    check::<CSIStorageCapacity>(json!({"storageClassName": "c", "capacity": "1Gi", "nodeTopology": {}}), &[]);
    check::<CSIStorageCapacity>(
        json!({"storageClassName": "", "capacity": "-1", "nodeTopology": {"matchLabels": {"-": "a"}}}),
        &[
            "nodeTopology.matchLabels: Invalid value: \"-\"",
            "storageClassName: Invalid value: \"\": a lowercase RFC 1123 subdomain",
            "capacity: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    change::<CSIStorageCapacity>(
        json!({"storageClassName": "c"}),
        json!({"storageClassName": "d", "nodeTopology": {}, "capacity": "1"}),
        &[
            "nodeTopology: Invalid value: {}: field is immutable",
            "storageClassName: Invalid value: \"d\": field is immutable",
        ],
    );
    line::<CSIStorageCapacity>(json!({"storageClassName": "c"}), "x|c|<unset>");
    line::<CSIStorageCapacity>(json!({"storageClassName": "c", "capacity": "1Gi"}), "x|c|1Gi");
}

#[test]
fn classes() {
    let class = |rest: Value| with(json!({"provisioner": "p"}), rest);
    let made: StorageClass = created(named(class(json!({}))));
    assert_eq!(
        (made.reclaim_policy.as_deref(), made.volume_binding_mode.as_deref()),
        (Some("Delete"), Some("Immediate"))
    );
    check::<StorageClass>(class(json!({})), &[]);
    check::<StorageClass>(json!({"provisioner": ""}), &["provisioner: Required value"]);
    check::<StorageClass>(
        class(json!({"provisioner": "-", "parameters": {"": "a"}, "reclaimPolicy": "x", "volumeBindingMode": "y"})),
        &[
            "provisioner: Invalid value: \"-\": name part must consist of",
            "parameters: Invalid value: \"\": field can not be empty.",
            "reclaimPolicy: Unsupported value: \"x\": supported values: \"Delete\", \"Retain\"",
            "volumeBindingMode: Unsupported value: \"y\": supported values: \"Immediate\", \"WaitForFirstConsumer\"",
        ],
    );
    let terms = |terms: Value| class(json!({ "allowedTopologies": terms }));
    let term = |expressions: Value| json!({ "matchLabelExpressions": expressions });
    check::<StorageClass>(
        terms(json!([term(json!([{"key": "a", "values": ["b"]}])), term(json!([{"key": "a", "values": ["c"]}]))])),
        &[],
    );
    check::<StorageClass>(
        terms(json!([
            term(
                json!([{"key": "a", "values": []}, {"key": "a", "values": ["b", "b"]}, {"key": "-", "values": ["c"]}])
            ),
            term(json!([{"key": "d", "values": ["e", "f"]}])),
            term(json!([{"key": "d", "values": ["f", "e"]}])),
        ])),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
            "allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: \"b\"",
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"a\"",
            "allowedTopologies[0].matchLabelExpressions[2].key: Invalid value: \"-\"",
            "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
        ],
    );
    change::<StorageClass>(
        class(json!({})),
        json!({"provisioner": "q", "parameters": {"a": "b"}, "reclaimPolicy": "Retain", "volumeBindingMode": "WaitForFirstConsumer"}),
        &[
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ],
    );
    line::<StorageClass>(class(json!({})), "x|p|Delete|Immediate|false|5m");
    line::<StorageClass>(
        class(json!({
            "metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": true,
        })),
        "x (default)|p|Delete|Immediate|true|5m",
    );
}

#[test]
fn classes_of_attributes() {
    let class = |rest: Value| with(json!({"driverName": "d", "parameters": {"a": "b"}}), rest);
    check::<VolumeAttributesClass>(class(json!({})), &[]);
    check::<VolumeAttributesClass>(
        json!({"driverName": ""}),
        &["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"],
    );
    check::<VolumeAttributesClass>(
        class(json!({"driverName": "-", "parameters": {"": "b"}})),
        &["driverName: Invalid value: \"-\"", "parameters: Invalid value: \"\": field can not be empty."],
    );
    change::<VolumeAttributesClass>(
        class(json!({})),
        class(json!({"driverName": "e", "parameters": {"a": "c"}})),
        &[
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ],
    );
    line::<VolumeAttributesClass>(class(json!({})), "x|d|5m");
    let annotations = json!({"volumeattributesclass.alpha.kubernetes.io/is-default-class": "true"});
    line::<VolumeAttributesClass>(class(json!({"metadata": {"annotations": annotations}})), "x (default)|d|5m");
}

#[test]
fn attachments() {
    let attachment = |spec: Value| {
        let spec = with(json!({"attacher": "d", "nodeName": "n", "source": {"persistentVolumeName": "v"}}), spec);
        json!({ "spec": spec })
    };
    check::<VolumeAttachment>(attachment(json!({})), &[]);
    check::<VolumeAttachment>(
        attachment(json!({"attacher": "", "nodeName": "N", "source": {"persistentVolumeName": null}})),
        &[
            "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            "spec.nodeName: Invalid value: \"N\": a lowercase RFC 1123 subdomain",
            "spec.attacher: Required value",
        ],
    );
    check::<VolumeAttachment>(
        attachment(json!({"source": {"persistentVolumeName": ""}})),
        &[
            "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
            "spec.source.persistentVolumeName: Invalid value: \"\": a lowercase RFC 1123 subdomain",
        ],
    );
    check::<VolumeAttachment>(
        attachment(json!({"source": {"inlineVolumeSpec": {}}})),
        &["spec.source: Forbidden: must specify exactly one of inlineVolumeSpec and persistentVolumeName"],
    );
    change::<VolumeAttachment>(
        attachment(json!({})),
        attachment(json!({"nodeName": "m"})),
        &[
            "spec: Invalid value: {\"attacher\":\"d\",\"nodeName\":\"m\",\"source\":{\"persistentVolumeName\":\"v\"}}: field is immutable",
        ],
    );
    let status = |status: Value, expected: &[&str]| {
        expect(&status_faults::<VolumeAttachment>(named(attachment(json!({}))), status), expected);
    };
    status(json!({"attached": true, "attachError": {"message": "no", "errorCode": 0}}), &[]);
    status(
        json!({
            "attached": false, "attachmentMetadata": {"k": "v".repeat(256 * 1024)},
            "attachError": {"message": "m".repeat(1025)}, "detachError": {"errorCode": -1},
        }),
        &[
            "status.attachmentMetadata: Too long: may not be more than 262144 bytes",
            "status.attachError.message: Too long: may not be more than 262144 bytes",
            "status.detachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ],
    );
    line::<VolumeAttachment>(attachment(json!({})), "x|d|v|n|false|5m");
}

#[test]
fn volumes() {
    let volume = |rest: Value| {
        let spec =
            json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/a"}});
        json!({ "spec": with(spec, rest) })
    };
    let made: PersistentVolume = created(named(volume(json!({}))));
    let spec = made.spec.unwrap();
    assert_eq!(spec.persistent_volume_reclaim_policy.as_deref(), Some("Retain"));
    assert_eq!(spec.volume_mode.as_deref(), Some("Filesystem"));
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    check::<PersistentVolume>(volume(json!({})), &[]);
    check::<PersistentVolume>(
        json!({"spec": {}}),
        &[
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec: Required value: must specify a volume type",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({
            "accessModes": ["x", "ReadWriteOncePod"], "capacity": {"storage": "0"}, "nfs": {"server": "", "path": "a"},
            "persistentVolumeReclaimPolicy": "Keep", "storageClassName": "C", "volumeMode": "Raw",
        })),
        &[
            "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
            "spec.nfs.server: Required value",
            "spec.nfs.path: Invalid value: \"a\": must be an absolute path",
            "spec.persistentVolumeReclaimPolicy: Unsupported value: \"Keep\": supported values: \"Delete\", \"Recycle\", \"Retain\"",
            "spec.storageClassName: Invalid value: \"C\"",
            "spec.volumeMode: Unsupported value: \"Raw\": supported values: \"Block\", \"Filesystem\"",
        ],
    );
    check::<PersistentVolume>(
        volume(json!({"hostPath": {"path": "/"}, "persistentVolumeReclaimPolicy": "Recycle"})),
        &["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
    );
    check::<PersistentVolume>(
        volume(json!({"hostPath": null, "local": {"path": ""}})),
        &["spec.local.path: Required value", "spec.nodeAffinity: Required value: Local volume requires node affinity"],
    );
    change::<PersistentVolume>(
        volume(json!({})),
        volume(json!({"hostPath": {"path": "/b"}, "volumeMode": "Block"})),
        &[
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            "spec.volumeMode: Invalid value: \"Block\": field is immutable",
        ],
    );
    let bound = json!({
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "claimRef": {"namespace": "n", "name": "c"},
        "storageClassName": "s", "volumeAttributesClassName": "g", "volumeMode": "Block",
        "persistentVolumeReclaimPolicy": "Delete",
    });
    line::<PersistentVolume>(
        with(volume(bound), json!({"status": {"phase": "Bound", "reason": "R"}})),
        "x|1Gi|RWO,RWX|Delete|Bound|n/c|s|g|R|5m|Block",
    );
    line::<PersistentVolume>(volume(json!({})), "x|1Gi|RWO|||||<unset>||5m|<unset>");
}

#[test]
fn claims() {
    let claim = |rest: Value| {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        json!({ "spec": with(spec, rest) })
    };
    let made: PersistentVolumeClaim =
        created(named(claim(json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "o"}}))));
    assert_eq!(made.spec.unwrap().data_source_ref.unwrap().name, "o");
    assert_eq!(made.status.unwrap().phase.as_deref(), Some("Pending"));
    check::<PersistentVolumeClaim>(claim(json!({})), &[]);
    check::<PersistentVolumeClaim>(
        json!({"spec": {}}),
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    );
    check::<PersistentVolumeClaim>(
        claim(json!({
            "accessModes": ["x"], "selector": {"matchLabels": {"-": "a"}}, "resources": {"requests": {"storage": "-1"}},
            "storageClassName": "C", "volumeMode": "Raw",
        })),
        &[
            "spec.selector.matchLabels: Invalid value: \"-\"",
            "spec.accessModes: Unsupported value: \"x\"",
            "spec.resources.requests[storage]: Invalid value: \"-1\": must be greater than zero",
            "spec.storageClassName: Invalid value: \"C\"",
            "spec.volumeMode: Unsupported value: \"Raw\"",
        ],
    );
    change::<PersistentVolumeClaim>(claim(json!({})), claim(json!({"volumeName": "v", "storageClassName": "s"})), &[]);
    change::<PersistentVolumeClaim>(
        claim(json!({})),
        claim(json!({"resources": {"requests": {"storage": "2Gi"}}})),
        &[
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ],
    );
    let bound = with(
        claim(json!({"volumeName": "v", "storageClassName": "s", "volumeMode": "Block"})),
        json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}}),
    );
    line::<PersistentVolumeClaim>(bound, "x|Bound|v|1Gi|RWO|s|<unset>|5m|Block");
    line::<PersistentVolumeClaim>(
        with(claim(json!({})), json!({"status": {"phase": "Pending"}})),
        "x|Pending|||||<unset>|5m|<unset>",
    );
}
