//! Any object: its fields in order, their names as words. Pure.

use serde_json::Value;

use super::page::{Page, map, text};

/// Fields that are no news, or shown above.
const LEFT_OUT: [&str; 2] = ["managedFields", "selfLink"];
const ABOVE: [&str; 4] = ["name", "namespace", "labels", "annotations"];

pub(super) fn describe(page: &mut Page, object: &Value) {
    let metadata = &object["metadata"];
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(0, &metadata["annotations"]);
    let mut rest = object.clone();
    if let Some(metadata) = rest["metadata"].as_object_mut() {
        metadata.retain(|key, _| !ABOVE.contains(&key.as_str()));
    }
    content(page, 0, &rest);
}

fn content(page: &mut Page, level: usize, value: &Value) {
    let mut fields: Vec<(&String, &Value)> = map(value).filter(|(key, _)| !LEFT_OUT.contains(&key.as_str())).collect();
    fields.sort_by_key(|(key, _)| *key);
    for (key, value) in fields {
        let name = label(key);
        match value {
            Value::Object(_) => {
                page.line(level, format!("{name}:"));
                content(page, level + 1, value);
            }
            Value::Array(list) => {
                page.line(level, format!("{name}:"));
                for item in list {
                    if item.is_object() { content(page, level + 1, item) } else { page.line(level + 1, text(item)) }
                }
            }
            other => page.field(level, &name, text(other)),
        }
    }
}

/// `podIP` as `Pod IP`. What is no field's name stays as it is.
fn label(field: &str) -> String {
    if !field.chars().all(char::is_alphanumeric) {
        return field.to_owned();
    }
    let chars: Vec<char> = field.chars().collect();
    let mut words = vec![String::new()];
    for (at, c) in chars.iter().enumerate() {
        let before_lower = chars.get(at + 1).is_some_and(|next| next.is_lowercase());
        let after_lower = at > 0 && chars[at - 1].is_lowercase();
        if at > 0 && c.is_uppercase() && (after_lower || before_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.push(*c);
        }
    }
    let known = |word: &str| matches!(word.to_lowercase().as_str(), "api" | "url" | "uid" | "osb" | "guid");
    let word = |word: &String| {
        if known(word) {
            return word.to_uppercase();
        }
        let mut chars = word.chars();
        chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
    };
    words.iter().map(word).collect::<Vec<String>>().join(" ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_become_words() {
        for (field, expect) in [
            ("apiVersion", "API Version"),
            ("creationTimestamp", "Creation Timestamp"),
            ("podIP", "Pod IP"),
            ("uid", "UID"),
            ("kind", "Kind"),
            ("a.b/c", "a.b/c"),
            ("clusterIPs", "Cluster I Ps"),
        ] {
            // kubectl splits the plural of an abbreviation too.
            assert_eq!(super::label(field), expect);
        }
    }
}
