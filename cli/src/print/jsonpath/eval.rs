//! Applies a read template to a value.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    JsonPathError,
    parse::{Comparison, End, Filter, Segment, Slice, Step, Test},
};

fn fail<T>(message: impl Into<String>) -> Result<T, JsonPathError> {
    Err(JsonPathError(message.into()))
}

pub(super) fn render(segments: &[Segment], value: &Value) -> Result<String, JsonPathError> {
    let mut out = String::new();
    for segment in segments {
        match segment {
            Segment::Text(text) => out.push_str(text),
            Segment::Path(path) => {
                let texts: Vec<String> = walk(path, vec![value])?.iter().map(|found| print(found)).collect();
                out.push_str(&texts.join(" "));
            }
            Segment::Range(path, body) => {
                for found in walk(path, vec![value])? {
                    out.push_str(&render(body, found)?);
                }
            }
        }
    }
    Ok(out)
}

pub(super) fn find(segments: &[Segment], value: &Value) -> Result<Vec<Value>, JsonPathError> {
    let mut all = Vec::new();
    for segment in segments {
        match segment {
            Segment::Path(path) | Segment::Range(path, _) => all.extend(walk(path, vec![value])?.into_iter().cloned()),
            Segment::Text(text) => all.push(text.clone().into()),
        }
    }
    Ok(all)
}

/// A text prints as it is, all else as JSON.
fn print(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn walk<'a>(path: &'a [Step], mut values: Vec<&'a Value>) -> Result<Vec<&'a Value>, JsonPathError> {
    for step in path {
        values = match step {
            Step::Field(name) if name.is_empty() => values,
            Step::Field(name) => values.into_iter().filter_map(|value| value.get(name)).collect(),
            Step::Wildcard => values.into_iter().flat_map(children).collect(),
            Step::Recursive => {
                let mut all = Vec::new();
                values.into_iter().for_each(|value| descend(value, &mut all));
                all
            }
            Step::Slice(slice) => {
                let mut all = Vec::new();
                for value in values {
                    all.extend(cut(*slice, value)?);
                }
                all
            }
            Step::Union(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    all.extend(walk(part, values.clone())?);
                }
                all
            }
            Step::Filter(filter) => {
                let mut all = Vec::new();
                for value in values {
                    for element in elements(value)? {
                        if passes(filter, element)? {
                            all.push(element);
                        }
                    }
                }
                all
            }
            Step::Literal(value) => vec![value],
        };
    }
    Ok(values)
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

/// The value itself and all below it that may have fields.
fn descend<'a>(value: &'a Value, all: &mut Vec<&'a Value>) {
    all.push(value);
    for child in children(value) {
        if child.is_object() || child.is_array() {
            descend(child, all);
        }
    }
}

fn elements(value: &Value) -> Result<&[Value], JsonPathError> {
    match value {
        Value::Array(list) => Ok(list),
        Value::Null => Ok(&[]),
        other => fail(format!("{other} is not array or slice and cannot be filtered")),
    }
}

fn cut(slice: Slice, value: &Value) -> Result<Vec<&Value>, JsonPathError> {
    let list = match value {
        Value::Array(list) => list,
        Value::Null => return Ok(Vec::new()),
        // A recursive descent meets maps as well, which have no elements.
        Value::Object(_) => return Ok(Vec::new()),
        other => return fail(format!("{other} is not array or slice")),
    };
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let absolute = |index: i64| if index < 0 { index + length } else { index };
    let start = absolute(slice.start.unwrap_or(0));
    if slice.end == End::One {
        return match usize::try_from(start).ok().and_then(|at| list.get(at)) {
            Some(found) => Ok(vec![found]),
            None => {
                let shown = slice.start.unwrap_or(0);
                fail(format!("array index out of bounds: index {shown}, length {length}"))
            }
        };
    }
    let end = match slice.end {
        End::Before(end) => absolute(end).min(length),
        _ => length,
    };
    let step = slice.step.unwrap_or(1);
    if step < 1 {
        return fail("step must be > 0");
    }
    let start = start.max(0);
    let indices = (start..end.max(start)).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    Ok(indices.filter_map(|at| usize::try_from(at).ok().and_then(|at| list.get(at))).collect())
}

fn passes(filter: &Filter, element: &Value) -> Result<bool, JsonPathError> {
    let left = walk(&filter.left, vec![element])?;
    let (comparison, right) = match &filter.test {
        Test::Exists => return Ok(!left.is_empty()),
        Test::Compare(comparison, right) => (*comparison, walk(right, vec![element])?),
    };
    if left.is_empty() {
        return Ok(false);
    }
    let ([left], [right]) = (left.as_slice(), right.as_slice()) else {
        return fail("can only compare one element at a time");
    };
    let order = compare(left, right);
    Ok(match comparison {
        Comparison::Equal => left == right || order == Some(Ordering::Equal),
        Comparison::NotEqual => left != right && order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    })
}

/// How two values of one sort are ordered.
pub(super) fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}
