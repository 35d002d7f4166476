//! Addresses of pods: which of the node's range are taken, and by whom. It sets no route and opens no socket.

use std::{collections::BTreeMap, net::Ipv4Addr};

use coracle_agent_core::PodUid;
use ipnet::Ipv4Net;

/// The addresses of a node's pods.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Ipv4Net,
    taken: BTreeMap<Ipv4Addr, PodUid>,
    by_pod: BTreeMap<PodUid, Ipv4Addr>,
    /// The last one given: addresses go round, so that one is not given again right after it came back.
    last: u32,
}

impl Addresses {
    /// The addresses of a range, with those given before; of none yet when the range is not known.
    pub(crate) fn new(range: Option<Ipv4Net>, recorded: BTreeMap<PodUid, Ipv4Addr>) -> Self {
        let range = range.unwrap_or_default();
        let kept: BTreeMap<PodUid, Ipv4Addr> = recorded.into_iter().filter(|(_, ip)| range.contains(ip)).collect();
        let taken = kept.iter().map(|(uid, ip)| (*ip, uid.clone())).collect();
        Self { range, taken, by_pod: kept, last: u32::from(range.network()) }
    }

    /// Gives out addresses of another range from now on. Pods keep what they have.
    pub(crate) fn move_to(&mut self, range: Ipv4Net) {
        if self.range != range {
            (self.range, self.last) = (range, u32::from(range.network()));
        }
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

    /// Most pods that have addresses of a range.
    pub(crate) fn room(range: Ipv4Net) -> u32 {
        // All but the network's, the first and the broadcast address.
        u32::try_from((1_u64 << (32 - range.prefix_len())).saturating_sub(3)).unwrap_or(u32::MAX)
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
        let mut addresses = Addresses::new(Some(range), BTreeMap::new());
        let uid = |n: u32| PodUid::new(format!("u{n}"));
        let given: Vec<_> = (0..5).map(|n| addresses.take(&uid(n)).unwrap().0.to_string()).collect();
        assert_eq!(given, ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6"]);
        assert_eq!(addresses.take(&uid(9)), None);
        assert_eq!(addresses.take(&uid(3)).unwrap(), ("10.42.0.5".parse().unwrap(), Fresh::No));
        addresses.give_back(&uid(1));
        assert_eq!(addresses.take(&uid(9)).unwrap().0.to_string(), "10.42.0.3");
    }

    #[test]
    fn a_range_has_room_for_as_many_as_it_gives() {
        for range in ["10.42.0.0/29", "10.42.0.0/24", "10.42.0.0/22"] {
            let range: Ipv4Net = range.parse().unwrap();
            let mut addresses = Addresses::new(Some(range), BTreeMap::new());
            let given = (0..).take_while(|n| addresses.take(&PodUid::new(format!("u{n}"))).is_some()).count();
            assert_eq!(u32::try_from(given).unwrap(), Addresses::room(range), "{range}");
        }
    }

    #[test]
    fn what_was_recorded_is_kept() {
        let range: Ipv4Net = "10.42.0.0/24".parse().unwrap();
        let recorded = [(PodUid::new("a"), "10.42.0.2".parse().unwrap())].into();
        let mut addresses = Addresses::new(Some(range), recorded);
        assert_eq!(addresses.take(&PodUid::new("b")).unwrap().0.to_string(), "10.42.0.3");
        assert_eq!(addresses.take(&PodUid::new("a")).unwrap().0.to_string(), "10.42.0.2");
    }
}
