//! The table is whole, both ways are each other's inverse, and no bytes do harm.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::schema::{Cardinality, Field, MessageId, Type, schema};
use super::*;
use crate::KINDS;

/// A value of each field of a message, none of them zero; a message inside itself is left out.
fn sample(id: MessageId, above: &mut Vec<u16>) -> Map<String, Value> {
    let mut out = Map::new();
    above.push(id.0);
    for field in schema().fields(id) {
        if let Type::Inline(inner) = field.ty {
            out.extend(sample(inner, above));
        } else if let Some(value) = sample_element(field, above) {
            let value = match field.cardinality {
                Cardinality::One => value,
                Cardinality::List => json!([value, value]),
                Cardinality::Map => json!({"a": value, "b/c": value}),
            };
            out.insert(field.name.to_owned(), value);
        }
    }
    above.pop();
    out
}

fn sample_element(field: &Field, above: &mut Vec<u16>) -> Option<Value> {
    let mut inner = |id: MessageId| (!above.contains(&id.0)).then(|| Value::Object(sample(id, above)));
    Some(match field.ty {
        Type::Text => json!(format!("é {}", field.tag)),
        Type::Int => json!(-(i64::from(field.tag))),
        Type::Bool => json!(true),
        Type::Double => json!(1.5),
        Type::Bytes => json!("AP8="),
        Type::Message(id) | Type::Inline(id) => inner(id)?,
        Type::Texts => json!(["a", "b"]),
        Type::Time => json!("2024-05-01T12:00:00Z"),
        Type::MicroTime => json!("2024-05-01T12:00:00.000001Z"),
        Type::Duration => json!("1m30.5s"),
        Type::Quantity => json!("1500m"),
        Type::IntOrString => json!("25%"),
        Type::Json => json!({"f:a": {".": {}}, "n": [1, null]}),
        Type::SchemaOrBool(id) => inner(id).unwrap_or(json!(false)),
        Type::SchemaOrSchemas(id) => inner(id).unwrap_or(json!([{"type": "string"}, {"type": "object"}])),
        Type::SchemaOrTexts(id) => inner(id).unwrap_or(json!(["a", "b"])),
    })
}

fn sample_of(api_version: &str, kind: &str) -> Value {
    let root = schema().root(api_version, kind).unwrap_or_else(|| panic!("{api_version} {kind} has no message"));
    let mut fields = sample(root, &mut Vec::new());
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.into());
    Value::Object(fields)
}

fn there_and_back(value: &Value) -> Value {
    let bytes = from_json(value.to_string().as_bytes()).unwrap_or_else(|| panic!("no protobuf of {value}"));
    serde_json::from_slice(&to_json(&bytes).unwrap()).unwrap()
}

#[test]
fn every_field_of_every_kind_comes_back_as_it_was() {
    for kind in KINDS {
        let one = sample_of(kind.api_version, kind.kind);
        assert_eq!(there_and_back(&one), one);
        if !kind.list_kind.is_empty() {
            let list = sample_of(kind.api_version, kind.list_kind);
            assert_eq!(there_and_back(&list), list);
            assert!(list["items"][1]["metadata"]["name"].is_string(), "{list}");
        }
    }
    for (api_version, kind) in [
        ("autoscaling/v1", "Scale"),
        ("v1", "Binding"),
        ("policy/v1", "Eviction"),
        ("authentication.k8s.io/v1", "TokenRequest"),
        ("v1", "Status"),
        ("apps/v1", "DeleteOptions"),
        ("meta.k8s.io/v1", "PartialObjectMetadata"),
        ("meta.k8s.io/v1", "PartialObjectMetadataList"),
        ("v1", "APIGroupList"),
    ] {
        let value = sample_of(api_version, kind);
        assert_eq!(there_and_back(&value), value);
    }
}

/// Every property that OpenAPI has for a message is in the table, and no other: they come from different sources.
#[test]
fn the_table_agrees_with_the_definitions() {
    let definitions = crate::openapi::definition_properties();
    let mut compared = 0;
    for (id, name) in schema().messages() {
        let Some(expected) = definitions.get(name) else { continue };
        let mut found = BTreeSet::new();
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            for field in schema().fields(id) {
                match field.ty {
                    Type::Inline(inner) => open.push(inner),
                    _ => {
                        found.insert(field.name.to_owned());
                    }
                }
            }
        }
        let expected: BTreeSet<String> = expected
            .iter()
            // `TypeMeta` goes with the envelope, but an `ObjectReference` has fields of these names.
            .filter(|p| found.contains(*p) || !matches!(p.as_str(), "apiVersion" | "kind"))
            .cloned()
            .collect();
        assert_eq!(found, expected, "{name}");
        compared += 1;
    }
    assert!(compared > 400, "{compared}");
}

/// Bytes as client-go writes them for `kubectl create configmap x --from-literal=a=b`: plain Go fields are there, empty.
#[test]
fn what_client_go_writes_is_read_as_its_json_would_be() {
    let mut raw = Writer::default();
    raw.message(1, |meta| {
        meta.bytes(1, b"x");
        for tag in [2, 3, 4, 5, 6] {
            meta.bytes(tag, b"");
        }
        meta.varint(7, 0);
        meta.bytes(8, b"");
        Ok::<(), ()>(())
    })
    .unwrap();
    raw.message(2, |entry| {
        entry.bytes(1, b"a");
        entry.bytes(2, b"b");
        Ok::<(), ()>(())
    })
    .unwrap();
    assert_eq!(
        decoded("v1", "ConfigMap", &raw.finish()).unwrap(),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}})
    );
}

fn decoded(api_version: &str, kind: &str, raw: &[u8]) -> Result<Value, DecodeError> {
    let mut out = Writer::starting_with(MAGIC);
    out.message(1, |meta| {
        meta.bytes(1, api_version.as_bytes());
        meta.bytes(2, kind.as_bytes());
        Ok::<(), ()>(())
    })
    .unwrap();
    out.bytes(2, raw);
    to_json(&out.finish()).map(|json| serde_json::from_slice(&json).unwrap())
}

#[test]
fn zero_is_kept_where_it_differs_from_absence() {
    let mut raw = Writer::default();
    raw.bytes(2, &[0x08, 0]);
    let raw = raw.finish();
    // `replicas` is a pointer in a Deployment and a plain number in a Scale, where it is left out.
    assert_eq!(decoded("apps/v1", "Deployment", &raw).unwrap()["spec"], json!({"replicas": 0}));
    assert_eq!(decoded("autoscaling/v1", "Scale", &raw).unwrap()["spec"], json!({}));
}

#[test]
fn special_types_have_the_json_of_kubernetes() {
    let check = |value: Value| assert_eq!(there_and_back(&value), value);
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": {"ports": ports}, "status": {}});
    let fix = |value: Value| {
        let back = there_and_back(&value);
        assert_eq!(back["spec"], value["spec"], "{back}");
    };
    fix(service(
        json!([{"port": 80, "targetPort": 0}, {"port": 81, "targetPort": "http"}, {"port": 82, "targetPort": 8080}]),
    ));
    let crd = |schema: Value| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a"}, "spec": {
            "group": "g", "names": {"kind": "K", "plural": "ks"}, "scope": "Cluster",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        }})
    };
    check(crd(json!({"type": "object", "additionalProperties": false})));
    check(crd(json!({"additionalProperties": true, "x-kubernetes-preserve-unknown-fields": true})));
    check(crd(json!({"items": [{"type": "a"}], "enum": [1, "b", null], "default": 0, "maxLength": 0, "maximum": 0.5})));
    check(crd(json!({"items": {"type": "a"}, "dependencies": {"x": ["y"], "z": {"type": "b"}}})));
}

#[test]
fn events_of_a_watch_are_framed() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}});
    let frame = watch_frame(json!({"type": "ADDED", "object": pod}).to_string().as_bytes()).unwrap();
    let (length, event) = frame.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, event.len());
    assert!(event.starts_with(b"\x0a\x05ADDED"));
    let raw = special::only(special::only(event, 2).unwrap().unwrap(), 1).unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&to_json(raw).unwrap()).unwrap(), pod);
    assert_eq!(watch_frame(br#"{"type":"ADDED","object":{"kind":"X","apiVersion":"example.com/v1"}}"#), None);
}

#[test]
fn what_cannot_be_read_is_said() {
    let nested = |levels: usize| {
        let mut raw = Vec::new();
        for _ in 0..levels {
            // `not`, field 28 of a schema.
            let mut writer = Writer::default();
            writer.bytes(28, &raw);
            raw = writer.finish();
        }
        raw
    };
    let in_crd = |schema: Vec<u8>| {
        let mut raw = schema;
        for tag in [1, 4, 7, 2] {
            let mut writer = Writer::default();
            writer.bytes(tag, &raw);
            raw = writer.finish();
        }
        decoded("apiextensions.k8s.io/v1", "CustomResourceDefinition", &raw)
    };
    assert!(in_crd(nested(50)).is_ok());
    assert_eq!(in_crd(nested(120)), Err(DecodeError::TooLarge { limit: MAX_DEPTH, what: "levels" }));
    assert_eq!(to_json(b"{}"), Err(DecodeError::NotAnObject));
    assert_eq!(to_json(b"k8s\0\x0a\x7f"), Err(DecodeError::Malformed("unexpected EOF")));
    let unknown = DecodeError::UnknownKind { api_version: "a/v1".into(), kind: "B".into() };
    assert_eq!(unknown.to_string(), r#"no kind "B" is registered for version "a/v1" in scheme"#);
    assert_eq!(decoded("a/v1", "B", b""), Err(unknown));
    // Finalizers: many values from few bytes.
    let mut raw = Writer::default();
    raw.message(1, |meta| {
        (0..MAX_VALUES).for_each(|_| meta.bytes(14, b""));
        Ok::<(), ()>(())
    })
    .unwrap();
    assert_eq!(decoded("v1", "Pod", &raw.finish()), Err(DecodeError::TooLarge { limit: MAX_VALUES, what: "values" }));
    assert_eq!(from_json(br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1"}"#), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_do_harm(raw in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), byte: u8) {
        let _ = to_json(&raw);
        let _ = decoded("v1", "Pod", &raw);
        let mut pod = from_json(sample_of("v1", "Pod").to_string().as_bytes()).unwrap();
        let at = at.index(pod.len());
        pod[at] = byte;
        let _ = to_json(&pod);
        pod.truncate(at);
        let _ = to_json(&pod);
    }
}
