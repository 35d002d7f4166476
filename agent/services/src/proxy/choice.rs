//! Which backend a client gets: the next in turn, or the one it had, where the Service says so.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::table::Target;

/// Clients remembered for one port. When there are more, those that were away the longest are forgotten.
const MAX_CLIENTS: usize = 16_384;

/// Whose turn it is, and which client had which backend.
#[derive(Debug, Default)]
pub(super) struct Choice {
    next: AtomicUsize,
    kept: Mutex<HashMap<IpAddr, (SocketAddrV4, Instant)>>,
}

impl Choice {
    /// All backends in the order in which they are to be tried.
    pub(super) fn order(&self, target: &Target, client: IpAddr, now: Instant) -> Vec<SocketAddrV4> {
        let backends = &target.backends;
        if backends.is_empty() {
            return Vec::new();
        }
        let first = self
            .kept_by(target, client, now)
            .unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed) % backends.len());
        let (before, from) = backends.split_at(first);
        from.iter().chain(before).copied().collect()
    }

    /// A backend took a client.
    pub(super) fn took(&self, target: &Target, client: IpAddr, backend: SocketAddrV4, now: Instant) {
        let Some(seconds) = target.affinity_seconds else { return };
        let Ok(mut kept) = self.kept.lock() else { return };
        if kept.len() >= MAX_CLIENTS && !kept.contains_key(&client) {
            kept.retain(|_, (_, at)| now.duration_since(*at) < Duration::from_secs(u64::from(seconds)));
            if kept.len() >= MAX_CLIENTS
                && let Some(oldest) = kept.iter().min_by_key(|(_, (_, at))| *at).map(|(client, _)| *client)
            {
                kept.remove(&oldest);
            }
        }
        kept.insert(client, (backend, now));
    }

    fn kept_by(&self, target: &Target, client: IpAddr, now: Instant) -> Option<usize> {
        let seconds = u64::from(target.affinity_seconds?);
        let (backend, at) = *self.kept.lock().ok()?.get(&client)?;
        let fresh = now.duration_since(at) < Duration::from_secs(seconds);
        target.backends.iter().position(|known| fresh && *known == backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_remembered_for_as_long_as_the_service_says() {
        let backends: Vec<SocketAddrV4> = ["10.42.0.1:80", "10.42.0.2:80"].map(|text| text.parse().unwrap()).into();
        let target = Target { backends: backends.clone(), affinity_seconds: Some(60), ..Target::default() };
        let (choice, client, start) = (Choice::default(), IpAddr::from([192, 0, 2, 1]), Instant::now());
        choice.took(&target, client, backends[1], start);
        let at = |seconds| choice.order(&target, client, start + Duration::from_secs(seconds))[0];
        assert_eq!([at(0), at(30), at(59)], [backends[1]; 3]);
        // After that it is like any other, and the turns begin with the first.
        assert_eq!(at(60), backends[0]);
        let other = IpAddr::from([192, 0, 2, 2]);
        assert_eq!(choice.order(&target, other, start)[0], backends[1]);
        assert_eq!(choice.order(&target, other, start).len(), 2);
    }
}
