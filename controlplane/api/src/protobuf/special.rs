//! The types whose JSON is not an object of their fields: times, quantities, numbers that may be texts, bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::DecodeError;
use super::encode::{Mismatch, text};
use super::wire::{self, Fields, Piece, Writer};
use crate::duration;

/// How exact a time is: `metav1.Time` has seconds, `metav1.MicroTime` microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    Seconds,
    Micros,
}

/// The last piece of bytes with a tag.
pub(super) fn only(bytes: &[u8], tag: u32) -> Result<Option<&[u8]>, DecodeError> {
    let mut found = None;
    for piece in Fields::new(bytes) {
        match piece? {
            (t, Piece::Bytes(bytes)) if t == tag => found = Some(bytes),
            _ => {}
        }
    }
    Ok(found)
}

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// `Timestamp {seconds, nanos}`. No bytes at all are Go's zero time, which is `null` in JSON.
pub(super) fn time(bytes: &[u8], precision: Precision) -> Result<Value, DecodeError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for piece in Fields::new(bytes) {
        match piece? {
            (1, Piece::Varint(n)) => seconds = n.cast_signed(),
            (2, Piece::Varint(n)) => nanos = i32::try_from(n.cast_signed()).map_err(|_| TIME_RANGE)?,
            _ => {}
        }
    }
    // The year 1 is Go's zero time, written by those who do write it.
    const GO_ZERO: i64 = -62_135_596_800;
    if seconds == GO_ZERO && nanos == 0 {
        return Ok(Value::Null);
    }
    let nanos = if precision == Precision::Seconds { 0 } else { nanos };
    let time = Timestamp::new(seconds, nanos).map_err(|_| TIME_RANGE)?;
    Ok(match precision {
        Precision::Seconds => format!("{time:.0}"),
        Precision::Micros => format!("{time:.6}"),
    }
    .into())
}

const TIME_RANGE: DecodeError = DecodeError::Malformed("a time out of range");

pub(super) fn write_time(value: &Value, precision: Precision, out: &mut Writer) -> Result<(), Mismatch> {
    let time: Timestamp = text(value)?.parse().map_err(|_| Mismatch)?;
    // The whole second before it, so that the rest is never negative.
    let nanos = time.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| Mismatch)?;
    let rest = match precision {
        // Kubernetes writes no fraction of a `Time`, since JSON has none.
        Precision::Seconds => 0,
        Precision::Micros => nanos.rem_euclid(1_000_000_000) as u64 / 1000 * 1000,
    };
    out.varint(1, seconds.cast_unsigned());
    out.varint(2, rest);
    Ok(())
}

/// `Duration {duration}`, in nanoseconds.
pub(super) fn duration(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut nanoseconds = 0;
    for piece in Fields::new(bytes) {
        if let (1, Piece::Varint(n)) = piece? {
            nanoseconds = n.cast_signed();
        }
    }
    Ok(duration::format(nanoseconds).into())
}

pub(super) fn write_duration(value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    let nanoseconds = duration::parse(text(value)?).ok_or(Mismatch)?;
    out.varint(1, nanoseconds.cast_unsigned());
    Ok(())
}

pub(super) fn quantity(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = wire::text(only(bytes, 1)?.unwrap_or_default())?;
    Ok(if text.is_empty() { "0" } else { text }.into())
}

pub(super) fn write_quantity(value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    match value {
        // Clients may write plain numbers in JSON.
        Value::Number(number) => out.bytes(1, number.to_string().as_bytes()),
        other => out.bytes(1, text(other)?.as_bytes()),
    }
    Ok(())
}

/// `IntOrString {type, intVal, strVal}`; type 1 is text.
pub(super) fn int_or_string(bytes: &[u8]) -> Result<Value, DecodeError> {
    let (mut is_text, mut number, mut string) = (false, 0, "");
    for piece in Fields::new(bytes) {
        match piece? {
            (1, Piece::Varint(n)) => is_text = n == 1,
            (2, Piece::Varint(n)) => number = n.cast_signed(),
            (3, Piece::Bytes(bytes)) => string = wire::text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { string.into() } else { number.into() })
}

pub(super) fn write_int_or_string(value: &Value, out: &mut Writer) -> Result<(), Mismatch> {
    let (number, string) = match value {
        Value::String(string) => (0, string.as_str()),
        other => (other.as_i64().ok_or(Mismatch)?, ""),
    };
    out.varint(1, value.is_string().into());
    out.varint(2, number.cast_unsigned());
    out.bytes(3, string.as_bytes());
    Ok(())
}
