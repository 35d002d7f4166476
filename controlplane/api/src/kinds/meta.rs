//! What the printers and strategies of many kinds share: cells made of metadata, and the strategy of kinds with `spec` and
//! `status`. It knows no kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::table::{Cell, age};

/// The object's name.
pub(crate) fn name_cell(meta: &ObjectMeta) -> Cell {
    meta.name.clone().unwrap_or_default().into()
}

/// How long ago the object was created.
pub(crate) fn age_cell(meta: &ObjectMeta, now: jiff::Timestamp) -> Cell {
    since(meta.creation_timestamp.as_ref(), now).into()
}

/// How long ago a moment was, or `<unknown>` if it is not known.
pub(crate) fn since(then: Option<&Time>, now: jiff::Timestamp) -> String {
    then.map_or_else(|| "<unknown>".to_owned(), |t| age(t.0, now))
}

/// A text, or `<none>` when it is empty.
pub(crate) fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// The status is written by its subresource alone, which writes nothing else.
macro_rules! status_apart {
    () => {
        fn prepare_update(&mut self, old: &Self) {
            self.status.clone_from(&old.status);
        }
        fn prepare_status_update(&mut self, old: &Self) {
            self.spec.clone_from(&old.spec);
        }
    };
}
pub(crate) use status_apart;

/// `spec` and `status` as most kinds treat them: a client sets the status by its subresource alone, and each change of the
/// spec is a new generation.
macro_rules! spec_and_status {
    () => {
        fn prepare_create(&mut self) {
            self.status = Some(Default::default());
        }
        $crate::kinds::meta::status_apart!();
        fn spec_changed(&self, old: &Self) -> bool {
            self.spec != old.spec
        }
    };
}
pub(crate) use spec_and_status;
