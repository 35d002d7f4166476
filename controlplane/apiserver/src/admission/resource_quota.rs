//! `ResourceQuota`: nothing is made or enlarged beyond what the quotas of its namespace leave. The new count commits in one
//! transaction with the object (`k8s.io/apiserver/pkg/admission/plugin/resourcequota`); the controller recounts what ends.

use std::collections::BTreeSet;

use coracle_api::ApiError;
use coracle_api::kind::Subresource;
use coracle_api::quota::{Amounts, Counted, amounts};
use coracle_store::{ListRange, Op};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};

use super::{Operation, Plugin, Review};
use crate::registry::{Stored, encode};

/// See the module.
pub struct ResourceQuotas;

impl Plugin for ResourceQuotas {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.namespace.is_empty() || review.operation == Operation::Delete {
            return Ok(());
        }
        let served = review.api.registry.of::<ResourceQuota>().clone();
        let listing = review.api.store.list(&served.collection, &ListRange::namespace(review.namespace));
        if listing.entries.is_empty() {
            return Ok(());
        }
        let mut effects = Vec::new();
        for entry in listing.entries {
            let (key, expected) = (entry.key.clone(), entry.revision);
            let stored = Stored::of(served.kind, entry)?;
            let Some(quota) = stored.typed::<ResourceQuota>() else { continue };
            let Some(changed) = charge(review, quota)? else { continue };
            let value = encode(served.kind, Box::new(changed), stored.managed())?;
            effects.push(Op::Update { key, expected, value });
        }
        review.effects.extend(effects);
        Ok(())
    }
}

/// Whether quotas look at this request for this sort of object.
fn is_handled(review: &Review<'_>, counted: &Counted<'_>) -> bool {
    match (review.operation, review.subresource) {
        (Operation::Create, None) => true,
        (Operation::Update, Some(Subresource::Resize)) => matches!(counted, Counted::Pod(_)),
        // A Service's type and a claim's size may change.
        (Operation::Update, None) => matches!(counted, Counted::Service(_) | Counted::Claim(_)),
        (Operation::Update, Some(Subresource::Status)) => matches!(counted, Counted::Claim(_)),
        _ => false,
    }
}

/// The quota with the object's charge added; `None` where it is not charged.
fn charge(review: &Review<'_>, quota: &ResourceQuota) -> Result<Option<ResourceQuota>, ApiError> {
    let Some(counted) = Counted::of(review.served.kind, review.object()) else { return Ok(None) };
    if !is_handled(review, &counted) || !counted.is_subject_to(quota) {
        return Ok(None);
    }
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let status = quota.status.clone().unwrap_or_default();
    let hard = amounts(status.hard.iter().flatten());
    let used = amounts(status.used.iter().flatten());
    let limited: BTreeSet<&str> = hard.keys().map(String::as_str).filter(|r| counted.is_charged_with(r)).collect();
    counted.meets(&limited).map_err(|why| review.forbid(&format!("failed quota: {name}: {why}")))?;
    if limited.iter().any(|resource| !used.contains_key(*resource)) {
        let names = limited.iter().copied().collect::<Vec<_>>().join(",");
        return Err(review.forbid(&format!("status unknown for quota: {name}, resources: {names}")));
    }
    let mut usage = counted.usage(review.now);
    if let Some(before) = review.old.and_then(|old| Counted::of(review.served.kind, old))
        && before.is_subject_to(quota)
    {
        grown(&mut usage, &before.usage(review.now));
    }
    usage.retain(|resource, amount| hard.contains_key(resource) && !amount.is_zero());
    if usage.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    for (resource, amount) in &usage {
        *total.entry(resource.clone()).or_default() += *amount;
    }
    let exceeded: BTreeSet<&str> = usage.keys().map(String::as_str).filter(|r| total[*r] > hard[*r]).collect();
    if !exceeded.is_empty() && review.subresource != Some(Subresource::Status) {
        let shown = |list: &Amounts| {
            let lines = exceeded.iter().filter_map(|r| Some(format!("{r}={}", list.get(*r)?)));
            lines.collect::<Vec<_>>().join(",")
        };
        return Err(review.forbid(&format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            shown(&usage),
            shown(&used),
            shown(&hard)
        )));
    }
    let used = total.into_iter().map(|(resource, amount)| (resource, amount.to_quantity())).collect();
    Ok(Some(ResourceQuota { status: Some(ResourceQuotaStatus { used: Some(used), ..status }), ..quota.clone() }))
}

/// Leaves of `usage` what is more than before: what is given back is recounted by the controller.
fn grown(usage: &mut Amounts, before: &Amounts) {
    for (resource, amount) in usage.iter_mut() {
        let had = before.get(resource).copied().unwrap_or_default();
        *amount = if *amount > had { *amount - had } else { coracle_api::quantity::Amount::ZERO };
    }
}
