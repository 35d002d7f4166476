//! `metadata.managedFields`: who wrote which fields of an object, as Kubernetes' API server keeps it for every write.
//!
//! Everything here works on JSON texts, since a write has its object's text at hand anyway and the hot writes change
//! little of it: unchanged parts are compared as bytes and skipped, and another manager's record is only taken apart
//! when the write touches something in it. The algebra of [`Set`] is what a server-side apply needs as well.
//!
//! Semantics: `k8s.io/apimachinery/pkg/util/managedfields` and `sigs.k8s.io/structured-merge-diff`.

mod compare;
mod element;
mod entry;
mod given;
mod json;
mod schema;
mod set;
mod stored;
#[cfg(test)]
mod tests;
mod update;

pub use compare::{Comparison, compare};
pub use element::{Element, Sort};
pub(crate) use json::{skip, unescape};

pub use entry::MAX_UPDATE_ENTRIES;
pub use schema::{Shape, shape_of};
pub use set::Set;
pub use stored::{field, place, without};
pub use update::{Change, Given, Outcome, Writer, manager_of_user_agent, update};
