//! Addresses of pods: which are taken, and how the machine comes to know their range. With the privilege to set routes
//! the range is the node's part of the pod network, else a part of 127.0.0.0/8, which every Linux answers for.

use std::{collections::BTreeMap, net::Ipv4Addr};

use coracle_agent_core::PodUid;
use ipnet::Ipv4Net;

/// Addresses of pods where no route can be set.
const LOOPBACK_RANGE: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 64, 0, 0), 10);

/// The addresses of a node's pods.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Ipv4Net,
    taken: BTreeMap<Ipv4Addr, PodUid>,
    by_pod: BTreeMap<PodUid, Ipv4Addr>,
    /// The last one given: addresses go round, so that one is not given again right after it came back.
    last: u32,
}

/// Whether the range is reached by a route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// The node's part of the pod network, routed as local.
    Routed(Ipv4Net),
    /// A part of the loopback range: pods are reached from this machine only.
    Loopback(Ipv4Net),
}

impl PodNetwork {
    /// The range itself.
    pub fn range(self) -> Ipv4Net {
        match self {
            Self::Routed(range) | Self::Loopback(range) => range,
        }
    }

    /// Sets the route for `wanted`, or falls back to loopback addresses where that is not allowed.
    pub(crate) async fn set_up(wanted: Ipv4Net) -> Self {
        let route = ["route", "replace", "local", &wanted.to_string(), "dev", "lo"].map(str::to_owned);
        let done = tokio::process::Command::new("ip").args(route).output().await;
        match done {
            Ok(output) if output.status.success() => Self::Routed(wanted),
            Ok(output) => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                tracing::warn!(%wanted, why, "no route for pods can be set; they get loopback addresses");
                Self::loopback()
            }
            Err(error) => {
                tracing::warn!(%wanted, %error, "`ip` cannot be run; pods get loopback addresses");
                Self::loopback()
            }
        }
    }

    fn loopback() -> Self {
        let (base, length) = LOOPBACK_RANGE;
        Self::Loopback(Ipv4Net::new(base, length).expect("a prefix length of 10 is valid"))
    }
}

impl Addresses {
    /// The addresses of a range, with those given before.
    pub(crate) fn new(range: Ipv4Net, recorded: BTreeMap<PodUid, Ipv4Addr>) -> Self {
        let kept: BTreeMap<PodUid, Ipv4Addr> = recorded.into_iter().filter(|(_, ip)| range.contains(ip)).collect();
        let taken = kept.iter().map(|(uid, ip)| (*ip, uid.clone())).collect();
        Self { range, taken, by_pod: kept, last: u32::from(range.network()) }
    }

    /// A pod's address; a new one if it has none. `None` when all are taken.
    pub(crate) fn take(&mut self, uid: &PodUid) -> Option<(Ipv4Addr, Fresh)> {
        if let Some(ip) = self.by_pod.get(uid) {
            return Some((*ip, Fresh::No));
        }
        // Network, gateway-like first address and broadcast are not given.
        let (first, last) = (u32::from(self.range.network()) + 2, u32::from(self.range.broadcast()).checked_sub(1)?);
        let count = last.checked_sub(first)? + 1;
        let mut candidate = self.last;
        for _ in 0..count.min(u32::try_from(self.taken.len()).unwrap_or(u32::MAX).saturating_add(1)) {
            candidate = if (first..last).contains(&candidate) { candidate + 1 } else { first };
            let ip = Ipv4Addr::from(candidate);
            if let std::collections::btree_map::Entry::Vacant(entry) = self.taken.entry(ip) {
                entry.insert(uid.clone());
                self.by_pod.insert(uid.clone(), ip);
                self.last = candidate;
                return Some((ip, Fresh::Yes));
            }
        }
        None
    }

    /// Takes an address back.
    pub(crate) fn give_back(&mut self, uid: &PodUid) {
        if let Some(ip) = self.by_pod.remove(uid) {
            self.taken.remove(&ip);
        }
    }
}

/// Whether an address was given just now, and so is to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fresh {
    Yes,
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_unique_stable_and_come_back() {
        let range: Ipv4Net = "10.42.0.0/29".parse().unwrap();
        let mut addresses = Addresses::new(range, BTreeMap::new());
        let uid = |n: u32| PodUid::new(format!("u{n}"));
        let given: Vec<_> = (0..5).map(|n| addresses.take(&uid(n)).unwrap().0.to_string()).collect();
        assert_eq!(given, ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6"]);
        assert_eq!(addresses.take(&uid(9)), None);
        assert_eq!(addresses.take(&uid(3)).unwrap(), ("10.42.0.5".parse().unwrap(), Fresh::No));
        addresses.give_back(&uid(1));
        assert_eq!(addresses.take(&uid(9)).unwrap().0.to_string(), "10.42.0.3");
    }

    #[test]
    fn what_was_recorded_is_kept() {
        let range: Ipv4Net = "10.42.0.0/24".parse().unwrap();
        let recorded = [(PodUid::new("a"), "10.42.0.2".parse().unwrap())].into();
        let mut addresses = Addresses::new(range, recorded);
        assert_eq!(addresses.take(&PodUid::new("b")).unwrap().0.to_string(), "10.42.0.3");
        assert_eq!(addresses.take(&PodUid::new("a")).unwrap().0.to_string(), "10.42.0.2");
    }
}
