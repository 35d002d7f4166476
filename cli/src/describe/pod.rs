//! Pods and the templates of pods. Pure.

use coracle_api::quantity::Amount;
use serde_json::Value;

use super::page::{Page, date, items, map, selector, text, text_or, title};

/// Names of the lists of containers, and of their statuses.
const LISTS: [(&str, &str, &str); 3] = [
    ("Init Containers", "initContainers", "initContainerStatuses"),
    ("Containers", "containers", "containerStatuses"),
    ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
];

pub(super) fn describe(page: &mut Page, pod: &Value) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "Priority", text_or(&spec["priority"], "0"));
    for (field, name) in [
        ("priorityClassName", "Priority Class Name"),
        ("runtimeClassName", "Runtime Class Name"),
        ("serviceAccountName", "Service Account"),
    ] {
        if !text(&spec[field]).is_empty() {
            page.field(0, name, text(&spec[field]));
        }
    }
    let node = match text(&spec["nodeName"]) {
        node if node.is_empty() => "<none>".to_owned(),
        node => format!("{node}/{}", text(&status["hostIP"])),
    };
    page.field(0, "Node", node);
    if !status["startTime"].is_null() {
        page.field(0, "Start Time", date(&status["startTime"]));
    }
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    if metadata["deletionTimestamp"].is_null() {
        page.field(0, "Status", text(&status["phase"]));
    } else {
        page.field(0, "Status", format!("Terminating (lasts {})", date(&metadata["deletionTimestamp"])));
        page.field(0, "Termination Grace Period", format!("{}s", text(&metadata["deletionGracePeriodSeconds"])));
    }
    for (field, name) in [("reason", "Reason"), ("message", "Message")] {
        if !text(&status[field]).is_empty() {
            page.field(0, name, text(&status[field]));
        }
    }
    page.field(0, "IP", text(&status["podIP"]));
    if items(&status["podIPs"]).next().is_none() {
        page.field(0, "IPs", "<none>");
    } else {
        page.line(0, "IPs:");
        items(&status["podIPs"]).for_each(|ip| page.field(1, "IP", text(&ip["ip"])));
    }
    page.controller(pod);
    containers(page, 0, spec, Some(pod));
    gates(page, spec, status);
    page.conditions(&status["conditions"]);
    volumes(page, 0, spec);
    if !text(&status["qosClass"]).is_empty() {
        page.field(0, "QoS Class", text(&status["qosClass"]));
    }
    placement(page, 0, spec);
}

/// A Deployment's or ReplicaSet's pods to be.
pub(super) fn template(page: &mut Page, template: &Value) {
    page.line(0, "Pod Template:");
    let (metadata, spec) = (&template["metadata"], &template["spec"]);
    page.labels(1, "Labels", &metadata["labels"]);
    if map(&metadata["annotations"]).next().is_some() {
        page.annotations(1, &metadata["annotations"]);
    }
    if !text(&spec["serviceAccountName"]).is_empty() {
        page.field(1, "Service Account", text(&spec["serviceAccountName"]));
    }
    containers(page, 1, spec, None);
    volumes(page, 1, spec);
    placement(page, 1, spec);
}

fn gates(page: &mut Page, spec: &Value, status: &Value) {
    if items(&spec["readinessGates"]).next().is_none() {
        return;
    }
    page.line(0, "Readiness Gates:");
    page.line(1, "Type\tStatus");
    for gate in items(&spec["readinessGates"]) {
        let wanted = &gate["conditionType"];
        let found = items(&status["conditions"]).find(|condition| condition["type"] == *wanted);
        page.line(
            1,
            format!(
                "{} \t{} ",
                text(wanted),
                found.map_or_else(|| "<none>".to_owned(), |found| text(&found["status"]))
            ),
        );
    }
}

/// The lists of containers, of a pod with its status or of a template. Whatever the level, a container's own lines are at the
/// third: kubectl has it so.
fn containers(page: &mut Page, level: usize, spec: &Value, pod: Option<&Value>) {
    for (name, list, statuses) in LISTS {
        if items(&spec[list]).next().is_none() {
            if list == "containers" {
                page.line(level, format!("{name}: <none>"));
            }
            continue;
        }
        page.line(level, format!("{name}:"));
        for container in items(&spec[list]) {
            let status =
                pod.and_then(|pod| items(&pod["status"][statuses]).find(|status| status["name"] == container["name"]));
            page.line(1, format!("{}{}:", nested(level), text(&container["name"])));
            self::container(page, container, status);
            environment(page, container, pod);
            mounts(page, container);
        }
    }
}

/// What is put before a name inside a template.
fn nested(level: usize) -> &'static str {
    if level > 0 { " " } else { "" }
}

/// A container; its status where it is a pod's.
fn container(page: &mut Page, container: &Value, status: Option<&Value>) {
    let level = 2;
    if let Some(status) = status {
        page.field(level, "Container ID", text(&status["containerID"]));
    }
    page.field(level, "Image", text(&container["image"]));
    if let Some(status) = status {
        page.field(level, "Image ID", text(&status["imageID"]));
    }
    let ports = |field: &str| -> Vec<String> {
        items(&container["ports"])
            .map(|port| format!("{}/{}", text_or(&port[field], "0"), text_or(&port["protocol"], "TCP")))
            .collect()
    };
    for (field, one, many) in [("containerPort", "Port", "Ports"), ("hostPort", "Host Port", "Host Ports")] {
        match ports(field).as_slice() {
            [] => page.field(level, one, "<none>"),
            [port] => page.field(level, one, port),
            several => page.field(level, many, several.join(", ")),
        }
    }
    for (field, name) in [("command", "Command"), ("args", "Args")] {
        if items(&container[field]).next().is_some() {
            page.line(level, format!("{name}:"));
            items(&container[field]).for_each(|word| text(word).lines().for_each(|line| page.line(level + 1, line)));
        }
    }
    if let Some(status) = status {
        state(page, level, "State", &status["state"]);
        if map(&status["lastState"]).next().is_some() {
            state(page, level, "Last State", &status["lastState"]);
        }
        page.field(level, "Ready", title(&status["ready"]));
        page.field(level, "Restart Count", text_or(&status["restartCount"], "0"));
    }
    for (field, name) in [("limits", "Limits"), ("requests", "Requests")] {
        if map(&container["resources"][field]).next().is_some() {
            page.line(level, format!("{name}:"));
            map(&container["resources"][field])
                .for_each(|(resource, amount)| page.field(level + 1, resource, text(amount)));
        }
    }
    for (field, name) in [("livenessProbe", "Liveness"), ("readinessProbe", "Readiness"), ("startupProbe", "Startup")] {
        if !container[field].is_null() {
            page.field(level, name, probe(&container[field]));
        }
    }
}

fn state(page: &mut Page, level: usize, name: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        page.field(level, name, "Running");
        page.field(level + 1, "Started", date(&running["startedAt"]));
    } else if let Some(waiting) = state.get("waiting") {
        page.field(level, name, "Waiting");
        for (field, name) in [("reason", "Reason"), ("message", "Message")] {
            if !text(&waiting[field]).is_empty() {
                page.field(level + 1, name, text(&waiting[field]));
            }
        }
    } else if let Some(ended) = state.get("terminated") {
        page.field(level, name, "Terminated");
        for (field, name) in [("reason", "Reason"), ("message", "Message")] {
            if !text(&ended[field]).is_empty() {
                page.field(level + 1, name, text(&ended[field]));
            }
        }
        page.field(level + 1, "Exit Code", text(&ended["exitCode"]));
        if ended["signal"].as_i64().is_some_and(|signal| signal > 0) {
            page.field(level + 1, "Signal", text(&ended["signal"]));
        }
        page.field(level + 1, "Started", date(&ended["startedAt"]));
        page.field(level + 1, "Finished", date(&ended["finishedAt"]));
    } else {
        page.field(level, name, "Waiting");
    }
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, otherwise: &str| text_or(&probe[field], otherwise);
    let times = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", "0"),
        number("timeoutSeconds", "1"),
        number("periodSeconds", "10"),
        number("successThreshold", "1"),
        number("failureThreshold", "3")
    );
    if let Some(http) = probe.get("httpGet") {
        let scheme = text_or(&http["scheme"], "HTTP").to_lowercase();
        return format!(
            "http-get {scheme}://{}:{}{} {times}",
            text(&http["host"]),
            text(&http["port"]),
            text(&http["path"])
        );
    }
    if let Some(tcp) = probe.get("tcpSocket") {
        return format!("tcp-socket {}:{} {times}", text(&tcp["host"]), text(&tcp["port"]));
    }
    if let Some(exec) = probe.get("exec") {
        let words: Vec<String> = items(&exec["command"]).map(text).collect();
        return format!("exec [{}] {times}", words.join(" "));
    }
    match probe.get("grpc") {
        Some(grpc) => format!("grpc <pod>:{} {} {times}", text(&grpc["port"]), text(&grpc["service"])),
        None => format!("unknown {times}"),
    }
}

fn environment(page: &mut Page, container: &Value, pod: Option<&Value>) {
    let level = 2;
    if items(&container["envFrom"]).next().is_some() {
        page.line(level, "Environment Variables from:");
        for source in items(&container["envFrom"]) {
            let (sort, reference) = if source.get("configMapRef").is_some() {
                ("ConfigMap", &source["configMapRef"])
            } else {
                ("Secret", &source["secretRef"])
            };
            let prefix = match text(&source["prefix"]) {
                prefix if prefix.is_empty() => prefix,
                prefix => format!(" with prefix '{prefix}'"),
            };
            let optional = reference["optional"] == true;
            page.line(level + 1, format!("{}\t{sort}{prefix}\tOptional: {optional}", text(&reference["name"])));
        }
    }
    if items(&container["env"]).next().is_none() {
        return page.field(level, "Environment", "<none>");
    }
    page.line(level, "Environment:");
    for variable in items(&container["env"]) {
        let name = text(&variable["name"]);
        let from = &variable["valueFrom"];
        if let Some(field) = from.get("fieldRef") {
            page.field(
                level + 1,
                &name,
                format!(
                    "{} ({}:{})",
                    pod.map(|pod| field_of(pod, &text(&field["fieldPath"]))).unwrap_or_default(),
                    text_or(&field["apiVersion"], "v1"),
                    text(&field["fieldPath"])
                ),
            );
        } else if let Some(resource) = from.get("resourceFieldRef") {
            let amount = resource_of(container, resource);
            page.field(level + 1, &name, format!("{amount} ({})", text(&resource["resource"])));
        } else if let Some((sort, reference)) = [("in secret", "secretKeyRef"), ("of config map", "configMapKeyRef")]
            .into_iter()
            .find_map(|(sort, field)| from.get(field).map(|reference| (sort, reference)))
        {
            let optional = reference["optional"] == true;
            let value = format!(
                "<set to the key '{}' {sort} '{}'>\tOptional: {optional}",
                text(&reference["key"]),
                text(&reference["name"])
            );
            page.field(level + 1, &name, value);
        } else {
            let value = text(&variable["value"]);
            let mut lines = value.split('\n');
            page.field(level + 1, &name, lines.next().unwrap_or_default());
            lines.for_each(|line| page.line(level + 1, format!("\t{line}")));
        }
    }
}

/// What a container sees of its pod. kubectl knows no other fields than these two, and shows nothing for the rest.
fn field_of(pod: &Value, path: &str) -> String {
    match path {
        "metadata.name" => text(&pod["metadata"]["name"]),
        "metadata.namespace" => text(&pod["metadata"]["namespace"]),
        _ => String::new(),
    }
}

/// A container's limit or request in units of the divisor, rounded up.
fn resource_of(container: &Value, wanted: &Value) -> String {
    let resource = text(&wanted["resource"]);
    let Some((sort, name)) = resource.split_once('.') else { return String::new() };
    let amount = |value: &Value| Amount::parse(&text_or(value, "0")).unwrap_or(Amount::ZERO).nano();
    let divisor = match amount(&wanted["divisor"]) {
        0 => Amount::parse("1").map_or(1, |one| one.nano()),
        divisor => divisor,
    };
    match (amount(&container["resources"][sort][name]), sort) {
        (0, "limits") if matches!(name, "cpu" | "memory") => "node allocatable".to_owned(),
        (amount, _) => ((amount + divisor - 1) / divisor).to_string(),
    }
}

fn mounts(page: &mut Page, container: &Value) {
    let level = 2;
    if items(&container["volumeMounts"]).next().is_none() {
        return page.field(level, "Mounts", "<none>");
    }
    page.line(level, "Mounts:");
    let mut mounts: Vec<&Value> = items(&container["volumeMounts"]).collect();
    mounts.sort_by_key(|mount| text(&mount["mountPath"]));
    for mount in mounts {
        let mut flags = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
        if !text(&mount["subPath"]).is_empty() {
            flags.push(format!("path={:?}", text(&mount["subPath"])));
        }
        page.line(
            level + 1,
            format!("{} from {} ({})", text(&mount["mountPath"]), text(&mount["name"]), flags.join(",")),
        );
    }
}

fn volumes(page: &mut Page, level: usize, spec: &Value) {
    if items(&spec["volumes"]).next().is_none() {
        return page.field(level, "Volumes", "<none>");
    }
    page.line(level, "Volumes:");
    for volume in items(&spec["volumes"]) {
        page.line(1, format!("{}{}:", nested(level), text(&volume["name"])));
        let level = 2;
        let optional = |value: &Value| if value["optional"] == true { "true" } else { "false" };
        if let Some(source) = volume.get("configMap") {
            page.field(level, "Type", "ConfigMap (a volume populated by a ConfigMap)");
            page.field(level, "Name", text(&source["name"]));
            page.field(level, "Optional", optional(source));
        } else if let Some(source) = volume.get("secret") {
            page.field(level, "Type", "Secret (a volume populated by a Secret)");
            page.field(level, "SecretName", text(&source["secretName"]));
            page.field(level, "Optional", optional(source));
        } else if let Some(source) = volume.get("emptyDir") {
            page.field(level, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
            page.field(level, "Medium", text(&source["medium"]));
            page.field(level, "SizeLimit", text_or(&source["sizeLimit"], "<unset>"));
        } else if let Some(source) = volume.get("hostPath") {
            page.field(level, "Type", "HostPath (bare host directory volume)");
            page.field(level, "Path", text(&source["path"]));
            page.field(level, "HostPathType", text(&source["type"]));
        } else if let Some(source) = volume.get("projected") {
            page.field(level, "Type", "Projected (a volume that contains injected data from multiple sources)");
            items(&source["sources"]).for_each(|source| projected(page, level, source));
        } else if let Some(source) = volume.get("downwardAPI") {
            page.field(level, "Type", "DownwardAPI (a volume populated by information about the pod)");
            page.line(level, "Items:");
            for item in items(&source["items"]) {
                let from = if item.get("fieldRef").is_some() {
                    text(&item["fieldRef"]["fieldPath"])
                } else {
                    text(&item["resourceFieldRef"]["resource"])
                };
                page.line(level + 1, format!("{from} -> {}", text(&item["path"])));
            }
        } else if let Some(source) = volume.get("persistentVolumeClaim") {
            page.field(
                level,
                "Type",
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            );
            page.field(level, "ClaimName", text(&source["claimName"]));
            page.field(level, "ReadOnly", if source["readOnly"] == true { "true" } else { "false" });
        } else {
            let sort = map(volume).map(|(key, _)| key.as_str()).find(|key| *key != "name").unwrap_or("unknown");
            page.field(level, "Type", sort);
        }
    }
}

fn projected(page: &mut Page, level: usize, source: &Value) {
    if let Some(token) = source.get("serviceAccountToken") {
        page.field(level, "TokenExpirationSeconds", text(&token["expirationSeconds"]));
    } else if let Some(map) = source.get("configMap") {
        page.field(level, "ConfigMapName", text(&map["name"]));
        page.field(level, "Optional", if map["optional"] == true { "true" } else { "false" });
    } else if let Some(secret) = source.get("secret") {
        page.field(level, "SecretName", text(&secret["name"]));
        page.field(level, "Optional", if secret["optional"] == true { "true" } else { "false" });
    } else if source.get("downwardAPI").is_some() {
        page.field(level, "DownwardAPI", "true");
    }
}

fn placement(page: &mut Page, level: usize, spec: &Value) {
    page.labels(level, "Node-Selectors", &spec["nodeSelector"]);
    let toleration = |toleration: &Value| {
        let mut shown = text(&toleration["key"]);
        if !text(&toleration["value"]).is_empty() {
            shown.push_str(&format!("={}", text(&toleration["value"])));
        }
        if !text(&toleration["effect"]).is_empty() {
            shown.push_str(&format!(":{}", text(&toleration["effect"])));
        }
        if toleration["operator"] == "Exists" && text(&toleration["value"]).is_empty() {
            let no_key = text(&toleration["key"]).is_empty() && text(&toleration["effect"]).is_empty();
            shown.push_str(if no_key { "op=Exists" } else { " op=Exists" });
        }
        if !toleration["tolerationSeconds"].is_null() {
            shown.push_str(&format!(" for {}s", text(&toleration["tolerationSeconds"])));
        }
        shown
    };
    page.list(level, "Tolerations", &items(&spec["tolerations"]).map(toleration).collect::<Vec<_>>());
    if items(&spec["topologySpreadConstraints"]).next().is_some() {
        let constraint = |one: &Value| {
            format!(
                "{}:{} when max skew {} is exceeded for selector {}",
                text(&one["topologyKey"]),
                text(&one["whenUnsatisfiable"]),
                text(&one["maxSkew"]),
                selector(&one["labelSelector"])
            )
        };
        page.list(
            level,
            "Topology Spread Constraints",
            &items(&spec["topologySpreadConstraints"]).map(constraint).collect::<Vec<_>>(),
        );
    }
}
