//! ConfigMaps, Secrets and ServiceAccounts. Pure.

use base64::Engine as _;
use serde_json::Value;

use super::page::{Page, items, map, text};

pub(super) fn head(page: &mut Page, object: &Value) {
    let metadata = &object["metadata"];
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
}

/// A map's entries in the order of their names.
fn sorted(value: &Value) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map(value).collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

pub(super) fn config_map(page: &mut Page, object: &Value) {
    head(page, object);
    page.line(0, "\nData\n====");
    for (key, value) in sorted(&object["data"]) {
        page.line(0, format!("{key}:\n----\n{}\n", text(value)));
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in sorted(&object["binaryData"]) {
        page.line(0, format!("{key}: {} bytes", decoded_length(&text(value))));
    }
    page.line(0, "");
}

/// A Secret's values are nobody's business; only a token that was asked for is shown.
pub(super) fn secret(page: &mut Page, object: &Value) {
    head(page, object);
    page.line(0, format!("\nType:\t{}\n\nData\n====", text(&object["type"])));
    for (key, value) in sorted(&object["data"]) {
        let encoded = text(value);
        let is_token = key == "token" && object["type"] == "kubernetes.io/service-account-token";
        match is_token.then(|| decoded(&encoded)).flatten() {
            Some(token) => page.field(0, key, token),
            None => page.field(0, key, format!("{} bytes", decoded_length(&encoded))),
        }
    }
}

pub(super) fn service_account(page: &mut Page, object: &Value) {
    head(page, object);
    let names: Vec<String> = items(&object["imagePullSecrets"]).map(|secret| text(&secret["name"])).collect();
    page.list(0, "Image pull secrets", &names);
}

/// The text behind base64; nothing where it is none.
fn decoded(encoded: &str) -> Option<String> {
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()
}

fn decoded_length(encoded: &str) -> usize {
    let padding = encoded.bytes().rev().take_while(|byte| *byte == b'=').count();
    (encoded.len() / 4 * 3).saturating_sub(padding)
}
