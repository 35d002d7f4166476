//! What of the node's disk a pod may use: `sizeLimit` of its `emptyDir` volumes and the `ephemeral-storage` limits of its
//! containers. It compares; the shell measures. Order and words are those of the kubelet's eviction manager
//! (pkg/kubelet/eviction, `localStorageEviction`).

use std::collections::BTreeMap;

use coracle_api::quantity::Amount;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity};

/// A bound and the text it was given by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bound {
    text: String,
    bytes: u64,
}

/// The bounds of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageLimits {
    volumes: BTreeMap<String, Bound>,
    /// Volumes on disk, bounded or not: they count for the pod as a whole.
    on_disk: Vec<String>,
    containers: BTreeMap<String, Bound>,
    /// Sum over all containers, if each of them is bounded or not.
    total: Option<Bound>,
}

/// Bytes a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageUse {
    /// By name of the `emptyDir` volume.
    pub volumes: BTreeMap<String, u64>,
    /// What each container has written outside of volumes, logs included, by its name.
    pub containers: BTreeMap<String, u64>,
}

impl StorageLimits {
    /// The bounds of a pod; `None` when it has none, so that nothing need be measured.
    pub fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let mut limits = Self::default();
        for volume in spec.volumes.iter().flatten() {
            let Some(source) = &volume.empty_dir else { continue };
            if source.medium.as_deref().is_none_or(str::is_empty) {
                limits.on_disk.push(volume.name.clone());
            }
            if let Some(bound) = source.size_limit.as_ref().and_then(bound) {
                limits.volumes.insert(volume.name.clone(), bound);
            }
        }
        let mut total = 0u64;
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let given = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
            if let Some(bound) = given.and_then(|limits| limits.get("ephemeral-storage")).and_then(bound) {
                total = total.saturating_add(bound.bytes);
                limits.containers.insert(container.name.clone(), bound);
            }
        }
        limits.total = (total > 0).then(|| Bound { text: binary(total), bytes: total });
        (!limits.volumes.is_empty() || limits.total.is_some()).then_some(limits)
    }

    /// Names of the volumes to measure.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        let bounded = self.volumes.keys().filter(|name| !self.on_disk.contains(name));
        let on_disk = self.on_disk.iter().filter(|name| self.total.is_some() || self.volumes.contains_key(*name));
        bounded.chain(on_disk).map(String::as_str)
    }

    /// Whether containers' own writes count.
    pub fn counts_containers(&self) -> bool {
        self.total.is_some()
    }

    /// The message with which the pod is evicted, if it uses more than it may.
    pub fn exceeded(&self, used: &StorageUse) -> Option<String> {
        for (name, bound) in &self.volumes {
            if used.volumes.get(name).is_some_and(|bytes| *bytes > bound.bytes) {
                return Some(format!("Usage of EmptyDir volume {name:?} exceeds the limit {:?}. ", bound.text));
            }
        }
        let on_disk = self.on_disk.iter().filter_map(|name| used.volumes.get(name));
        let sum = on_disk.chain(used.containers.values()).fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
        if let Some(total) = self.total.as_ref().filter(|total| sum > total.bytes) {
            let text = &total.text;
            return Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {text}. "));
        }
        let over = |(name, bound): (&String, &Bound)| {
            let bytes = used.containers.get(name)?;
            let message = format!("Container {name} exceeded its local ephemeral storage limit {:?}. ", bound.text);
            (*bytes > bound.bytes).then_some(message)
        };
        self.containers.iter().find_map(over)
    }
}

fn bound(quantity: &Quantity) -> Option<Bound> {
    let bytes = Amount::of(quantity).ok()?.value();
    Some(Bound { text: quantity.0.clone(), bytes: u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)? })
}

/// A sum as a canonical binary quantity: the largest suffix that leaves no rest.
fn binary(bytes: u64) -> String {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
    let (mut value, mut at) = (bytes, 0);
    while value % 1024 == 0 && at + 1 < suffixes.len() {
        (value, at) = (value / 1024, at + 1);
    }
    format!("{value}{}", suffixes[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, volumes: &[(&str, u64)], containers: &[(&str, u64)], expect: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let map = |list: &[(&str, u64)]| list.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        let used = StorageUse { volumes: map(volumes), containers: map(containers) };
        let limits = StorageLimits::of(&pod);
        assert_eq!(limits.and_then(|limits| limits.exceeded(&used)).as_deref(), expect);
    }

    #[test]
    fn more_than_a_pod_may_use_is_named() {
        let volume =
            |limit: &str, medium: &str| json!({"name": "cache", "emptyDir": {"sizeLimit": limit, "medium": medium}});
        let spec = |volume: Value, limits: Value| {
            let containers = json!([{"name": "a", "resources": {"limits": limits}}, {"name": "b"}]);
            json!({"volumes": [volume], "containers": containers})
        };
        let mib = 1 << 20;
        check(spec(volume("1Mi", ""), json!({})), &[("cache", mib)], &[], None);
        let over = "Usage of EmptyDir volume \"cache\" exceeds the limit \"1Mi\". ";
        check(spec(volume("1Mi", ""), json!({})), &[("cache", mib + 1)], &[], Some(over));
        check(spec(volume("1Mi", "Memory"), json!({})), &[("cache", mib + 1)], &[], Some(over));
        let bounded = || json!({"ephemeral-storage": "2Mi"});
        let all = "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ";
        check(spec(volume("9Mi", ""), bounded()), &[("cache", mib)], &[("a", mib), ("b", 1)], Some(all));
        check(spec(volume("9Mi", "Memory"), bounded()), &[("cache", mib)], &[("a", mib), ("b", 1)], None);
        check(spec(volume("0", ""), json!({})), &[("cache", mib)], &[], None);
        let two = json!({"containers": [
            {"name": "a", "resources": {"limits": {"ephemeral-storage": "1Mi"}}},
            {"name": "b", "resources": {"limits": {"ephemeral-storage": "3Mi"}}}]});
        let one = "Container a exceeded its local ephemeral storage limit \"1Mi\". ";
        check(two, &[], &[("a", mib + 1)], Some(one));
    }

    #[test]
    fn only_what_is_bounded_is_measured() {
        let pod = |spec: Value| -> Pod { serde_json::from_value(json!({ "spec": spec })).unwrap() };
        assert_eq!(
            StorageLimits::of(&pod(json!({"containers": [], "volumes": [{"name": "v", "emptyDir": {}}]}))),
            None
        );
        let limits = StorageLimits::of(&pod(json!({"containers": [], "volumes": [
            {"name": "free", "emptyDir": {}}, {"name": "bounded", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]})));
        let names: Vec<String> = limits.unwrap().volumes().map(str::to_owned).collect();
        assert_eq!(names, ["memory", "bounded"]);
    }
}
