//! ResourceQuota: the status says what the spec limits and what the namespace uses of it (pkg/controller/resourcequota).
//! Admission charges what is new; here everything is counted again when something ends, shrinks or goes.

use coracle_api::quantity::Amount;
use coracle_api::quota::{Amounts, Counted, amounts, stops_counting_at};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service};

use crate::cache::Cache;
use crate::meta::MetaExt;
use crate::object::{Kind, Object};
use crate::plan::{Action, Plan};
use crate::pods::is_terminal;
use crate::table::{Change, Context, Controller, IdentityChange, Key, Watch, itself, no_keys};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "resourcequota-controller",
    watches: &[
        Watch::Objects(Kind::ResourceQuota, itself),
        Watch::Objects(Kind::Pod, of_pod),
        Watch::Objects(Kind::Service, of_changed),
        Watch::Objects(Kind::PersistentVolumeClaim, of_changed),
        Watch::Everything(of_vanished),
    ],
    reconcile,
    initial_keys: no_keys,
};

/// What counting one object costs, at most: large namespaces are counted again less often.
const PER_OBJECT: std::time::Duration = std::time::Duration::from_micros(100);

fn quotas_in(namespace: &str, cache: &dyn Cache) -> Vec<Key> {
    cache.all::<ResourceQuota>(Some(namespace)).iter().map(|quota| Key::of_typed(quota.as_ref())).collect()
}

/// A pod that ends, begins to go or changes what it asks for. That it came, admission has counted.
fn of_pod(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let (Some(Object::Pod(old)), Some(Object::Pod(new))) = (change.old, change.new) else { return Vec::new() };
    let held = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.clone()).unwrap_or_default();
        statuses.into_iter().map(|s| (s.resources, s.allocated_resources)).collect::<Vec<_>>()
    };
    let counts_the_same = is_terminal(old) == is_terminal(new)
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && old.spec == new.spec
        && held(old) == held(new);
    if counts_the_same { Vec::new() } else { quotas_in(new.namespace(), cache) }
}

fn of_changed(change: Change<'_>, cache: &dyn Cache) -> Vec<Key> {
    let (Some(_), Some(new)) = (change.old, change.new) else { return Vec::new() };
    quotas_in(new.meta().namespace(), cache)
}

fn of_vanished(change: IdentityChange<'_>, cache: &dyn Cache) -> Vec<Key> {
    match (change.old, change.new) {
        (Some(gone), None) if !gone.namespace.is_empty() => quotas_in(&gone.namespace, cache),
        _ => Vec::new(),
    }
}

fn reconcile(context: &mut Context<'_>, key: &Key) -> Plan {
    let mut plan = Plan::none();
    // The quota is read before what it counts: what is counted is then at least as new, and its version guards the write.
    let Some(quota) = context.cache.one::<ResourceQuota>(&key.namespace, &key.name) else { return plan };
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let nothing = hard.keys().map(|resource| (resource.clone(), Amount::ZERO)).collect();
    let mut counting = Counting { quota: quota.as_ref(), hard: amounts(&hard), used: nothing, objects: 0 };
    counting.count(context, &mut plan);
    let objects = counting.objects;
    let used = counting.used.into_iter().map(|(resource, amount)| (resource, amount.to_quantity())).collect();
    let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
    let old = quota.status.clone().unwrap_or_default();
    let same = |a: &Option<_>, b: &Option<_>| amounts(a.iter().flatten()) == amounts(b.iter().flatten());
    if !same(&old.hard, &status.hard) || !same(&old.used, &status.used) {
        plan.push(Action::UpdateStatus(ResourceQuota { status: Some(status), ..quota.as_ref().clone() }.into()));
    }
    plan.rest_by_size(objects, PER_OBJECT);
    plan
}

/// One count of a namespace for one quota.
struct Counting<'a> {
    quota: &'a ResourceQuota,
    hard: Amounts,
    used: Amounts,
    objects: usize,
}

impl Counting<'_> {
    fn count(&mut self, context: &Context<'_>, plan: &mut Plan) {
        let (cache, namespace) = (context.cache, self.quota.namespace());
        if self.is_charged(&Counted::Pod(&Pod::default())) {
            for pod in cache.all::<Pod>(Some(namespace)) {
                self.add(&Counted::Pod(&pod), context);
                if let Some(at) = stops_counting_at(&pod).filter(|at| *at >= context.now && !is_terminal(&pod)) {
                    plan.requeue_at(context.now, at);
                }
            }
        }
        if self.is_charged(&Counted::Service(&Service::default())) {
            cache.all::<Service>(Some(namespace)).iter().for_each(|s| self.add(&Counted::Service(s), context));
        }
        if self.is_charged(&Counted::Claim(&PersistentVolumeClaim::default())) {
            let claims = cache.all::<PersistentVolumeClaim>(Some(namespace));
            claims.iter().for_each(|claim| self.add(&Counted::Claim(claim), context));
        }
        if !self.counts_others() {
            return;
        }
        for identity in cache.contents(namespace, usize::MAX) {
            let (group, plural) = (identity.resource.group.as_ref(), identity.resource.plural.as_ref());
            let is_counted_above = group.is_empty() && matches!(plural, "pods" | "services" | "persistentvolumeclaims");
            if !is_counted_above {
                self.add(&Counted::Other { group, plural }, context);
            }
        }
    }

    fn is_charged(&self, counted: &Counted<'_>) -> bool {
        self.hard.keys().any(|resource| counted.is_charged_with(resource))
    }

    /// Whether the quota limits the number of objects of other kinds.
    fn counts_others(&self) -> bool {
        let plain = |r: &str| Counted::Other { group: "", plural: r }.is_charged_with(r);
        let is_other = |r: &str| {
            !matches!(r, "count/pods" | "count/services" | "count/persistentvolumeclaims") && r.starts_with("count/")
        };
        self.hard.keys().any(|resource| plain(resource) || is_other(resource))
    }

    fn add(&mut self, counted: &Counted<'_>, context: &Context<'_>) {
        self.objects += 1;
        if !counted.is_in_scope(self.quota) {
            return;
        }
        for (resource, amount) in counted.usage(context.now) {
            if let Some(total) = self.used.get_mut(&resource) {
                *total += amount;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Model, meta};
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};

    fn quota(spec: Value) -> ResourceQuota {
        let quota: ResourceQuota = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        ResourceQuota { metadata: meta("n", "q"), ..quota }
    }

    fn pod(name: &str, more: Value) -> Pod {
        let mut value = json!({"metadata": {}, "spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
        value["status"] = more;
        let pod: Pod = serde_json::from_value(value).unwrap();
        Pod { metadata: meta("n", name), ..pod }
    }

    fn used(model: &mut Model) -> String {
        model.settle(&CONTROLLER, "n", "q");
        let status = model.one::<ResourceQuota>("n", "q").status.clone().unwrap();
        let (hard, used) = (status.hard.unwrap(), status.used.unwrap());
        assert!(hard.keys().eq(used.keys()));
        used.iter().map(|(name, q)| format!("{name}={}", q.0)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_a_namespace_holds_is_counted() {
        let hard = json!({"pods": "4", "requests.cpu": "2", "configmaps": "9", "count/secrets": "9", "services": "1"});
        let other = ConfigMap { metadata: meta("elsewhere", "x"), ..ConfigMap::default() };
        let mut model = Model::new()
            .with(quota(json!({ "hard": hard })))
            .with(pod("a", json!({"phase": "Running"})))
            .with(pod("b", json!({})))
            .with(pod("over", json!({"phase": "Succeeded"})))
            .with(ConfigMap { metadata: meta("n", "x"), ..ConfigMap::default() })
            .with(Secret { metadata: meta("n", "x"), ..Secret::default() })
            .with(other);
        assert_eq!(used(&mut model), "configmaps=1 count/secrets=1 pods=2 requests.cpu=1 services=0");
        model.put(pod("a", json!({"phase": "Failed"})));
        assert_eq!(used(&mut model), "configmaps=1 count/secrets=1 pods=1 requests.cpu=500m services=0");
    }

    #[test]
    fn scopes_are_kept_to() {
        let mut model = Model::new()
            .with(quota(json!({"hard": {"pods": "4"}, "scopes": ["BestEffort"]})))
            .with(pod("a", json!({"phase": "Running"})));
        assert_eq!(used(&mut model), "pods=0");
    }

    #[test]
    fn a_pod_that_does_not_go_stops_counting() {
        let mut stuck = pod("a", json!({"phase": "Running"}));
        stuck.metadata.deletion_timestamp = Some(crate::model::time("2026-01-01T01:00:10Z"));
        stuck.metadata.deletion_grace_period_seconds = Some(30);
        let mut model = Model::new().with(quota(json!({"hard": {"pods": "4"}}))).with(stuck);
        assert_eq!(used(&mut model), "pods=1");
        let plan = model.run(&CONTROLLER, "n", "q");
        assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(40)));
        model.now = "2026-01-01T01:00:41Z".parse().unwrap();
        assert_eq!(used(&mut model), "pods=0");
    }
}
