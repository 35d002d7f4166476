//! JSONPath as kubectl has it: text with `{…}` parts; fields, slices, unions, filters, `..`, `range` and `end`. Not the RFC's dialect:
//! what people type for kubectl must work here.

mod eval;
mod parse;
#[cfg(test)]
mod tests;

use serde_json::Value;

use parse::Segment;

/// The deepest nesting of filters and unions.
const MAX_DEPTH: usize = 16;

/// A template, ready to be applied.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath {
    segments: Vec<Segment>,
}

/// A template that cannot be read, or does not fit what it is applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct JsonPathError(pub String);

impl JsonPath {
    /// A template with its braces.
    pub(crate) fn parse(template: &str) -> Result<Self, JsonPathError> {
        Ok(Self { segments: parse::template(template)? })
    }

    /// A single path, braces and leading dot being optional, as `--sort-by` and custom columns take it.
    pub(crate) fn relaxed(path: &str) -> Result<Self, JsonPathError> {
        let inner = path.strip_prefix('{').and_then(|path| path.strip_suffix('}')).unwrap_or(path);
        let dot = if inner.starts_with(['.', '[', '$', '@']) { "" } else { "." };
        if inner.is_empty() || inner.contains(['{', '}']) {
            return Err(JsonPathError(format!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}': {path:?}"
            )));
        }
        Self::parse(&format!("{{{dot}{inner}}}"))
    }

    /// The text the template gives for a value. What is missing prints as nothing.
    pub(crate) fn render(&self, value: &Value) -> Result<String, JsonPathError> {
        eval::render(&self.segments, value)
    }

    /// What a single path finds.
    pub(crate) fn find(&self, value: &Value) -> Result<Vec<Value>, JsonPathError> {
        eval::find(&self.segments, value)
    }
}
