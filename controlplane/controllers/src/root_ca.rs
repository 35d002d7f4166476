//! The CA that pods trust, published to every namespace (pkg/controller/certificates/rootcacertpublisher).

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::Kind;
use crate::plan::{Action, Plan};
use crate::table::{Change, Context, Controller, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "root-ca-certificate-publisher-controller",
    watches: &[Watch::Objects(Kind::Namespace, itself), Watch::Named(Kind::ConfigMap, NAME, of_config_map)],
    reconcile,
    initial_keys: no_keys,
};

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service \
     IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

fn of_config_map(change: Change<'_>, _: &dyn Cache) -> Vec<Key> {
    change.latest().map(|object| Key::new("", object.meta().namespace())).into_iter().collect()
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    let Some(namespace) = context.cache.one::<Namespace>("", &key.name) else { return plan };
    if namespace.is_deleting() || context.config.root_ca_pem.is_empty() {
        return plan;
    }
    let data = || Some([("ca.crt".to_owned(), context.config.root_ca_pem.clone())].into());
    let annotated = [(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())];
    match context.cache.one::<ConfigMap>(&key.name, NAME) {
        None => {
            let metadata = ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(key.name.to_string()),
                annotations: Some(annotated.into()),
                ..ObjectMeta::default()
            };
            plan.push(Action::Create(ConfigMap { metadata, data: data(), ..ConfigMap::default() }.into()));
        }
        Some(found) if found.data != data() || found.annotation(DESCRIPTION.0) != Some(DESCRIPTION.1) => {
            let mut changed = found.as_ref().clone();
            changed.data = data();
            changed.metadata.annotations.get_or_insert_default().extend(annotated);
            plan.push(Action::Update(changed.into()));
        }
        Some(_) => {}
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, meta};

    #[test]
    fn published_and_restored() {
        let mut model = Model::new().with(Namespace { metadata: meta("", "a"), ..Namespace::default() });
        model.settle(&CONTROLLER, "", "a");
        assert!(model.all::<ConfigMap>().is_empty(), "without a CA there is nothing to publish");
        model.config.root_ca_pem = "PEM".into();
        model.settle(&CONTROLLER, "", "a");
        let mut spoiled = model.one::<ConfigMap>("a", NAME).as_ref().clone();
        assert_eq!(spoiled.data.as_ref().unwrap()["ca.crt"], "PEM");
        spoiled.data = None;
        model.put(spoiled);
        model.settle(&CONTROLLER, "", "a");
        assert_eq!(model.one::<ConfigMap>("a", NAME).data.as_ref().unwrap()["ca.crt"], "PEM");
    }
}
