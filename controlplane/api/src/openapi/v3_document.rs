//! The form of an OpenAPI v3 document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definitions::{REFERENCE, closure, definition_name};
use super::operations::{self, Answer, Body, Operation, PRETTY, path_parameters};
use super::{VERSION, gvk_value};
use crate::kind::Kind;

const COMPONENTS: &str = "#/components/schemas/";
const ANSWERS: [&str; 3] = ["application/json", "application/yaml", "application/json;stream=watch"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

pub(super) fn render(kinds: &[Kind]) -> Vec<u8> {
    let (paths, roots) = operations::paths(kinds, path_item, render_operation);
    let info = json!({"title": "Kubernetes", "version": VERSION});
    let mut out =
        format!(r#"{{"openapi":"3.0.0","info":{info},"paths":{},"components":{{"schemas":"#, Value::Object(paths));
    let mut bytes = std::mem::take(&mut out).into_bytes();
    closure(roots, kinds, finish, &mut bytes);
    let security = operations::security();
    bytes.extend_from_slice(format!(r#","securitySchemes":{security}}}}}"#).as_bytes());
    bytes
}

fn path_item(path: &str) -> Value {
    let parameters: Vec<Value> = path_parameters(path)
        .map(|(name, description)| {
            json!({"name": name, "in": "path", "description": description, "required": true,
                   "schema": {"type": "string", "uniqueItems": true}})
        })
        .chain([query(&PRETTY)])
        .collect();
    json!({ "parameters": parameters })
}

fn query(p: &operations::Parameter) -> Value {
    json!({"name": p.name, "in": "query", "description": p.description, "schema": {"type": p.type_, "uniqueItems": true}})
}

fn reference(definition: &str, roots: &mut BTreeSet<String>) -> Value {
    roots.insert(definition.to_owned());
    json!({"$ref": format!("{COMPONENTS}{definition}")})
}

fn render_operation(operation: &Operation, roots: &mut BTreeSet<String>) -> Value {
    let parameters: Vec<Value> = operation.parameters.iter().map(query).collect();
    let mut out = json!({
        "tags": [operation.tag], "description": operation.description, "operationId": operation.id,
        "responses": responses(&operation.answer, roots),
        "x-kubernetes-action": operation.action, "x-kubernetes-group-version-kind": gvk_value(operation.gvk),
    });
    if !parameters.is_empty() {
        out["parameters"] = Value::Array(parameters);
    }
    let body = match &operation.body {
        Body::None => return out,
        Body::Object(definition) => {
            json!({"content": {"*/*": {"schema": reference(definition, roots)}}, "required": true})
        }
        Body::DeleteOptions => {
            let options = definition_name("meta", "v1", "DeleteOptions");
            json!({"content": {"*/*": {"schema": reference(&options, roots)}}})
        }
        Body::Patch => {
            let patch = definition_name("meta", "v1", "Patch");
            let content: Map<String, Value> =
                PATCHES.iter().map(|t| ((*t).to_owned(), json!({"schema": reference(&patch, roots)}))).collect();
            json!({"content": content, "required": true})
        }
    };
    out["requestBody"] = body;
    out
}

fn responses(answer: &Answer, roots: &mut BTreeSet<String>) -> Value {
    let mut out = json!({"401": {"description": "Unauthorized"}});
    match answer {
        Answer::Text => out["200"] = json!({"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}),
        Answer::Object(definition, codes) => {
            let schema = reference(definition, roots);
            let content: Map<String, Value> =
                ANSWERS.iter().map(|t| ((*t).to_owned(), json!({ "schema": schema }))).collect();
            for code in *codes {
                out[code.to_string()] = json!({"description": reason(*code), "content": content});
            }
        }
    }
    out
}

pub(super) fn reason(code: u16) -> &'static str {
    match code {
        201 => "Created",
        202 => "Accepted",
        _ => "OK",
    }
}

/// Turns a definition into a v3 schema: references point to the components, and what stands beside one moves it into
/// `allOf`, since v3 ignores the neighbours of a reference.
fn finish(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let target = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE));
            if let Some(target) = target.map(|t| format!("{COMPONENTS}{t}")) {
                if fields.len() == 1 {
                    fields.insert("$ref".to_owned(), Value::String(target));
                } else {
                    fields.remove("$ref");
                    fields.insert("allOf".to_owned(), json!([{ "$ref": target }]));
                }
                return;
            }
            // `oneOf` is how v3 says what v2 can only say by a format.
            if fields.get("format").is_some_and(|f| f == "int-or-string") {
                fields.remove("type");
                fields.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
            }
            fields.values_mut().for_each(finish);
        }
        Value::Array(items) => items.iter_mut().for_each(finish),
        _ => {}
    }
}
