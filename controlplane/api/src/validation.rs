//! Broken rules of an object, each with the field it is about, in the words of Kubernetes'
//! `k8s.io/apimachinery/pkg/util/validation/field`, and the rules for names that all kinds share.

mod conditions;
mod meta;
mod names;
mod net;
mod node_labels;
mod path;

pub use conditions::*;
pub use meta::*;
pub use names::*;
pub use net::*;
pub use node_labels::*;
pub use path::Path;

use std::fmt::{self, Display, Write as _};

/// The path of a field: `spec.containers[0].image`, `metadata.labels[key]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of a top-level field.
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// The field `name` of this field.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// Element `i` of this list.
    #[must_use]
    pub fn index(&self, i: usize) -> Self {
        Self(format!("{}[{i}]", self.0))
    }

    /// Entry `key` of this map.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field, as `field.ErrorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorKind {
    /// A needed value is absent.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of a closed set.
    NotSupported,
    /// The value stands twice in a list that holds it once.
    Duplicate,
    /// The value may not be set here or now.
    Forbidden,
    /// A text is too long.
    TooLong,
    /// A list is too long.
    TooMany,
    /// What the value names does not exist.
    NotFound,
    /// The value has the wrong type.
    TypeInvalid,
    /// The check itself failed.
    Internal,
}

impl ErrorKind {
    /// The word in `StatusCause.reason`.
    #[must_use]
    pub fn cause(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// What is wrong.
    pub kind: ErrorKind,
    /// The field's path.
    pub field: String,
    /// The value as Kubernetes prints it: texts quoted, absent for kinds that print none.
    pub value: Option<String>,
    /// More words, or empty.
    pub detail: String,
}

impl FieldError {
    /// The error without its field: `Invalid value: "x": must be …`.
    #[must_use]
    pub fn body(&self) -> String {
        let mut out = self.kind.text().to_owned();
        if let Some(value) = &self.value {
            let _ = write!(out, ": {value}");
        }
        if !self.detail.is_empty() {
            let _ = write!(out, ": {}", self.detail);
        }
        out
    }
}

impl Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// A value as Kubernetes prints it in an error: Go's `%q` for texts, the plain number or word for others.
pub trait Shown {
    /// The printed form.
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}
impl Shown for String {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
macro_rules! shown_plain {
    ($($t:ty),*) => {$(impl Shown for $t { fn shown(&self) -> String { self.to_string() } })*};
}
shown_plain!(i32, i64, u16, u32, u64, usize, bool);
impl Shown for serde_json::Value {
    fn shown(&self) -> String {
        self.to_string()
    }
}

/// An API object, list or map as Kubernetes prints it in an error: its JSON.
#[must_use]
pub fn json(value: &impl serde::Serialize) -> serde_json::Value {
    // Through text, since there is a writer of texts for every type already.
    serde_json::to_vec(value).and_then(|text| serde_json::from_slice(&text)).unwrap_or_default()
}

/// The broken rules of an object, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    /// None so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, kind: ErrorKind, field: &impl Display, value: Option<String>, detail: impl Into<String>) {
        self.0.push(FieldError { kind, field: field.to_string(), value, detail: detail.into() });
    }

    /// A needed value is absent.
    pub fn required(&mut self, field: &impl Display, detail: impl Into<String>) {
        self.push(ErrorKind::Required, field, None, detail);
    }

    /// The value breaks a rule.
    pub fn invalid(&mut self, field: &impl Display, value: impl Shown, detail: impl Into<String>) {
        self.push(ErrorKind::Invalid, field, Some(value.shown()), detail);
    }

    /// The value is not one of `supported`, which are printed quoted and in the order given: mostly sorted, as Kubernetes
    /// keeps them in sets.
    pub fn not_supported(&mut self, field: &impl Display, value: impl Shown, supported: &[&str]) {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<_> = supported.iter().map(|s| format!("{s:?}")).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        self.push(ErrorKind::NotSupported, field, Some(value.shown()), detail);
    }

    /// The value stands twice.
    pub fn duplicate(&mut self, field: &impl Display, value: impl Shown) {
        self.push(ErrorKind::Duplicate, field, Some(value.shown()), "");
    }

    /// The value may not be set.
    pub fn forbidden(&mut self, field: &impl Display, detail: impl Into<String>) {
        self.push(ErrorKind::Forbidden, field, None, detail);
    }

    /// A text or the sum of several is longer than `max` bytes.
    pub fn too_long(&mut self, field: &impl Display, max: usize) {
        self.push(ErrorKind::TooLong, field, None, format!("may not be more than {max} bytes"));
    }

    /// A list is longer than `max`.
    pub fn too_many(&mut self, field: &impl Display, actual: usize, max: usize) {
        let detail = format!("must have at most {max} items");
        self.push(ErrorKind::TooMany, field, Some(actual.to_string()), detail);
    }

    /// What the value names does not exist.
    pub fn not_found(&mut self, field: &impl Display, value: impl Shown) {
        self.push(ErrorKind::NotFound, field, Some(value.shown()), "");
    }

    /// One `Invalid` for each text of `details`.
    pub fn invalid_each<I: IntoIterator<Item = String>>(&mut self, field: &impl Display, value: &str, details: I) {
        for detail in details {
            self.invalid(field, value, detail);
        }
    }

    /// Takes over the errors of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether no rule is broken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The errors in order.
    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// All errors in one line, as `errors.Aggregate` prints them: each text once, in brackets when there are several.
    #[must_use]
    pub fn aggregate(&self) -> String {
        let mut texts: Vec<String> = Vec::with_capacity(self.0.len());
        for text in self.0.iter().map(ToString::to_string) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        if texts.len() == 1 { texts.remove(0) } else { format!("[{}]", texts.join(", ")) }
    }
}
