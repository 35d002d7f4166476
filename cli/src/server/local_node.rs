//! The node on the control plane's own machine: its agent, its Services, and the way the API reaches it, all in this process.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use coracle_apiserver::{Body, Connected, NodeError, NodeProxy};
use coracle_node::{Handler, Node, NodeConfig, Registries};
use coracle_server::{Server, ServerConfig};
use coracle_services::{Names, ServicesConfig};
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Run;

/// Where a machine's own log collectors look, for a server with the machine's own data directory.
const MACHINE_LOGS: (&str, &str) = ("/var/lib/coracle", "/var/log");

/// A running node.
pub(super) struct LocalNode {
    name: String,
    ready: watch::Receiver<bool>,
    failed: watch::Receiver<Option<String>>,
    tasks: TaskTracker,
}

impl LocalNode {
    /// Opens and starts it; it is Ready a moment later.
    pub(super) async fn start(
        server: &Server,
        config: &ServerConfig,
        name: Option<&str>,
        run: &Run,
        registries: Registries,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => machine_name()?,
        };
        let client = server.node_client(&name);
        let mut node = NodeConfig::new(client.clone(), &name, server.data_dir());
        node.labels = run.labels.iter().cloned().collect();
        node.max_pods = run.max_pods;
        node.eviction_hard.clone_from(&run.eviction_hard);
        node.cri_endpoint.clone_from(&run.cri_endpoint);
        (node.registries, node.image_gc) = (Arc::new(registries), run.image_gc());
        if server.data_dir() == std::path::Path::new(MACHINE_LOGS.0) {
            node.log_root = Some(MACHINE_LOGS.1.into());
        }
        let names = Names::default();
        node.names = names.clone();
        let node = Node::open(node, stop.child_token()).await.context("the node does not start")?;
        server.set_nodes(Arc::new(InProcess { name: name.clone(), handler: node.handler() }));
        let (ready, host_ports, tasks) = (node.ready(), node.host_ports(), TaskTracker::new());
        let (failure, failed) = watch::channel(None);
        tasks.spawn(async move {
            if let Err(error) = node.run().await {
                failure.send_replace(Some(error.to_string()));
                // Kept open: whoever waits for a failure is to see this one.
                failure.closed().await;
            }
        });
        let services = ServicesConfig {
            node_name: name.clone(),
            node_address: own_address(),
            service_range: config.service_range,
            // Where no route can be set, pods have addresses of the node's own loopback.
            pod_ranges: vec![config.pod_range, coracle_node::LOOPBACK_RANGE],
            names,
            host_ports,
        };
        let told = |mode| tracing::info!(?mode, "Services are served");
        tasks.spawn(coracle_services::run(client, services, stop.child_token(), told));
        tasks.close();
        Ok(Self { name, ready, failed, tasks })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns once the node is Ready.
    pub(super) async fn ready(&self) -> anyhow::Result<()> {
        match self.ready.clone().wait_for(|ready| *ready).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("the node ended before it was Ready"),
        }
    }

    /// Returns when it has ended unasked, with why.
    pub(super) async fn failed(&self) -> String {
        match self.failed.clone().wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // It ends as it was told to.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for its end, which it was told of.
    pub(super) async fn ended(self, timeout: Duration) {
        let Self { tasks, failed, .. } = self;
        // A failure that was told is not to be waited for.
        drop(failed);
        if tokio::time::timeout(timeout, tasks.wait()).await.is_err() {
            eprintln!("the node did not end in {} seconds", timeout.as_secs());
        }
    }
}

/// The machine's name as a node may have it.
fn machine_name() -> anyhow::Result<String> {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_lowercase();
    if name.is_empty() {
        bail!("this machine has no name: give the node one with --node-name");
    }
    if let Some(why) = coracle_api::validation::dns1123_subdomain(&name).into_iter().next() {
        bail!("this machine's name, {name:?}, cannot be a node's ({why}): give the node one with --node-name");
    }
    Ok(name)
}

/// The address from which this machine reaches others; its loopback where it reaches none.
fn own_address() -> Ipv4Addr {
    match coracle_server::own_address() {
        Some(IpAddr::V4(address)) => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// The API's way to the agent in this process.
struct InProcess {
    name: String,
    handler: Handler,
}

impl NodeProxy for InProcess {
    fn request(&self, node: &str, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<Body>, NodeError>> {
        if node != self.name {
            return Box::pin(std::future::ready(Err(NodeError::Unknown)));
        }
        let handler = self.handler.clone();
        Box::pin(async move { Ok(handler.call(request.map(Full::new)).await.map(Body::wrap)) })
    }

    fn connect(&self, node: &str, request: Request<()>) -> BoxFuture<'static, Result<Connected, NodeError>> {
        if node != self.name {
            return Box::pin(std::future::ready(Err(NodeError::Unknown)));
        }
        let handler = self.handler.clone();
        Box::pin(async move {
            Ok(match handler.connect(request).await {
                Ok(upgraded) => {
                    let (protocol, stream, held) = upgraded.into_parts();
                    Connected::Upgraded { protocol, stream, held }
                }
                Err(refused) => Connected::Refused(refused.map(Body::wrap)),
            })
        })
    }
}
