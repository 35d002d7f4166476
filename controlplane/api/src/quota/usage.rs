//! How much of each resource an object is charged with.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};

use super::{Amounts, CLASS_INFIX, Counted, PLAIN_COUNTS, charged_totals, count_name, is_native};
use crate::quantity::Amount;

/// The annotation that named a claim's class before there was a field for it.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

impl Counted<'_> {
    /// What the object is charged with at a time: what has ended, or should have, no longer counts as running.
    #[must_use]
    pub fn usage(&self, now: Timestamp) -> Amounts {
        match self {
            Self::Pod(pod) => of_pod(pod, now),
            Self::Service(service) => of_service(service),
            Self::Claim(claim) => of_claim(claim),
            Self::Other { group, plural } => {
                let mut used = Amounts::from([(count_name(group, plural), one())]);
                if group.is_empty() && PLAIN_COUNTS.contains(plural) {
                    used.insert((*plural).to_owned(), one());
                }
                used
            }
        }
    }
}

/// When a pod that is going stops to count although it is still there: its grace period over again after its time.
#[must_use]
pub fn stops_counting_at(pod: &Pod) -> Option<Timestamp> {
    let deletion = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = pod.metadata.deletion_grace_period_seconds?;
    deletion.checked_add(SignedDuration::from_secs(grace)).ok()
}

fn one() -> Amount {
    Amount::from_value(1)
}

fn of_pod(pod: &Pod, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([("count/pods".to_owned(), one())]);
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let is_lost = stops_counting_at(pod).is_some_and(|at| now > at);
    if matches!(phase, "Failed" | "Succeeded") || is_lost {
        return used;
    }
    used.insert("pods".to_owned(), one());
    let totals = charged_totals(pod);
    for (name, amount) in totals.requests {
        let is_basic = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        let is_extended = !is_native(&name) && !name.starts_with("requests.");
        if is_basic || is_extended || name.starts_with("hugepages-") {
            used.insert(format!("requests.{name}"), amount);
        }
        if is_basic || name.starts_with("hugepages-") {
            used.insert(name, amount);
        }
    }
    for (name, amount) in totals.limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
    used
}

fn of_service(service: &Service) -> Amounts {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default();
    let count = |n: usize| Amount::from_value(i64::try_from(n).unwrap_or(i64::MAX));
    let (node_ports, balancers) = match spec.type_.as_deref() {
        Some("NodePort") => (ports.len(), 0),
        // Node ports are not given out yet: what counts is what was asked for.
        Some("LoadBalancer") if spec.allocate_load_balancer_node_ports == Some(false) => {
            (ports.iter().filter(|p| p.node_port.unwrap_or(0) != 0).count(), 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    Amounts::from([
        ("count/services".to_owned(), one()),
        ("services".to_owned(), one()),
        ("services.nodeports".to_owned(), count(node_ports)),
        ("services.loadbalancers".to_owned(), count(balancers)),
    ])
}

fn of_claim(claim: &PersistentVolumeClaim) -> Amounts {
    let spec = claim.spec.as_ref();
    let annotated = claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    let class = annotated.or(spec.and_then(|s| s.storage_class_name.as_ref())).filter(|class| !class.is_empty());
    let mut used = Amounts::from([("count/persistentvolumeclaims".to_owned(), one())]);
    let mut charge = |resource: &str, amount: Amount| {
        if let Some(class) = class {
            used.insert(format!("{class}{CLASS_INFIX}{resource}"), amount);
        }
        used.insert(resource.to_owned(), amount);
    };
    charge("persistentvolumeclaims", one());
    let requests = spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    if let Some(asked) = requests.and_then(|r| r.get("storage")).and_then(|q| Amount::of(q).ok()) {
        let allocated = claim.status.as_ref().and_then(|s| s.allocated_resources.as_ref()?.get("storage"));
        let allocated = allocated.and_then(|q| Amount::of(q).ok()).unwrap_or_default();
        charge("requests.storage", whole_bytes(asked.max(allocated)));
    }
    used
}

/// Quotas count whole bytes only: a part of one is rounded up. What is whole keeps the suffixes it was written with.
fn whole_bytes(amount: Amount) -> Amount {
    let rounded = Amount::from_value(amount.value());
    if amount == rounded { amount } else { rounded }
}
