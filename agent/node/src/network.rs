//! How this machine reaches its pods: the node's range routed as local, or a part of the loopback range where that cannot
//! be. A range is claimed first, so that two agents in one network namespace never give out the same addresses.

use std::{
    io,
    net::Ipv4Addr,
    os::{linux::net::SocketAddrExt, unix::net as unix},
};

use ipnet::Ipv4Net;
use tokio::process::Command;

/// Addresses for pods where no route can be set.
pub const LOOPBACK_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 64, 0, 0), 10);
/// One agent's part of them: room for as many pods as one process can run.
const LOOPBACK_PREFIX: u8 = 18;

/// Whether the range is reached by a route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodNetwork {
    /// The node's part of the pod network, routed as local.
    Routed(Ipv4Net),
    /// A part of the loopback range: pods are reached from this machine only.
    Loopback(Ipv4Net),
}

impl PodNetwork {
    /// The range itself.
    pub(crate) fn range(self) -> Ipv4Net {
        match self {
            Self::Routed(range) | Self::Loopback(range) => range,
        }
    }
}

/// A range that is in use, and the claim on it, which ends with this value or with the process.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) network: PodNetwork,
    /// The node's range as the API has it, whichever way it is reached.
    pub(crate) pod_cidr: Ipv4Net,
    _claim: unix::UnixListener,
}

/// Why pods of a range cannot have addresses.
#[derive(Debug, thiserror::Error)]
#[error(
    "every part of {range} is used by other agents on this machine; run this one in a network namespace of its own"
)]
pub(crate) struct NoRange {
    range: Ipv4Net,
}

impl Claimed {
    /// Sets the route for `pod_cidr`, or falls back to loopback addresses where that is not allowed or another agent has
    /// the range.
    pub(crate) async fn set_up(pod_cidr: Ipv4Net) -> Result<Self, NoRange> {
        match claim(pod_cidr) {
            Ok(claim) => match route("replace", pod_cidr).await {
                Ok(()) => return Ok(Self { network: PodNetwork::Routed(pod_cidr), pod_cidr, _claim: claim }),
                Err(why) => {
                    tracing::warn!(range = %pod_cidr, why, "no route for pods can be set; they get loopback addresses");
                }
            },
            Err(error) => tracing::warn!(
                range = %pod_cidr, %error,
                "another agent on this machine has this range, so that pods get loopback addresses; run one of the two in \
                 a network namespace of its own (ip netns)"
            ),
        }
        Self::loopback(pod_cidr)
    }

    /// The first part of the loopback range that nobody has.
    fn loopback(pod_cidr: Ipv4Net) -> Result<Self, NoRange> {
        let all = LOOPBACK_RANGE;
        let parts = all.subnets(LOOPBACK_PREFIX).expect("18 is longer than 10");
        let claimed = parts.into_iter().find_map(|part| Some((part, claim(part).ok()?)));
        let (part, claim) = claimed.ok_or(NoRange { range: all })?;
        Ok(Self { network: PodNetwork::Loopback(part), pod_cidr, _claim: claim })
    }

    /// Takes the route away: nothing of this range runs any more.
    pub(crate) async fn take_down(self) {
        if let PodNetwork::Routed(range) = self.network
            && let Err(why) = route("delete", range).await
        {
            tracing::debug!(%range, why, "the route of the pods was not removed");
        }
    }
}

/// Claims a range in this network namespace. The kernel gives the claim up when the process ends, however it ends.
fn claim(range: Ipv4Net) -> io::Result<unix::UnixListener> {
    let name = format!("coracle/pods/{range}");
    unix::UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(name)?)
}

async fn route(verb: &str, range: Ipv4Net) -> Result<(), String> {
    let arguments = ["route", verb, "local", &range.to_string(), "dev", "lo"].map(str::to_owned);
    match Command::new("ip").args(arguments).output().await {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("`ip` cannot be run: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_never_share_a_range() {
        let wanted: Ipv4Net = "198.18.0.0/24".parse().unwrap();
        let (first, second) = (Claimed::loopback(wanted).unwrap(), Claimed::loopback(wanted).unwrap());
        assert_ne!(first.network.range(), second.network.range());
        assert_eq!(first.network.range().prefix_len(), LOOPBACK_PREFIX);
        let again = first.network.range();
        drop(first);
        assert_eq!(Claimed::loopback(wanted).unwrap().network.range(), again, "a claim ends with its holder");
    }
}
