//! What is declared for the cluster as a whole: classes, budgets, bindings of roles. Pure.

use serde_json::Value;

use super::page::{Page, items, one_line, selector, text, text_or, title};

pub(super) fn budget(page: &mut Page, object: &Value) {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    for (field, name) in [("minAvailable", "Min available"), ("maxUnavailable", "Max unavailable")] {
        if !spec[field].is_null() {
            page.field(0, name, text(&spec[field]));
        }
    }
    let selected = if spec["selector"].is_null() { "<unset>".to_owned() } else { selector(&spec["selector"]) };
    page.field(0, "Selector", selected);
    page.line(0, "Status:");
    for (field, name) in [
        ("disruptionsAllowed", "Allowed disruptions"),
        ("currentHealthy", "Current"),
        ("desiredHealthy", "Desired"),
        ("expectedPods", "Total"),
    ] {
        page.field(2, name, text_or(&status[field], "0"));
    }
}

pub(super) fn priority_class(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.field(0, "Value", text(&object["value"]));
    page.field(0, "GlobalDefault", text_or(&object["globalDefault"], "false"));
    page.field(0, "PreemptionPolicy", text(&object["preemptionPolicy"]));
    page.field(0, "Description", text(&object["description"]));
    page.field(0, "Annotations", one_line(&object["metadata"]["annotations"]));
}

pub(super) fn storage_class(page: &mut Page, object: &Value) {
    let annotations = &object["metadata"]["annotations"];
    let is_default = annotations["storageclass.kubernetes.io/is-default-class"] == "true";
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.field(0, "IsDefaultClass", if is_default { "Yes" } else { "No" });
    page.field(0, "Annotations", one_line(annotations));
    page.field(0, "Provisioner", text(&object["provisioner"]));
    page.field(0, "Parameters", one_line(&object["parameters"]));
    let expansion = &object["allowVolumeExpansion"];
    page.field(0, "AllowVolumeExpansion", if expansion.is_null() { "<unset>" } else { title(expansion) });
    if items(&object["mountOptions"]).next().is_none() {
        page.field(0, "MountOptions", "<none>");
    } else {
        page.line(0, "MountOptions:");
        items(&object["mountOptions"]).for_each(|option| page.line(1, text(option)));
    }
    for (field, name) in [("reclaimPolicy", "ReclaimPolicy"), ("volumeBindingMode", "VolumeBindingMode")] {
        if !object[field].is_null() {
            page.field(0, name, text(&object[field]));
        }
    }
}

pub(super) fn binding(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(&object["metadata"]["name"]));
    page.labels(0, "Labels", &object["metadata"]["labels"]);
    page.annotations(0, &object["metadata"]["annotations"]);
    page.line(0, "Role:");
    page.field(1, "Kind", text(&object["roleRef"]["kind"]));
    page.field(1, "Name", text(&object["roleRef"]["name"]));
    page.line(0, "Subjects:");
    page.line(1, "Kind\tName\tNamespace");
    page.line(1, "----\t----\t---------");
    for subject in items(&object["subjects"]) {
        let cells = ["kind", "name", "namespace"].map(|field| text(&subject[field]));
        page.line(1, cells.join("\t"));
    }
}
