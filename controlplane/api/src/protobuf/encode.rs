//! JSON values to messages, by the table. Fields the table does not have are left out, `null` is absence.

use serde_json::{Map, Value};

use super::schema::{Cardinality, Field, MessageId, Schema, Type};
use super::special::{self, Precision};
use super::wire::Writer;

/// The JSON is not of the type the table has for it. It was written by this server, so a client can do nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mismatch;

/// Writes the fields of an object.
pub(super) fn object(schema: &Schema, id: MessageId, value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    let fields = value.as_object().ok_or(Mismatch)?;
    message(schema, id, fields, out)
}

fn message(schema: &Schema, id: MessageId, from: &Map<String, Value>, out: &mut Writer) -> Result<(), Mismatch> {
    for field in schema.fields(id) {
        if let Type::Inline(inner) = field.ty {
            out.message(field.tag, |out| message(schema, inner, from, out))?;
            continue;
        }
        match from.get(field.name) {
            None | Some(Value::Null) => {}
            Some(value) => write_field(schema, field, value, out)?,
        }
    }
    Ok(())
}

fn write_field(schema: &Schema, field: &Field, value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    match field.cardinality {
        Cardinality::One => write(schema, field.ty, field.tag, value, out),
        Cardinality::List => {
            value.as_array().ok_or(Mismatch)?.iter().try_for_each(|v| write(schema, field.ty, field.tag, v, out))
        }
        Cardinality::Map => value.as_object().ok_or(Mismatch)?.iter().try_for_each(|(key, value)| {
            out.message(field.tag, |entry| {
                entry.bytes(1, key.as_bytes());
                // A value that is `null` is empty in Go.
                if value.is_null() { Ok(()) } else { write(schema, field.ty, 2, value, entry) }
            })
        }),
    }
}

fn write(schema: &Schema, ty: Type, tag: u32, value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    match ty {
        Type::Text => out.bytes(tag, text(value)?.as_bytes()),
        Type::Int => out.varint(tag, value.as_i64().ok_or(Mismatch)?.cast_unsigned()),
        Type::Bool => out.varint(tag, value.as_bool().ok_or(Mismatch)?.into()),
        Type::Double => out.fixed64(tag, value.as_f64().ok_or(Mismatch)?.to_bits()),
        Type::Bytes => out.bytes(tag, &special::from_base64(text(value)?).ok_or(Mismatch)?),
        Type::Message(id) | Type::Inline(id) => out.message(tag, |out| object(schema, id, value, out))?,
        Type::Texts => out.message(tag, |out| write_texts(value, 1, out))?,
        Type::Time => out.message(tag, |out| special::write_time(value, Precision::Seconds, out))?,
        Type::MicroTime => out.message(tag, |out| special::write_time(value, Precision::Micros, out))?,
        Type::Duration => out.message(tag, |out| special::write_duration(value, out))?,
        Type::Quantity => out.message(tag, |out| special::write_quantity(value, out))?,
        Type::IntOrString => out.message(tag, |out| special::write_int_or_string(value, out))?,
        Type::Json => out.message(tag, |out| {
            out.bytes(1, value.to_string().as_bytes());
            Ok::<(), Mismatch>(())
        })?,
        Type::SchemaOrBool(id) => out.message(tag, |out| {
            // A schema allows what fits it.
            out.varint(1, (*value != Value::Bool(false)).into());
            if value.is_boolean() { Ok(()) } else { write(schema, Type::Message(id), 2, value, out) }
        })?,
        Type::SchemaOrSchemas(id) => out.message(tag, |out| match value {
            Value::Array(items) => items.iter().try_for_each(|v| write(schema, Type::Message(id), 2, v, out)),
            one => write(schema, Type::Message(id), 1, one, out),
        })?,
        Type::SchemaOrTexts(id) => out.message(tag, |out| match value {
            Value::Array(_) => write_texts(value, 2, out),
            one => write(schema, Type::Message(id), 1, one, out),
        })?,
    }
    Ok(())
}

fn write_texts(value: &Value, tag: u32, out: &mut Writer) -> Result<(), Mismatch> {
    for item in value.as_array().ok_or(Mismatch)? {
        out.bytes(tag, text(item)?.as_bytes());
    }
    Ok(())
}

pub(super) fn text(value: &Value) -> Result<&str, Mismatch> {
    value.as_str().ok_or(Mismatch)
}
