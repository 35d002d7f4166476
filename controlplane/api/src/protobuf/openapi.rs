//! The OpenAPI v2 document as protobuf (`openapi.v2.Document` of google/gnostic-models). Only what stands in this server's
//! document has a row here; anything else is refused, so that nothing is lost without a test noticing.

use serde_json::Value;

use super::encode::{Mismatch, text};
use super::wire::Writer;

/// How a JSON value is written.
enum Type {
    Text,
    Bool,
    Int,
    Double,
    /// Any value, as YAML. JSON is YAML.
    Any,
    /// A value each, the field repeated. What is no list counts as a list of one.
    List(&'static Type),
    Message(&'static Message),
    /// A message with nothing but this field: lists, maps and choices have such around them.
    Within(u32, &'static Type),
    /// An object with free names, the field repeated with name and value.
    Map(&'static Type),
    /// The kind of parameter decides on its message.
    Parameter,
    /// `additionalProperties`: a schema or a bool.
    SchemaOrBool,
}

struct Message {
    fields: &'static [(&'static str, u32, Type)],
    /// Where names that begin with `x-` go.
    extensions: u32,
}

const TEXTS: Type = Type::List(&Type::Text);
const PARAMETERS: Type = Type::List(&Type::Parameter);

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Type::Text),
        ("info", 2, Type::Message(&INFO)),
        ("paths", 8, Type::Within(2, &Type::Map(&Type::Message(&PATH_ITEM)))),
        ("definitions", 9, Type::Within(1, &Type::Map(&Type::Message(&SCHEMA)))),
        ("security", 12, Type::List(&Type::Within(1, &Type::Map(&Type::Within(1, &TEXTS))))),
        ("securityDefinitions", 13, Type::Within(1, &Type::Map(&Type::Within(2, &Type::Message(&API_KEY))))),
    ],
    extensions: 16,
};

static INFO: Message = Message { fields: &[("title", 1, Type::Text), ("version", 2, Type::Text)], extensions: 7 };

static API_KEY: Message = Message {
    fields: &[("type", 1, Type::Text), ("name", 2, Type::Text), ("in", 3, Type::Text), ("description", 4, Type::Text)],
    extensions: 5,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, Type::Message(&OPERATION)),
        ("put", 3, Type::Message(&OPERATION)),
        ("post", 4, Type::Message(&OPERATION)),
        ("delete", 5, Type::Message(&OPERATION)),
        ("options", 6, Type::Message(&OPERATION)),
        ("head", 7, Type::Message(&OPERATION)),
        ("patch", 8, Type::Message(&OPERATION)),
        ("parameters", 9, PARAMETERS),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, TEXTS),
        ("description", 3, Type::Text),
        ("operationId", 5, Type::Text),
        ("produces", 6, TEXTS),
        ("consumes", 7, TEXTS),
        ("parameters", 8, PARAMETERS),
        ("responses", 9, Type::Within(1, &Type::Map(&Type::Within(1, &Type::Message(&RESPONSE))))),
        ("schemes", 10, TEXTS),
    ],
    extensions: 13,
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Type::Text), ("schema", 2, Type::Within(1, &Type::Message(&SCHEMA)))],
    extensions: 5,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Type::Text),
        ("name", 2, Type::Text),
        ("in", 3, Type::Text),
        ("required", 4, Type::Bool),
        ("schema", 5, Type::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Type::Bool),
        ("in", 2, Type::Text),
        ("description", 3, Type::Text),
        ("name", 4, Type::Text),
        ("type", 6, Type::Text),
        ("uniqueItems", 20, Type::Bool),
    ],
    extensions: 23,
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Type::Bool),
        ("in", 2, Type::Text),
        ("description", 3, Type::Text),
        ("name", 4, Type::Text),
        ("type", 5, Type::Text),
        ("uniqueItems", 19, Type::Bool),
    ],
    extensions: 22,
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Type::Text),
        ("format", 2, Type::Text),
        ("title", 3, Type::Text),
        ("description", 4, Type::Text),
        ("default", 5, Type::Any),
        ("multipleOf", 6, Type::Double),
        ("maximum", 7, Type::Double),
        ("exclusiveMaximum", 8, Type::Bool),
        ("minimum", 9, Type::Double),
        ("exclusiveMinimum", 10, Type::Bool),
        ("maxLength", 11, Type::Int),
        ("minLength", 12, Type::Int),
        ("pattern", 13, Type::Text),
        ("maxItems", 14, Type::Int),
        ("minItems", 15, Type::Int),
        ("uniqueItems", 16, Type::Bool),
        ("maxProperties", 17, Type::Int),
        ("minProperties", 18, Type::Int),
        ("required", 19, TEXTS),
        ("enum", 20, Type::List(&Type::Any)),
        ("additionalProperties", 21, Type::SchemaOrBool),
        ("type", 22, Type::Within(1, &TEXTS)),
        ("items", 23, Type::Within(1, &Type::List(&Type::Message(&SCHEMA)))),
        ("allOf", 24, Type::List(&Type::Message(&SCHEMA))),
        ("properties", 25, Type::Within(1, &Type::Map(&Type::Message(&SCHEMA)))),
        ("readOnly", 27, Type::Bool),
        ("example", 30, Type::Any),
    ],
    extensions: 31,
};

/// The bytes of a document.
///
/// # Errors
/// A part of it has no row in the tables above.
pub(super) fn document(value: &Value) -> Result<Vec<u8>, Mismatch> {
    let mut out = Writer::default();
    write_fields(&DOCUMENT, value, &mut out)?;
    Ok(out.finish())
}

fn write_fields(message: &Message, value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    for (name, value) in value.as_object().ok_or(Mismatch)? {
        if let Some((_, tag, ty)) = message.fields.iter().find(|(field, ..)| field == name) {
            write(ty, *tag, value, out)?;
        } else if name.starts_with("x-") {
            write_entry(message.extensions, name, &Type::Any, value, out)?;
        } else {
            return Err(Mismatch);
        }
    }
    Ok(())
}

fn write_entry(tag: u32, name: &str, ty: &Type, value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    out.message(tag, |out| {
        out.bytes(1, name.as_bytes());
        write(ty, 2, value, out)
    })
}

fn write(ty: &Type, tag: u32, value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    match ty {
        Type::Text => out.bytes(tag, text(value)?.as_bytes()),
        Type::Bool => out.varint(tag, value.as_bool().ok_or(Mismatch)?.into()),
        Type::Int => out.varint(tag, value.as_i64().ok_or(Mismatch)?.cast_unsigned()),
        Type::Double => out.fixed64(tag, value.as_f64().ok_or(Mismatch)?.to_bits()),
        Type::Any => out.message(tag, |out| {
            out.bytes(2, value.to_string().as_bytes());
            Ok::<(), Mismatch>(())
        })?,
        Type::List(item) => match value {
            Value::Array(items) => items.iter().try_for_each(|v| write(item, tag, v, out))?,
            one => write(item, tag, one, out)?,
        },
        Type::Message(message) => out.message(tag, |out| write_fields(message, value, out))?,
        Type::Within(inner, ty) => out.message(tag, |out| write(ty, *inner, value, out))?,
        Type::Map(ty) => {
            let entries = value.as_object().ok_or(Mismatch)?;
            entries.iter().try_for_each(|(name, value)| write_entry(tag, name, ty, value, out))?;
        }
        Type::Parameter => write(parameter(value)?, tag, value, out)?,
        Type::SchemaOrBool => {
            let inner = if value.is_boolean() { (2, &Type::Bool) } else { (1, &Type::Message(&SCHEMA)) };
            out.message(tag, |out| write(inner.1, inner.0, value, out))?;
        }
    }
    Ok(())
}

/// Around a parameter stand one choice between it and a reference, one by whether it is the body, one by its place.
fn parameter(value: &Value) -> Result<&'static Type, Mismatch> {
    static BODY: Type = Type::Within(1, &Type::Within(1, &Type::Message(&BODY_PARAMETER)));
    static QUERY: Type = Type::Within(1, &Type::Within(2, &Type::Within(3, &Type::Message(&QUERY_PARAMETER))));
    static PATH: Type = Type::Within(1, &Type::Within(2, &Type::Within(4, &Type::Message(&PATH_PARAMETER))));
    match value["in"].as_str() {
        Some("body") => Ok(&BODY),
        Some("query") => Ok(&QUERY),
        Some("path") => Ok(&PATH),
        _ => Err(Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::wire::{Fields, Piece};
    use super::*;

    /// The messages at the end of a path of tags.
    fn at<'a>(bytes: &'a [u8], path: &[u32]) -> Vec<&'a [u8]> {
        let Some((tag, rest)) = path.split_first() else { return vec![bytes] };
        let inner = |field: (u32, Piece<'a>)| match field {
            (found, Piece::Bytes(bytes)) if found == *tag => at(bytes, rest),
            _ => Vec::new(),
        };
        Fields::new(bytes).flat_map(|field| inner(field.unwrap())).collect()
    }

    fn texts<'a>(bytes: &'a [u8], path: &[u32]) -> Vec<&'a str> {
        at(bytes, path).into_iter().map(|b| std::str::from_utf8(b).unwrap()).collect()
    }

    #[test]
    fn the_whole_document_has_a_form() {
        let kinds = crate::KINDS;
        let json: Value = serde_json::from_slice(&crate::openapi::v2(kinds)).unwrap();
        let bytes = crate::openapi::v2_protobuf(kinds);
        assert_eq!(texts(&bytes, &[1]), ["2.0"]);
        let names = |key: &str| json[key].as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(texts(&bytes, &[8, 2, 1]), names("paths"));
        assert_eq!(texts(&bytes, &[9, 1, 1]), names("definitions"));
        assert_eq!(texts(&bytes, &[13, 1, 1]), names("securityDefinitions"));
    }

    #[test]
    fn fields_have_the_tags_of_gnostic() {
        let bytes = document(&json!({
            "paths": {"/a": {"get": {
                "operationId": "readA",
                "parameters": [
                    {"in": "query", "name": "q", "type": "string"},
                    {"in": "path", "name": "p", "type": "string"},
                    {"in": "body", "name": "b", "schema": {"$ref": "#/definitions/D"}},
                ],
                "responses": {"200": {"description": "OK", "schema": {"type": "string"}}},
                "x-kubernetes-action": "get",
            }}},
            "definitions": {"D": {"properties": {
                "list": {"items": {"type": "string"}, "enum": ["b", 1]},
                "map": {"additionalProperties": {"format": "int32"}},
            }}},
        }))
        .unwrap();
        let get = at(&bytes, &[8, 2, 2, 2])[0];
        assert_eq!(texts(get, &[5]), ["readA"]);
        assert_eq!(texts(get, &[8, 1, 2, 3, 4]), ["q"]);
        assert_eq!(texts(get, &[8, 1, 2, 4, 4]), ["p"]);
        assert_eq!(texts(get, &[8, 1, 1, 5, 1]), ["#/definitions/D"]);
        assert_eq!(texts(get, &[9, 1, 1]), ["200"]);
        assert_eq!(texts(get, &[9, 1, 2, 1, 2, 1, 22, 1]), ["string"]);
        assert_eq!(texts(get, &[13, 1]), ["x-kubernetes-action"]);
        assert_eq!(texts(get, &[13, 2, 2]), ["\"get\""]);
        let properties = at(&bytes, &[9, 1, 2, 25])[0];
        assert_eq!(texts(properties, &[1, 1]), ["list", "map"]);
        assert_eq!(texts(properties, &[1, 2, 23, 1, 22, 1]), ["string"]);
        assert_eq!(texts(properties, &[1, 2, 20, 2]), ["\"b\"", "1"]);
        assert_eq!(texts(properties, &[1, 2, 21, 1, 2]), ["int32"]);
    }

    #[test]
    fn what_has_no_row_is_refused() {
        assert_eq!(document(&json!({"host": "example.org"})), Err(Mismatch));
        let parameters = json!([{"in": "formData", "name": "f"}]);
        assert_eq!(document(&json!({"paths": {"/a": {"parameters": parameters}}})), Err(Mismatch));
    }
}
