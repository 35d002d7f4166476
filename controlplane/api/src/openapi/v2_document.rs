//! The form of the OpenAPI v2 document.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::definitions::{REFERENCE, closure, definition_name};
use super::operations::{self, Answer, Body, Operation, PRETTY, path_parameters};
use super::v3_document::reason;
use super::{VERSION, gvk_value};
use crate::kind::Kind;

pub(super) fn render(kinds: &[Kind]) -> Vec<u8> {
    let (paths, roots) = operations::paths(kinds, path_item, render_operation);
    let info = json!({"title": "Kubernetes", "version": VERSION});
    let mut out =
        format!(r#"{{"swagger":"2.0","info":{info},"paths":{},"definitions":"#, Value::Object(paths)).into_bytes();
    closure(roots, kinds, |_| {}, &mut out);
    let security = operations::security();
    out.extend_from_slice(
        format!(r#","securityDefinitions":{security},"security":[{{"BearerToken":[]}}]}}"#).as_bytes(),
    );
    out
}

fn path_item(path: &str) -> Value {
    let parameters: Vec<Value> = path_parameters(path)
        .map(|(name, description)| {
            json!({"name": name, "in": "path", "description": description, "required": true,
                   "type": "string", "uniqueItems": true})
        })
        .chain([query(&PRETTY)])
        .collect();
    json!({ "parameters": parameters })
}

fn query(p: &operations::Parameter) -> Value {
    json!({"name": p.name, "in": "query", "description": p.description, "type": p.type_, "uniqueItems": true})
}

fn reference(definition: &str, roots: &mut BTreeSet<String>) -> Value {
    roots.insert(definition.to_owned());
    json!({"$ref": format!("{REFERENCE}{definition}")})
}

fn render_operation(operation: &Operation, roots: &mut BTreeSet<String>) -> Value {
    let mut parameters: Vec<Value> = operation.parameters.iter().map(query).collect();
    let mut consumes = json!(["*/*"]);
    let mut body = |definition: &str, required: bool, roots: &mut BTreeSet<String>| {
        parameters
            .push(json!({"name": "body", "in": "body", "required": required, "schema": reference(definition, roots)}));
    };
    match &operation.body {
        Body::None => {}
        Body::Object(definition) => body(definition, true, roots),
        Body::DeleteOptions => body(&definition_name("meta", "v1", "DeleteOptions"), false, roots),
        Body::Patch => {
            body(&definition_name("meta", "v1", "Patch"), true, roots);
            consumes = json!([
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/strategic-merge-patch+json",
                "application/apply-patch+yaml"
            ]);
        }
    }
    let mut responses = json!({"401": {"description": "Unauthorized"}});
    match &operation.answer {
        Answer::Text => responses["200"] = json!({"description": "OK", "schema": {"type": "string"}}),
        Answer::Object(definition, codes) => {
            for code in *codes {
                let schema = reference(definition, roots);
                responses[code.to_string()] = json!({"description": reason(*code), "schema": schema});
            }
        }
    }
    let mut out = json!({
        "tags": [operation.tag], "description": operation.description, "operationId": operation.id,
        "consumes": consumes, "produces": ["application/json", "application/yaml"], "schemes": ["https"],
        "responses": responses,
        "x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": gvk_value(operation.gvk),
    });
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    out
}
