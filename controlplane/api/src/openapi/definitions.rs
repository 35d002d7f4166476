//! The definitions of all types, packed in the binary and unpacked for one document at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use serde_json::Value;
use serde_json::value::RawValue;

use super::gvk_value;
use crate::kind::Kind;

/// Made by `controlplane/api/schemas`; a JSON object of definitions, zlib.
pub(super) const PACKED: &[u8] = include_bytes!("definitions.json.z");

pub(super) const REFERENCE: &str = "#/definitions/";

/// The name of a type's definition, such as `io.k8s.api.apps.v1.Deployment`.
#[must_use]
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let package = match group {
        "" => "io.k8s.api.core",
        "apiextensions.k8s.io" => "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
        "apiregistration.k8s.io" => "io.k8s.kube-aggregator.pkg.apis.apiregistration",
        "meta" => "io.k8s.apimachinery.pkg.apis.meta",
        "metrics.k8s.io" => "io.k8s.metrics.pkg.apis.metrics",
        _ => return format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next().unwrap_or(group)),
    };
    format!("{package}.{version}.{kind}")
}

/// The unpacked text of all definitions.
pub(super) struct Unpacked(String);

impl Unpacked {
    pub(super) fn new() -> Self {
        let mut text = String::new();
        flate2::read::ZlibDecoder::new(PACKED)
            .read_to_string(&mut text)
            .expect("the file is packed text, a test reads it");
        Self(text)
    }

    /// Each definition's text by name.
    pub(super) fn table(&self) -> BTreeMap<String, &RawValue> {
        serde_json::from_str(&self.0).expect("the file holds an object, a test reads it")
    }
}

/// Calls `emit` for each of `roots` and for every definition they lead to, in the order of names. `finish` turns each
/// into its final form; only one definition is unpacked at a time.
pub(super) fn closure(roots: BTreeSet<String>, kinds: &[Kind], finish: fn(&mut Value), out: &mut Vec<u8>) {
    let unpacked = Unpacked::new();
    let table = unpacked.table();
    let mut queue: Vec<String> = roots.into_iter().collect();
    let mut done: BTreeMap<String, String> = BTreeMap::new();
    let extensions = kind_extensions(kinds);
    while let Some(name) = queue.pop() {
        if done.contains_key(&name) {
            continue;
        }
        let Some(raw) = table.get(&name) else { continue };
        let mut definition: Value = serde_json::from_str(raw.get()).expect("a part of a JSON text is a JSON text");
        references(&definition, &mut |to| queue.push(to.to_owned()));
        if let (Some(gvks), Value::Object(fields)) = (extensions.get(&name), &mut definition) {
            fields.insert("x-kubernetes-group-version-kind".to_owned(), Value::Array(gvks.clone()));
        }
        finish(&mut definition);
        done.insert(name, definition.to_string());
    }
    out.push(b'{');
    for (i, (name, text)) in done.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        out.extend_from_slice(format!("{comma}{}:", Value::String(name.clone())).as_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'}');
}

/// Which definitions are kinds, beside the rows of the table: what subresources read and write.
const OTHER_KINDS: [(&str, &str, &str); 4] = [
    ("autoscaling", "v1", "Scale"),
    ("", "v1", "Binding"),
    ("policy", "v1", "Eviction"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
];

fn kind_extensions(kinds: &[Kind]) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut add = |name: String, gvk| all.entry(name).or_default().push(gvk_value(gvk));
    for kind in kinds {
        let gvk = (kind.group, kind.version, kind.kind);
        add(definition_name(gvk.0, gvk.1, gvk.2), gvk);
        if !kind.list_kind.is_empty() {
            let list = (kind.group, kind.version, kind.list_kind);
            add(definition_name(list.0, list.1, list.2), list);
        }
        add(definition_name("meta", "v1", "DeleteOptions"), (kind.group, kind.version, "DeleteOptions"));
    }
    for gvk in OTHER_KINDS {
        add(definition_name(gvk.0, gvk.1, gvk.2), gvk);
    }
    add(definition_name("meta", "v1", "Status"), ("", "v1", "Status"));
    for gvks in all.values_mut() {
        gvks.dedup();
    }
    all
}

fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REFERENCE)) {
                found(name);
            }
            fields.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        _ => {}
    }
}

/// The names of each definition's properties.
#[cfg(test)]
pub(crate) fn properties() -> BTreeMap<String, BTreeSet<String>> {
    let unpacked = Unpacked::new();
    let names = |raw: &RawValue| {
        let definition: Value = serde_json::from_str(raw.get()).ok()?;
        Some(definition.get("properties")?.as_object()?.keys().cloned().collect())
    };
    unpacked.table().into_iter().filter_map(|(name, raw)| Some((name, names(raw)?))).collect()
}
