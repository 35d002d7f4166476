//! What clients rely on in the documents.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::KINDS;
use crate::kind::Storage;

fn document(group_version: &str) -> Value {
    serde_json::from_slice(&v3(group_version, KINDS).unwrap()).unwrap()
}

fn all_references(value: &Value, prefix: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get("$ref") {
                out.insert(to.strip_prefix(prefix).unwrap_or_else(|| panic!("{to} is no {prefix}")).to_owned());
            }
            fields.values().for_each(|v| all_references(v, prefix, out));
        }
        Value::Array(items) => items.iter().for_each(|v| all_references(v, prefix, out)),
        _ => {}
    }
}

#[test]
fn every_group_version_has_a_document_whose_references_all_lead_somewhere() {
    let index: Value = serde_json::from_slice(&v3_index(KINDS)).unwrap();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/apps/v1"));
    for (path, entry) in paths {
        assert!(entry["serverRelativeURL"].as_str().unwrap().starts_with(&format!("/openapi/v3/{path}?hash=")));
        let doc = document(path);
        let mut found = BTreeSet::new();
        all_references(&doc, "#/components/schemas/", &mut found);
        for name in found {
            assert!(doc["components"]["schemas"].get(&name).is_some(), "{path}: {name}");
        }
    }
    assert!(v3("apis/example.com/v1", KINDS).is_none());
}

#[test]
fn every_kind_is_defined_and_has_its_paths() {
    for kind in KINDS {
        let doc = document(&group_version_path(kind));
        let name = definition_name(kind.group, kind.version, kind.kind);
        let schema = &doc["components"]["schemas"][&name];
        assert!(schema["properties"]["metadata"].is_object(), "{name}");
        let gvk = gvk_value((kind.group, kind.version, kind.kind));
        assert!(schema["x-kubernetes-group-version-kind"].as_array().unwrap().contains(&gvk), "{name}");
        let scope = if kind.namespaced() { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{scope}{}", group_version_path(kind), kind.info.plural);
        let method = if matches!(kind.info.storage, Storage::Measured) { "get" } else { "post" };
        assert_eq!(doc["paths"][&path][method]["x-kubernetes-group-version-kind"], gvk, "{path}");
    }
}

#[test]
fn patches_name_the_parameter_that_kubectl_looks_for() {
    let doc = document("apis/apps/v1");
    let patch = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fieldValidation"), "{names:?}");
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let scale = &doc["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["get"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
}

#[test]
fn schemas_carry_what_merges_need() {
    let doc = document("api/v1");
    let spec = &doc["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(spec["containers"]["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(spec["containers"]["x-kubernetes-list-type"], "map");
    assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(spec["affinity"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Affinity");
    let container = &doc["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"];
    assert_eq!(container["ports"]["x-kubernetes-list-map-keys"], json!(["containerPort", "protocol"]));
}

#[test]
fn the_second_version_is_one_whole_document() {
    let doc: Value = serde_json::from_slice(&v2(KINDS)).unwrap();
    let mut found = BTreeSet::new();
    all_references(&doc, "#/definitions/", &mut found);
    for name in found {
        assert!(doc["definitions"].get(&name).is_some(), "{name}");
    }
    assert_eq!(doc["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
    assert!(doc["paths"]["/api/v1/pods"]["get"].is_object());
}

/// Every field that a kind's type reads is in its definition: the packed file is not older than the types.
#[test]
fn definitions_know_the_fields_of_the_types() {
    let unpacked = definitions::Unpacked::new();
    let table = unpacked.table();
    for kind in KINDS {
        let name = definition_name(kind.group, kind.version, kind.kind);
        let definition: Value = serde_json::from_str(table[&name].get()).unwrap();
        for field in definition["properties"].as_object().unwrap().keys() {
            // A field that the type reads is of some type, and none but any JSON at all is this.
            let odd = json!({"metadata": {}, field: [[[7.5]]]}).to_string();
            let is_any_json = (kind.kind, field.as_str()) == ("ControllerRevision", "data");
            assert_eq!(kind.decode(odd.as_bytes()).is_ok(), is_any_json, "{name}: {field}");
        }
        assert!(kind.decode(json!({"metadata": {}, "odd": [[[7.5]]]}).to_string().as_bytes()).is_ok(), "{name}");
    }
}
