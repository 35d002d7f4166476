//! Where an object lives: its collection (a kind) and its name within it.
//! Keys are plain text and compare by bytes, which is the order of lists. Nothing here checks Kubernetes' naming rules.

use std::fmt;
use std::sync::Arc;

/// All objects of one kind: `/registry/<group>/<plural>/`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collection(Arc<str>);

impl Collection {
    /// The collection of a kind; the core group's name is empty, as it is in Kubernetes.
    #[must_use]
    pub fn new(group: &str, plural: &str) -> Self {
        let group = if group.is_empty() { "core" } else { group };
        Self(format!("/registry/{group}/{plural}/").into())
    }

    /// A collection from its full prefix, as [`Collection::as_str`] gives it.
    #[must_use]
    pub fn from_prefix(prefix: &str) -> Self {
        Self(prefix.into())
    }

    /// The prefix that all of its keys share.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of an object in this collection: in a namespace, or cluster-wide when it is empty.
    #[must_use]
    pub fn key(&self, namespace: &str, name: &str) -> Key {
        let name = if namespace.is_empty() { name.into() } else { format!("{namespace}/{name}").into() };
        Key { collection: self.clone(), name }
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One object's place. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The kind it belongs to.
    pub collection: Collection,
    /// `<namespace>/<name>`, or `<name>` for cluster-wide kinds.
    pub name: Arc<str>,
}

impl Key {
    /// The namespace, or an empty text for cluster-wide objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.name.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The object's own name, without the namespace.
    #[must_use]
    pub fn object_name(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, name)| name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.collection, self.name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
