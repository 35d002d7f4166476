//! ServiceAccount: every namespace has the account `default` (pkg/controller/serviceaccount/serviceaccounts_controller.go).

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::Kind;
use crate::plan::{Action, Plan};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "serviceaccount-controller",
    watches: &[Watch::Objects(Kind::Namespace, itself), Watch::Objects(Kind::ServiceAccount, of_account)],
    reconcile,
    initial_keys: no_keys,
};

const DEFAULT: &str = "default";

fn of_account(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    match (change.old, change.new) {
        (Some(gone), None) if gone.meta().name() == DEFAULT => vec![Key::new("", gone.meta().namespace())],
        _ => Vec::new(),
    }
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(namespace) = context.cache.one::<Namespace>("", &key.name) else { return plan };
    if namespace.is_deleting() || context.cache.one::<ServiceAccount>(&key.name, DEFAULT).is_some() {
        return plan;
    }
    let metadata =
        ObjectMeta { name: Some(DEFAULT.into()), namespace: Some(key.name.to_string()), ..ObjectMeta::default() };
    plan.push(Action::Create(ServiceAccount { metadata, ..ServiceAccount::default() }.into()));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, meta, time};

    #[test]
    fn every_living_namespace_gets_one() {
        let mut model = Model::new().with(Namespace { metadata: meta("", "a"), ..Namespace::default() });
        model.settle(&CONTROLLER, "", "a");
        assert_eq!(model.all::<ServiceAccount>().len(), 1);
        model.remove(Kind::ServiceAccount, "a", DEFAULT);
        let mut namespace = model.one::<Namespace>("", "a").as_ref().clone();
        namespace.metadata.deletion_timestamp = Some(time("2026-01-01T00:59:00Z"));
        model.put(namespace);
        model.settle(&CONTROLLER, "", "a");
        assert!(model.all::<ServiceAccount>().is_empty());
    }
}
