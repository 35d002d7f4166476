//! The words of Go's converter for a value of a wrong type (`runtime.DefaultUnstructuredConverter`), made from those of the
//! decoder here.

use serde_json::Value;

/// What the converter says where the decoder says that a type is wrong; `None` where it complains of something else.
pub(super) fn conversion(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("invalid type: ")?;
    let (found, expected) = rest.split_once(", expected ")?;
    let expected = expected.split(" at line ").next()?;
    let is = |words: &[&str]| words.iter().any(|word| expected.starts_with(word));
    let kind = match expected {
        "i32" | "i64" | "u32" | "u64" => {
            return Some(format!("unrecognized type: {}", expected.replace(['i', 'u'], "int")));
        }
        "a string" => return Some("unrecognized type: string".to_owned()),
        "a boolean" => return Some("unrecognized type: bool".to_owned()),
        _ if is(&["a sequence"]) => "slice",
        _ if is(&["a map"]) => "map",
        _ if is(&["struct "]) => "struct",
        _ => return None,
    };
    let found = match found.split(' ').next()? {
        "string" => "string",
        "integer" => "int64",
        "floating" => "float64",
        "boolean" => "bool",
        "sequence" => "slice",
        "map" => "map",
        _ => return None,
    };
    Some(if kind == "struct" {
        format!("cannot restore struct from: {found}")
    } else {
        format!("cannot restore {kind} from {found}")
    })
}

/// A value as Go prints it with `%+v`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            // Go prints maps in the order of their keys.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| key.as_str());
            let pairs: Vec<String> = fields.into_iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_are_named_as_go_names_them() {
        let check = |said: &str, expect: Option<&str>| assert_eq!(conversion(said).as_deref(), expect, "{said}");
        let of = |found: &str, expected: &str| format!("invalid type: {found}, expected {expected} at line 1 column 3");
        check(&of("string \"x\"", "i32"), Some("unrecognized type: int32"));
        check(&of("integer `1`", "a string"), Some("unrecognized type: string"));
        check(&of("map", "a sequence"), Some("cannot restore slice from map"));
        check(&of("string \"x\"", "a map"), Some("cannot restore map from string"));
        check(&of("sequence", "struct PodSpec"), Some("cannot restore struct from: slice"));
        check("missing field `name`", None);
    }

    #[test]
    fn maps_are_printed_in_order() {
        let value = json!({"spec": {"replicas": "x", "a": [1, true, null]}, "b": {}});
        assert_eq!(shown(&value), "map[b:map[] spec:map[a:[1 true <nil>] replicas:x]]");
    }
}
