//! Which labels a node may give itself: an agent that could set any would draw others' pods to itself.

use std::collections::BTreeMap;

/// Labels of Kubernetes' own that an agent knows the value of (`IsKubeletLabel`).
const OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "kubernetes.io/os",
    "kubernetes.io/arch",
];
/// Namespaces of labels that are the agents'.
const OWN_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The namespace of labels that are an administrator's alone.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// Whether an agent may set a label on its own node, by the rules of `NodeRestriction`.
#[must_use]
pub fn node_may_set_label(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |of: &str| namespace == of || namespace.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if within(RESTRICTED) {
        return false;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes || OWN.contains(&key) || OWN_NAMESPACES.into_iter().any(within)
}

/// The keys that two sets of labels differ in, of which an agent may not set; in order.
#[must_use]
pub fn labels_denied_to_node(
    old: Option<&BTreeMap<String, String>>,
    new: Option<&BTreeMap<String, String>>,
) -> Vec<String> {
    let value =
        |labels: Option<&BTreeMap<String, String>>, key: &str| labels.and_then(|labels| labels.get(key)).cloned();
    let keys = [old, new].into_iter().flatten().flat_map(BTreeMap::keys);
    let mut denied: Vec<String> =
        keys.filter(|key| !node_may_set_label(key) && value(old, key) != value(new, key)).cloned().collect();
    denied.sort_unstable();
    denied.dedup();
    denied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_sets_what_says_nothing_of_its_rank() {
        for own in ["a", "example.com/a", "kubernetes.io/os", "node.kubernetes.io/x", "a.kubelet.kubernetes.io/x"] {
            assert!(node_may_set_label(own), "{own}");
        }
        for other in [
            "node-restriction.kubernetes.io/a",
            "x.node-restriction.kubernetes.io/a",
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/role",
            "a.k8s.io/b",
        ] {
            assert!(!node_may_set_label(other), "{other}");
        }
        assert!(node_may_set_label("notkubernetes.io/a"), "another domain");
    }

    #[test]
    fn differences_are_told() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let (b, c) = ("node-role.kubernetes.io/b", "node-role.kubernetes.io/c");
        let old = labels(&[(b, "1"), (c, "1"), ("a", "1")]);
        let new = labels(&[(b, "1"), (c, "2")]);
        assert_eq!(labels_denied_to_node(Some(&old), Some(&new)), [c]);
        assert_eq!(labels_denied_to_node(Some(&old), None), [b, c]);
        assert_eq!(labels_denied_to_node(None, Some(&labels(&[("a", "1")]))), [""; 0]);
    }
}
