//! ServiceAccount: an identity for pods.

use k8s_openapi::api::core::v1::{ObjectReference, ServiceAccount};

use super::fields::list;
use super::meta::{age_cell, name_cell};
use crate::kind::{Info, Resource, Subresource};
use crate::table::{Cell, Column};

impl Resource for ServiceAccount {
    const INFO: Info = Info {
        short_names: &["sa"],
        subresources: &[Subresource::Token],
        columns: &[
            Column::NAME,
            Column::text(
                "Secrets",
                "Secrets is a list of the secrets in the same namespace that pods running using this ServiceAccount are allowed to use.",
            ),
            Column::AGE,
        ],
        ..Info::namespaced("serviceaccounts", "serviceaccount")
    };

    fn prepare_create(&mut self) {
        keep_names(self);
    }

    fn prepare_update(&mut self, _old: &Self) {
        keep_names(self);
    }

    fn row(&self, now: jiff::Timestamp) -> Vec<Cell> {
        let secrets = list(&self.secrets).len();
        vec![name_cell(&self.metadata), secrets.into(), age_cell(&self.metadata, now)]
    }
}

/// Secrets are of the account's own namespace, so that only their names matter.
fn keep_names(account: &mut ServiceAccount) {
    for secret in account.secrets.iter_mut().flatten() {
        *secret = ObjectReference { name: secret.name.take(), ..Default::default() };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{created, row};

    #[test]
    fn secrets_are_names() {
        let account = json!({
            "metadata": {"name": "a", "namespace": "n", "creationTimestamp": "2024-05-01T11:55:00Z"},
            "secrets": [{"name": "s", "namespace": "m", "kind": "Secret"}],
        });
        let made: ServiceAccount = created(account.clone());
        assert_eq!(serde_json::to_value(&made.secrets).unwrap(), json!([{"name": "s"}]));
        assert_eq!(row::<ServiceAccount>(account), "a|1|5m");
    }
}
