//! Paths of fields that cost nothing until an error prints them: links on the stack, from the field up to its parents.

use std::fmt::{self, Display};

/// One step of a path.
#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

/// A field on the way down an object. It prints as [`FieldPath`](super::FieldPath) does: `spec.containers[0].image`.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl<'a> Path<'a> {
    /// The object itself, which prints as nothing.
    pub const ROOT: Self = Path { parent: None, step: Step::Field("") };

    /// A top-level field.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self { parent: None, step: Step::Field(name) }
    }

    /// The field `name` of this field.
    #[must_use]
    pub const fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// Element `i` of this list.
    #[must_use]
    pub const fn index(&self, i: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Index(i) }
    }

    /// Entry `key` of this map.
    #[must_use]
    pub const fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    fn is_root(&self) -> bool {
        self.parent.is_none() && matches!(self.step, Step::Field(""))
    }
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = self.parent.filter(|p| !p.is_root());
        if let Some(parent) = parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Path;

    #[test]
    fn paths_print_as_kubernetes_prints_them() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        assert_eq!(containers.index(2).child("resources").key("cpu").to_string(), "spec.containers[2].resources[cpu]");
        assert_eq!(Path::ROOT.to_string(), "");
        assert_eq!(Path::ROOT.child("data").to_string(), "data");
    }
}
