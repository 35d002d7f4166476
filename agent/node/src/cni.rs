//! The network of pods with containers: our program is the CNI plugin that the container runtime runs, and the agent answers
//! it over a unix socket. Addresses are those that the agent gives to all its pods; the plugin keeps nothing.

mod host;
mod install;
pub(crate) mod link;
mod netlink;
mod plugin;

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use coracle_agent_core::PodUid;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use host::prepare;
pub(crate) use install::install;
pub use plugin::{is_plugin, run as run_plugin};

use crate::{network::PodNetwork, register::Known};

/// The plugin's type in the configuration, and so its file's name.
const PLUGIN_TYPE: &str = "coracle";
/// The plugin that every runtime calls for the loopback link.
const LOOPBACK_TYPE: &str = "loopback";
/// The versions of the specification that the plugin speaks, the newest last.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The largest packet of a pod's link: what any wire carries.
const MTU: u32 = 1500;
/// Questions answered at once.
const MAX_QUESTIONS: usize = 256;
/// Longest question.
const MAX_QUESTION_BYTES: u64 = 4096;
/// A plugin that does not ask in this time is let go.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// What the plugin asks for.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    /// Whether pods can have addresses now.
    Status,
    /// The address of a pod that is being made.
    Address {
        /// `metadata.uid`.
        pod: String,
    },
}

/// A pod's place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    ip: Ipv4Addr,
    /// The node's own address among its pods.
    node_ip: Ipv4Addr,
    mtu: u32,
}

/// Whoever knows the addresses of pods that are being made.
pub(crate) trait Leases: Send + Sync {
    /// The addresses of a pod whose sandbox is being made now; `None` for any other.
    fn addresses(&self, pod: &PodUid) -> Option<Vec<IpAddr>>;
}

/// Opens the socket that the plugin asks.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    crate::socket::listen(path)
}

/// Answers plugins until told to stop.
pub(crate) async fn serve(
    listener: UnixListener,
    leases: Arc<dyn Leases>,
    known: watch::Receiver<Known>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MAX_QUESTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a network plugin was not answered");
                continue;
            }
        };
        let (leases, known) = (Arc::clone(&leases), known.clone());
        tasks.spawn(async move {
            if let Ok(Err(error)) = timeout(QUESTION_TIMEOUT, converse(stream, &*leases, &known)).await {
                tracing::debug!(%error, "a network plugin went away");
            }
            drop(slot);
        });
    }
}

async fn converse(mut stream: UnixStream, leases: &dyn Leases, known: &watch::Receiver<Known>) -> io::Result<()> {
    let (from, mut to) = stream.split();
    let mut line = String::new();
    BufReader::new(from.take(MAX_QUESTION_BYTES)).read_line(&mut line).await?;
    let network = known.borrow().network.map(|(_, network)| network);
    let answer = match serde_json::from_str(&line) {
        Ok(question) => answer(question, leases, network),
        Err(error) => Err(format!("the question is not valid: {error}")),
    };
    let mut text = serde_json::to_string(&answer)?;
    text.push('\n');
    to.write_all(text.as_bytes()).await
}

fn answer(question: Question, leases: &dyn Leases, network: Option<PodNetwork>) -> Result<Option<Lease>, String> {
    let range = match network {
        Some(PodNetwork::Routed(range)) => range,
        Some(PodNetwork::Loopback(_)) => {
            return Err("another agent on this machine has this node's range of addresses, so that its pods have \
                        loopback addresses, which containers cannot have"
                .to_owned());
        }
        None => return Err("the node was given no range of addresses yet".to_owned()),
    };
    let Question::Address { pod } = question else { return Ok(None) };
    let addresses = leases.addresses(&PodUid::new(pod.as_str()));
    let addresses = addresses.ok_or_else(|| format!("no sandbox of the pod {pod} is being made"))?;
    let ip = addresses.into_iter().find_map(|ip| match ip {
        IpAddr::V4(ip) if !ip.is_loopback() => Some(ip),
        _ => None,
    });
    let ip = ip.ok_or("every address of the node is taken")?;
    // The first address of the range is given to no pod.
    Ok(Some(Lease { ip, node_ip: Ipv4Addr::from(u32::from(range.network()) + 1), mtu: MTU }))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One;

    impl Leases for One {
        fn addresses(&self, pod: &PodUid) -> Option<Vec<IpAddr>> {
            (pod.as_str() == "known").then(|| vec!["10.42.0.9".parse().unwrap()])
        }
    }

    #[test]
    fn a_pod_that_is_being_made_gets_its_address_and_no_other_does() {
        let routed = Some(PodNetwork::Routed("10.42.0.0/24".parse().unwrap()));
        let address = |pod: &str| Question::Address { pod: pod.to_owned() };
        let lease = Lease { ip: [10, 42, 0, 9].into(), node_ip: [10, 42, 0, 1].into(), mtu: MTU };
        assert_eq!(answer(address("known"), &One, routed), Ok(Some(lease)));
        assert!(answer(address("other"), &One, routed).is_err());
        assert!(answer(address("known"), &One, None).is_err());
        assert!(answer(Question::Status, &One, None).is_err());
        assert_eq!(answer(Question::Status, &One, routed), Ok(None));
        let loopback = Some(PodNetwork::Loopback("127.64.0.0/18".parse().unwrap()));
        assert!(answer(address("known"), &One, loopback).is_err());
    }
}
