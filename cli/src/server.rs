//! `coracle server`: a control plane, and a node on this machine unless told otherwise. It puts the parts together, says how far
//! it is, and stops them in order.

mod local_node;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use coracle_api::validation;
use coracle_node::{EvictionHard, ImageGcPolicy, Registries, Thresholds};
use coracle_server::{Server, ServerConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{How, apply_files},
    cluster::{Call, Cluster},
    discovery::Discovery,
    image::{Agent, image_name},
    manifest::Files,
    memory::ProgramPages,
    options::Options,
};

use local_node::LocalNode;

/// How long running work may take to end once the program is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// What is said of registries, in the data directory.
pub(crate) const REGISTRIES: &str = "registries.yaml";
/// How long a node may take to be Ready before something is wrong.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts a control plane and a node
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Objects to apply once the API answers
    #[arg(long, value_name = "FILE")]
    apply: Vec<PathBuf>,

    /// Images to import before that, as in `hello:v1=hello.wasm`
    #[arg(long, value_name = "NAME=FILE", value_parser = import)]
    import: Vec<(String, PathBuf)>,

    /// Run no pods on this machine
    #[arg(long)]
    no_node: bool,

    /// The node's name [default: the machine's]
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    node_name: Option<String>,

    /// Labels of the node
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Most pods of the node
    #[arg(long, value_name = "N", default_value_t = coracle_node::DEFAULT_MAX_PODS,
          value_parser = clap::value_parser!(u32).range(1..=30_000))]
    max_pods: u32,

    /// At what the node is under pressure and takes no more pods, as the kubelet has it: amounts or percentages of
    /// memory.available, nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available. What is
    /// not named has no threshold. Images are in the data directory: nodefs and imagefs are one file system
    #[arg(long, value_name = "SIGNAL<VALUE,…", default_value = coracle_node::DEFAULT_EVICTION_HARD)]
    eviction_hard: EvictionHard,

    /// The share of the disk, in percent, from which on unused images are removed
    #[arg(long, value_name = "PERCENT", default_value_t = ImageGcPolicy::default().thresholds.high_percent)]
    image_gc_high_threshold: u8,

    /// The share of the disk, in percent, down to which they are
    #[arg(long, value_name = "PERCENT", default_value_t = ImageGcPolicy::default().thresholds.low_percent)]
    image_gc_low_threshold: u8,

    /// How old an unused image must be to be removed
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = crate::time::duration)]
    minimum_image_ttl_duration: Duration,

    /// Mirrors, logins and certificates of image registries, in the form of k3s [default: registries.yaml in the data
    /// directory, if there is one]
    #[arg(long, value_name = "FILE")]
    private_registry: Option<PathBuf>,

    /// Where the container runtime listens; without one the node runs Wasm pods only
    #[arg(long, value_name = "SOCKET", default_value = coracle_node::DEFAULT_CRI_ENDPOINT)]
    cri_endpoint: PathBuf,

    /// Address the API listens on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    bind: IpAddr,

    /// TCP port of the API; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    port: u16,

    /// More names and addresses by which clients reach the API
    #[arg(long = "tls-san", value_name = "NAME", value_parser = server_name)]
    names: Vec<String>,

    /// How long clients may resume a watch from, as in 90s or 5m; what is older is forgotten where that saves space
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = crate::time::duration)]
    history: Duration,
}

fn import(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !file.is_empty() => Ok((image_name(name)?, file.into())),
        _ => Err("wanted is NAME=FILE, as in hello:v1=hello.wasm".to_owned()),
    }
}

/// What the API would refuse is refused here, where it can be mended.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("wanted is KEY=VALUE")?;
    first(validation::qualified_name(key))?;
    first(validation::label_value(value))?;
    if !validation::node_may_set_label(key) {
        return Err("a node's own labels in kubernetes.io and k8s.io are those of kubelet.kubernetes.io and \
                    node.kubernetes.io and what the machine is; set others with kubectl label once it is there"
            .to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn node_name(text: &str) -> Result<String, String> {
    first(validation::dns1123_subdomain(text))?;
    Ok(text.to_owned())
}

/// A name by which the API is reached: an address, or a name as certificates have it.
fn server_name(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_err() {
        first(validation::dns1123_subdomain(text.strip_prefix("*.").unwrap_or(text)))?;
    }
    Ok(text.to_owned())
}

fn first(complaints: Vec<String>) -> Result<(), String> {
    complaints.into_iter().next().map_or(Ok(()), Err)
}

impl Run {
    pub(crate) async fn run(self, options: &Options) -> anyhow::Result<()> {
        self.check()?;
        let registries = self.registries(&options.data_dir())?;
        let begun = Instant::now();
        coracle_node::raise_file_limit();
        let pages = ProgramPages::find();
        let data_dir = std::path::absolute(options.data_dir()).context("the data directory has no absolute path")?;
        // Asked for before anything starts, so that no early signal ends the program half-way.
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut config = ServerConfig::new(data_dir);
        (config.bind, config.port) = (self.bind, self.port);
        config.extra_names.clone_from(&self.names);
        config.history = self.history;
        let server = Server::start(config.clone()).await?;
        say(begun, format!("API ready at https://{}", shown(&server)));
        say(begun, format!("kubeconfig: {}", server.kubeconfig().display()));
        let stop = CancellationToken::new();
        let set_up = async {
            let node = match self.no_node {
                true => None,
                false => {
                    let name = self.node_name.as_deref();
                    Some(LocalNode::start(&server, &config, name, &self, registries, &stop).await?)
                }
            };
            if let Some(node) = &node {
                self.prepare_node(begun, &server, node).await?;
            }
            self.apply_all(begun, &server, options).await?;
            anyhow::Ok(node)
        };
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let outcome = tokio::select! {
            outcome = set_up => Some(outcome),
            () = signalled() => None,
        };
        let result = match outcome {
            Some(Ok(node)) => {
                tokio::spawn(pages.keep_small(stop.clone()));
                let failed = async {
                    match &node {
                        Some(node) => node.failed().await,
                        None => std::future::pending().await,
                    }
                };
                let failure = tokio::select! {
                    () = signalled() => None,
                    why = failed => Some(why),
                };
                if let Some(node) = node {
                    stop.cancel();
                    node.ended(STOP_TIMEOUT).await;
                }
                match failure {
                    None => Ok(()),
                    Some(why) => Err(anyhow::anyhow!("{why}; the server ends, start it again")),
                }
            }
            Some(Err(error)) => Err(error),
            None => Ok(()),
        };
        stop.cancel();
        eprintln!("stopping");
        match tokio::time::timeout(STOP_TIMEOUT, server.stop()).await {
            Ok(stopped) => stopped?,
            Err(_) => eprintln!("some requests did not end in {} seconds", STOP_TIMEOUT.as_secs()),
        }
        result
    }

    /// What can be told to be wrong before anything starts.
    fn check(&self) -> anyhow::Result<()> {
        if self.no_node {
            if let Some((name, _)) = self.import.first() {
                bail!("--import {name}=… needs a node on this machine: leave --no-node out");
            }
            if self.node_name.is_some() || !self.labels.is_empty() {
                bail!("--node-name and --label are a node's: leave --no-node out");
            }
            if self.private_registry.is_some() {
                bail!("--private-registry is a node's: leave --no-node out");
            }
        }
        self.image_gc().thresholds.check().map_err(anyhow::Error::msg)?;
        for (_, file) in &self.import {
            std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        }
        if !self.apply.is_empty() {
            self.files().read()?;
        }
        Ok(())
    }

    fn image_gc(&self) -> ImageGcPolicy {
        let (high_percent, low_percent) = (self.image_gc_high_threshold, self.image_gc_low_threshold);
        let thresholds = Thresholds { high_percent, low_percent };
        ImageGcPolicy { thresholds, minimum_age: self.minimum_image_ttl_duration }
    }

    /// What is said of registries: in the file that is named, else in that of the data directory.
    fn registries(&self, data_dir: &Path) -> anyhow::Result<Registries> {
        let usual = data_dir.join(REGISTRIES);
        match &self.private_registry {
            Some(file) => Ok(Registries::read(file)?),
            None if !self.no_node && usual.exists() => Ok(Registries::read(&usual)?),
            None => Ok(Registries::default()),
        }
    }

    fn files(&self) -> Files {
        Files { filenames: self.apply.clone(), recursive: false }
    }

    async fn prepare_node(&self, begun: Instant, server: &Server, node: &LocalNode) -> anyhow::Result<()> {
        if !rustix::process::geteuid().is_root() {
            eprintln!(
                "not root: Wasm pods run, on loopback addresses; Services have no virtual IPs, NodePorts work \
                 (`coracle check` tells more)"
            );
        }
        let agent = Agent::new(server.data_dir());
        for (name, file) in &self.import {
            agent.import(file, Some(name)).await?;
            say(begun, format!("image {name} imported"));
        }
        match tokio::time::timeout(READY_TIMEOUT, node.ready()).await {
            Ok(ready) => ready?,
            Err(_) => bail!(
                "the node is not Ready after {} seconds; its conditions tell why: coracle describe node {}",
                READY_TIMEOUT.as_secs(),
                node.name()
            ),
        }
        say(begun, format!("node {} Ready", node.name()));
        Ok(())
    }

    async fn apply_all(&self, begun: Instant, server: &Server, options: &Options) -> anyhow::Result<()> {
        if self.apply.is_empty() {
            return Ok(());
        }
        let own = Options { kubeconfig: Some(server.kubeconfig()), context: None, ..options.clone() };
        let cluster = Cluster::connect(&own).await?;
        let discovery = Discovery::fetch(&cluster).await?;
        let how = How { validate: "strict".to_owned(), ..How::default() };
        apply_files(&cluster, &discovery, &self.files(), &how).await?;
        for manifest in self.files().read()? {
            let target = manifest.resolve(&discovery, &cluster)?;
            if target.kind.resource() == "services" {
                let service = cluster.json(Call::get(target.path())).await?;
                for address in addresses(&service["spec"]) {
                    say(begun, format!("service {}: {address}", target.name));
                }
            }
        }
        Ok(())
    }
}

/// Where a Service is reached from this machine.
fn addresses(spec: &serde_json::Value) -> Vec<String> {
    let mut all = Vec::new();
    for port in spec["ports"].as_array().into_iter().flatten() {
        if let (Some(address), Some(port)) =
            (spec["clusterIP"].as_str().filter(|ip| *ip != "None"), port["port"].as_u64())
        {
            all.push(format!("http://{address}:{port}/"));
        }
        if let Some(port) = port["nodePort"].as_u64().filter(|port| *port != 0) {
            all.push(format!("http://127.0.0.1:{port}/"));
        }
    }
    all
}

/// The address people use: a server that listens everywhere is reached here.
fn shown(server: &Server) -> String {
    let address = server.address();
    if address.ip().is_unspecified() { format!("127.0.0.1:{}", address.port()) } else { address.to_string() }
}

/// A line of progress.
fn say(begun: Instant, what: String) {
    println!("[{:>6.2}s] {what}", begun.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::{Run, addresses};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    fn check(line: &str) -> Result<(), String> {
        let run = Line::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?.run;
        run.check().map_err(|error| error.to_string())
    }

    #[test]
    fn wrong_flags_are_told_before_anything_starts() {
        assert_eq!(check("server --port 0"), Ok(()));
        assert!(check("server --port 70000").is_err());
        assert!(check("server --bind nowhere").is_err());
        assert!(check("server --import hello").is_err());
        assert_eq!(check("server --import a=/no/such"), Err("cannot open /no/such".to_owned()));
        assert_eq!(check("server --apply /no/such"), Err("the path \"/no/such\" does not exist".to_owned()));
        assert!(check("server --no-node --node-name x").is_err());
        for wrong in [
            "--eviction-hard nodefs.available",
            "--eviction-hard disk<5%",
            "--node-name Bad_Name",
            "--label a",
            "--label a_/b=c",
            "--label a=-",
            "--tls-san bad_name",
        ] {
            assert!(check(&format!("server {wrong}")).is_err(), "{wrong}");
        }
        assert_eq!(check("server --eviction-hard memory.available<1,nodefs.available<1%"), Ok(()));
        assert_eq!(check("server --node-name edge-1.example --label example.com/a=b --tls-san 192.0.2.1"), Ok(()));
    }

    #[test]
    fn a_service_has_addresses() {
        let spec = json!({"clusterIP": "10.43.0.9", "ports": [{"port": 80, "nodePort": 30080}, {"port": 81}]});
        assert_eq!(addresses(&spec), ["http://10.43.0.9:80/", "http://127.0.0.1:30080/", "http://10.43.0.9:81/"]);
        assert!(addresses(&json!({"clusterIP": "None", "ports": [{"port": 80}]})).is_empty());
    }
}
