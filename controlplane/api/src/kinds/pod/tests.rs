use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::kind::Resource as _;
use crate::kinds::testing::{created, expect, faults, row, texts, update_faults, with};
use crate::validation::Errors;

fn pod(spec: Value) -> Value {
    let base = json!({
        "metadata": {"name": "p", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    });
    with(base, json!({ "spec": spec }))
}

fn container(fields: Value) -> Value {
    pod(json!({"containers": [with(json!({"name": "c", "image": "i:1"}), fields)]}))
}

#[track_caller]
fn check(pod: Value, expected: &[&str]) {
    expect(&faults::<Pod>(pod), expected);
}

#[test]
fn defaults_are_all_filled_in() {
    let made: Pod = created(pod(json!({
        "serviceAccount": "old", "hostNetwork": false,
        "containers": [{
            "name": "c", "image": "web",
            "ports": [{"containerPort": 80}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80}},
            "readinessProbe": {"grpc": {"port": 1}},
            "lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/bye"}}},
            "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.0001"}},
        }],
        "volumes": [
            {"name": "e"}, {"name": "h", "hostPath": {"path": "/x"}}, {"name": "s", "secret": {"secretName": "s"}},
            {"name": "m", "configMap": {"name": "m"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ],
    })));
    let expected = json!({
        "serviceAccount": "old", "serviceAccountName": "old", "enableServiceLinks": true,
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30,
        "containers": [{
            "name": "c", "image": "web", "imagePullPolicy": "Always",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "N", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
            "livenessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "readinessProbe": {"grpc": {"port": 1, "service": ""}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/bye", "scheme": "HTTP"}}},
            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "1m", "memory": "1Gi"}},
        }],
        "volumes": [
            {"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x", "type": ""}},
            {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
            {"name": "m", "configMap": {"name": "m", "defaultMode": 420}},
            {"name": "d", "downwardAPI": {"defaultMode": 420, "items": [
                {"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}},
            {"name": "p", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
        ],
    });
    assert_eq!(serde_json::to_value(made.spec.as_ref().unwrap()).unwrap(), expected);
    let status = serde_json::to_value(made.status.as_ref().unwrap()).unwrap();
    assert_eq!(status, json!({"phase": "Pending", "qosClass": "Burstable"}));
}

#[test]
fn host_network_ports_and_gates() {
    let spec = json!({"hostNetwork": true, "schedulingGates": [{"name": "a.io/b"}],
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]});
    let made: Pod = created(pod(spec));
    let port = &made.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap()[0];
    assert_eq!(port.host_port, Some(80));
    let condition = &made.status.as_ref().unwrap().conditions.as_ref().unwrap()[0];
    assert_eq!(condition.reason.as_deref(), Some("SchedulingGated"));
}

#[test]
fn quality_of_service() {
    let class = |resources: Value| {
        let made: Pod = created(container(json!({ "resources": resources })));
        made.status.unwrap().qos_class.unwrap()
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({"requests": {"cpu": "1"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})), "Guaranteed");
    assert_eq!(class(json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}})), "Burstable");
    assert_eq!(class(json!({"limits": {"cpu": "0"}})), "BestEffort");
}

#[test]
fn containers() {
    check(pod(json!({})), &[]);
    check(pod(json!({"containers": []})), &["spec.containers: Required value"]);
    check(
        pod(
            json!({"containers": [{"name": "C", "image": ""}, {"name": "a", "image": "i"}, {"name": "a", "image": " i"}]}),
        ),
        &[
            "spec.containers[0].name: Invalid value: \"C\": a lowercase RFC 1123 label",
            "spec.containers[0].image: Required value",
            "spec.containers[2].name: Duplicate value: \"a\"",
            "spec.containers[2].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        ],
    );
    check(
        container(json!({"imagePullPolicy": "Sometimes", "terminationMessagePolicy": "x"})),
        &[
            "spec.containers[0].terminationMessagePolicy: Unsupported value: \"x\": supported values: \"File\", \"FallbackToLogsOnError\"",
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check(
        container(json!({"ports": [
            {"containerPort": 0}, {"containerPort": 70000}, {"name": "a", "containerPort": 1},
            {"name": "a", "containerPort": 2, "protocol": "ICMP", "hostPort": 5}, {"containerPort": 3, "hostPort": 5},
            {"containerPort": 4, "hostPort": 5}]})),
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[3].name: Duplicate value: \"a\"",
            "spec.containers[0].ports[3].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            "spec.containers[0].ports[5].hostPort: Duplicate value: \"TCP//5\"",
        ],
    );
}

#[test]
fn env() {
    check(container(json!({"env": [{"name": "A", "value": "b"}, {"name": "a.b-c"}]})), &[]);
    let source = |from: Value| container(json!({"env": [{"name": "A", "valueFrom": from}]}));
    check(source(json!({"resourceFieldRef": {"resource": "limits.cpu"}})), &[]);
    check(source(json!({"fieldRef": {"fieldPath": "metadata.labels['a/b']"}})), &[]);
    check(
        source(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\"",
        ],
    );
    check(
        source(json!({"fieldRef": {"fieldPath": "spec.x"}})),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
        ],
    );
    check(
        source(json!({"configMapKeyRef": {"name": "A", "key": ""}, "secretKeyRef": {"name": "s", "key": "k"}})),
        &[
            "spec.containers[0].env[0].valueFrom.configMapKeyRef.name: Invalid value: \"A\": a lowercase",
            "spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Required value",
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
        ],
    );
    check(
        source(json!({})),
        &["spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`"],
    );
    check(
        container(
            json!({"env": [{"name": "A=", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}], "envFrom": [{}]}),
        ),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"A=\": a valid environment variable name",
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
            "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
        ],
    );
    check(
        source(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "3"}})),
        &[
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.memory\": only divisor's values 1, 1k",
        ],
    );
}

#[test]
fn probes_and_lifecycle() {
    check(
        container(
            json!({"livenessProbe": {"exec": {"command": ["a"]}}, "lifecycle": {"preStop": {"sleep": {"seconds": 5}}}}),
        ),
        &[],
    );
    check(
        container(
            json!({"livenessProbe": {}, "readinessProbe": {"tcpSocket": {"port": 0}, "periodSeconds": -1, "terminationGracePeriodSeconds": 1},
            "startupProbe": {"httpGet": {"port": "h_", "scheme": "FTP"}, "successThreshold": 2}}),
        ),
        &[
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            "spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
            "spec.containers[0].startupProbe.httpGet.port: Invalid value: \"h_\": must contain only alpha-numeric",
            "spec.containers[0].startupProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
            "spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check(
        container(
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}, "postStart": {"exec": {}, "tcpSocket": {"port": 1}}}}),
        ),
        &[
            "spec.containers[0].lifecycle.postStart.exec.command: Required value",
            "spec.containers[0].lifecycle.postStart.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ],
    );
}

#[test]
fn init_and_ephemeral_containers() {
    check(
        pod(
            json!({"initContainers": [{"name": "i", "image": "i", "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 1}}}]}),
        ),
        &[],
    );
    check(
        pod(
            json!({"initContainers": [{"name": "c", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}, "restartPolicy": "Now"}],
            "ephemeralContainers": [{"name": "e", "image": "i", "ports": [{"containerPort": 1}], "targetContainerName": "x"}]}),
        ),
        &[
            "spec.initContainers[0].restartPolicy: Unsupported value: \"Now\"",
            "spec.initContainers[0].name: Duplicate value: \"c\"",
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ],
    );
}

#[test]
fn volumes_and_mounts() {
    let mounted = |volumes: Value, mounts: Value| {
        pod(json!({"volumes": volumes, "containers": [{"name": "c", "image": "i", "volumeMounts": mounts}]}))
    };
    check(mounted(json!([{"name": "v"}]), json!([{"name": "v", "mountPath": "/a", "subPath": "b/c"}])), &[]);
    check(
        mounted(
            json!([{"name": "v"}]),
            json!([{"name": "v", "mountPath": "/a", "subPath": "/b/../c"}, {"name": "w", "mountPath": "/a"}, {"name": "v", "mountPath": ""}]),
        ),
        &[
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/b/../c\": must be a relative path",
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"/b/../c\": must not contain '..'",
            "spec.containers[0].volumeMounts[1].name: Not found: \"w\"",
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "spec.containers[0].volumeMounts[2].mountPath: Required value",
        ],
    );
    check(
        mounted(
            json!([{"name": "A"}, {"name": "b", "hostPath": {"path": "/", "type": "Dir"}}, {"name": "c", "secret": {"defaultMode": 1000}},
            {"name": "d", "emptyDir": {}, "configMap": {"name": "x"}}, {"name": "e"}, {"name": "e"},
            {"name": "f", "configMap": {"name": "", "items": [{"key": "", "path": "..x"}]}}]),
            json!([]),
        ),
        &[
            "spec.volumes[0].name: Invalid value: \"A\": a lowercase RFC 1123 label",
            "spec.volumes[1].hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\"",
            "spec.volumes[2].secret.secretName: Required value",
            "spec.volumes[2].secret.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive",
            "spec.volumes[3].configMap: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[5].name: Duplicate value: \"e\"",
            "spec.volumes[6].configMap.name: Required value",
            "spec.volumes[6].configMap.items[0].key: Required value",
            "spec.volumes[6].configMap.items[0].path: Invalid value: \"..x\": must not start with '..'",
        ],
    );
    check(
        pod(json!({"volumes": [{"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "a", "expirationSeconds": 5}},
            {"configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}, "secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}}]}}]})),
        &[
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            "spec.volumes[0].projected: Invalid value: \"m\": conflicting duplicate paths",
            "spec.volumes[0].projected.sources[1]: Forbidden: may not specify more than 1 volume type per source",
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ],
    );
}

#[test]
fn resources() {
    check(container(json!({"resources": {"limits": {"cpu": "1", "a.io/gpu": "2"}, "requests": {"cpu": "1"}}})), &[]);
    check(
        container(
            json!({"resources": {"limits": {"cpu": "1", "pods": "1", "x": "1", "a.io/gpu": "0.5", "memory": "-1", "ephemeral-storage": "1Q"}, "requests": {"cpu": "2"}}}),
        ),
        &[
            "spec.containers[0].resources.limits[a.io/gpu]: Invalid value: \"500m\": must be an integer",
            "spec.containers[0].resources.limits[ephemeral-storage]: Invalid value: \"1Q\": quantities must match",
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.containers[0].resources.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            "spec.containers[0].resources.limits[x]: Invalid value: \"x\": must be a standard resource type or fully qualified",
            "spec.containers[0].resources.limits[x]: Invalid value: \"x\": must be a standard resource for containers",
            "spec.containers[0].resources.requests[a.io/gpu]: Invalid value: \"500m\": must be an integer",
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            "spec.containers[0].resources.requests[ephemeral-storage]: Invalid value: \"1Q\"",
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\"",
            "spec.containers[0].resources.requests[pods]: Invalid value: \"pods\"",
            "spec.containers[0].resources.requests[x]: Invalid value: \"x\"",
            "spec.containers[0].resources.requests[x]: Invalid value: \"x\"",
        ],
    );
    check(
        container(json!({"resources": {"requests": {"hugepages-2Mi": "3Mi"}}})),
        &[
            "spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        ],
    );
}

#[test]
fn scheduling() {
    check(
        pod(
            json!({"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 1}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}}}}),
        ),
        &[],
    );
    check(
        pod(
            json!({"tolerations": [{"key": "", "value": "x"}, {"key": "a", "operator": "Is", "effect": "Maybe", "tolerationSeconds": 1}],
            "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "x"}]}),
        ),
        &[
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty",
            "spec.tolerations[1].effect: Invalid value: \"Maybe\": effect must be 'NoExecute' when `tolerationSeconds` is set",
            "spec.tolerations[1].operator: Unsupported value: \"Is\": supported values: \"Equal\", \"Exists\"",
            "spec.tolerations[1].effect: Unsupported value: \"Maybe\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
        ],
    );
    check(
        pod(json!({"affinity": {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {"topologyKey": ""}}]}}})),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Required value: can not be empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must be non-empty",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey: Invalid value: \"\": name part must consist",
        ],
    );
}

#[test]
fn the_rest_of_the_spec() {
    check(
        pod(
            json!({"restartPolicy": "Often", "dnsPolicy": "Mine", "nodeName": "A", "hostname": "a.b", "activeDeadlineSeconds": 0,
            "nodeSelector": {"a/b/c": "d"}, "os": {"name": "beos"}, "hostAliases": [{"ip": "x"}], "preemptionPolicy": "x"}),
        ),
        &[
            "spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.dnsPolicy: Unsupported value: \"Mine\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\"",
            "spec.preemptionPolicy: Unsupported value: \"x\": supported values: \"PreemptLowerPriority\", \"Never\"",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.nodeSelector: Invalid value: \"a/b/c\": a qualified name must consist",
            "spec.nodeName: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
            "spec.hostname: Invalid value: \"a.b\": must not contain dots",
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address",
            "spec.os: Unsupported value: \"beos\": supported values: \"linux\", \"windows\"",
        ],
    );
    check(
        pod(json!({"dnsPolicy": "None"})),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
    check(
        container(
            json!({"securityContext": {"runAsUser": -1, "allowPrivilegeEscalation": false, "privileged": true, "seccompProfile": {"type": "Localhost"}}}),
        ),
        &[
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            "spec.containers[0].securityContext: Invalid value: {",
        ],
    );
}

#[test]
fn updates() {
    #[track_caller]
    fn check(new: Value, expected: &[&str]) {
        let old = pod(json!({"tolerations": [{"key": "a", "operator": "Exists"}], "activeDeadlineSeconds": 10}));
        expect(&update_faults::<Pod>(old.clone(), with(old, json!({ "spec": new }))), expected);
    }
    check(json!({}), &[]);
    check(json!({"containers": [{"name": "c", "image": "i:2", "imagePullPolicy": "IfNotPresent", "tty": false}]}), &[]);
    check(
        json!({"activeDeadlineSeconds": 5, "tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]}),
        &[],
    );
    check(
        json!({"activeDeadlineSeconds": 11}),
        &["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"],
    );
    check(
        json!({"tolerations": []}),
        &["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"],
    );
    check(
        json!({"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "i"}]}),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    let wrong = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n+ nodeName: \"x\"\n";
    check(json!({"nodeName": "x"}), &[wrong]);
}

#[test]
fn status_updates() {
    let old: Pod = created(pod(json!({"restartPolicy": "Never"})));
    let mut ended = old.clone();
    ended.status = serde_json::from_value(json!({"phase": "Running", "qosClass": "BestEffort", "containerStatuses": [
        {"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]})).unwrap();
    let mut again = ended.clone();
    again.status = serde_json::from_value(json!({"phase": "Running", "qosClass": "Guaranteed", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
        "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}]})).unwrap();
    let mut errors = Errors::new();
    ended.validate_status_update(&old, &mut errors);
    assert_eq!(texts(&errors), [""; 0]);
    again.validate_status_update(&ended, &mut errors);
    expect(
        &texts(&errors),
        &[
            "status.qosClass: Invalid value: \"Guaranteed\": field is immutable",
            "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            "status.podIPs: Invalid value: [{",
        ],
    );
}

#[test]
fn rows() {
    #[track_caller]
    fn check(status: Value, meta: Value, expected: &str) {
        let spec =
            json!({"nodeName": "node", "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let line = row::<Pod>(with(pod(spec), json!({"metadata": meta, "status": status})));
        let first: Vec<&str> = line.split('|').skip(1).take(3).collect();
        assert_eq!(first.join("|"), expected, "{line}");
    }
    let c = |name: &str, ready: bool, restarts: i32, state: Value| {
        json!({"name": name, "image": "", "imageID": "", "ready": ready, "started": ready, "restartCount": restarts, "state": state,
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2024-05-01T11:55:00Z"}}})
    };
    let none = json!({});
    let run = json!({"running": {}});
    let end = |reason: &str, code: i32| json!({"terminated": {"exitCode": code, "reason": reason}});
    let wait = |reason: &str| json!({"waiting": {"reason": reason}});
    let init = json!([c("i", false, 0, end("Completed", 0)), c("s", true, 0, run.clone())]);

    check(json!({"phase": "Pending"}), none.clone(), "0/2|Pending|0");
    check(
        json!({"phase": "Pending", "initContainerStatuses": [c("i", false, 2, wait("CrashLoopBackOff"))]}),
        none.clone(),
        "0/2|Init:CrashLoopBackOff|2 (5m ago)",
    );
    check(
        json!({"phase": "Pending", "initContainerStatuses": [c("i", false, 0, run.clone())]}),
        none.clone(),
        "0/2|Init:0/2|0",
    );
    check(
        json!({"phase": "Pending", "initContainerStatuses": [c("i", false, 0, end("", 3))]}),
        none.clone(),
        "0/2|Init:ExitCode:3|0",
    );
    check(
        json!({"phase": "Running", "initContainerStatuses": init, "containerStatuses": [c("c", true, 3, run.clone())]}),
        none.clone(),
        "2/2|Running|3 (5m ago)",
    );
    check(
        json!({"phase": "Running", "initContainerStatuses": init, "containerStatuses": [c("c", false, 1, wait("ImagePullBackOff"))]}),
        none.clone(),
        "1/2|ImagePullBackOff|1 (5m ago)",
    );
    check(
        json!({"phase": "Failed", "initContainerStatuses": init, "containerStatuses": [c("c", false, 0, end("OOMKilled", 137))]}),
        none.clone(),
        "1/2|OOMKilled|0",
    );
    check(json!({"phase": "Failed", "reason": "Evicted"}), none.clone(), "0/2|Evicted|0");
    check(json!({"phase": "Running"}), json!({"deletionTimestamp": "2024-05-01T11:55:00Z"}), "0/2|Terminating|0");
    check(
        json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
        none,
        "0/2|SchedulingGated|0",
    );

    let whole = row::<Pod>(with(
        pod(json!({"nodeName": "node", "readinessGates": [{"conditionType": "a"}]})),
        json!({"status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "a", "status": "True"}]}}),
    ));
    assert_eq!(whole, "p|0/1|Running|0|5m|10.0.0.1|node|<none>|1/1");
}

#[test]
fn fields_can_be_selected() {
    let made: Pod = created(pod(json!({"nodeName": "x", "hostNetwork": true})));
    for (field, value) in [
        ("spec.nodeName", "x"),
        ("spec.hostNetwork", "true"),
        ("status.phase", "Pending"),
        ("status.podIP", ""),
        ("spec.restartPolicy", "Always"),
        ("spec.schedulerName", "default-scheduler"),
        ("spec.serviceAccountName", ""),
    ] {
        assert_eq!(made.selectable_field(field), value, "{field}");
    }
}

#[test]
fn likely_mistakes_are_told() {
    let made: Pod = created(pod(json!({
        "nodeSelector": {"beta.kubernetes.io/os": "linux"}, "terminationGracePeriodSeconds": -1,
        "containers": [{"name": "c", "image": "i", "env": [{"name": "A"}, {"name": "A"}],
            "ports": [{"containerPort": 1}, {"containerPort": 1}]}],
    })));
    assert_eq!(
        made.warnings(),
        [
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        ]
    );
}
