//! The kernel's side: one nftables table, named after the range of virtual IPs it serves, and a route to that range. It
//! carries out what [`crate::script`] says, by the tools `nft` and `ip`.

use std::collections::BTreeSet;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net as unix;
use std::process::Stdio;

use ipnet::Ipv4Net;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::ServicesConfig;
use crate::conntrack::{self, Stale};
use crate::script::{script, skeleton};
use crate::table::Change;

/// The kernel cannot serve Services here.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The tools are not installed.
    #[error("{0} is not installed (Debian: apt-get install nftables iproute2)")]
    Missing(&'static str),
    /// Somebody else serves the same range.
    #[error(
        "another server on this machine serves {0} already; run one of the two in a network namespace of its own (ip netns)"
    )]
    Taken(Ipv4Net),
    /// The kernel or the tool refused.
    #[error("{tool} refused: {message}")]
    Refused {
        /// `nft` or `ip`.
        tool: &'static str,
        /// What it said.
        message: String,
    },
}

/// The table in the kernel.
#[derive(Debug)]
pub(crate) struct Nft {
    table: String,
    /// Numbers of backends that have a chain.
    counts: BTreeSet<usize>,
    route: Vec<String>,
    comment: String,
    pods: Vec<Ipv4Net>,
    _claim: unix::UnixListener,
}

impl Nft {
    /// Claims the range and makes the table anew; what an earlier life left under its name is gone with it.
    pub(crate) async fn open(config: &ServicesConfig) -> Result<Self, NftError> {
        let claim = claim(config.service_range)?;
        let table = format!("coracle-{}", config.service_range.to_string().replace(['.', '/'], "-"));
        // Without a route to the range a connection fails before it meets the table.
        let route = [&config.service_range.to_string(), "dev", "lo", "src", &config.node_address.to_string()];
        let route = route.map(ToString::to_string).into();
        let comment = format!("Services of node {}", config.node_name);
        let pods = config.pod_ranges.clone();
        let mut nft = Self { table, counts: BTreeSet::new(), route, comment, pods, _claim: claim };
        nft.make_anew().await?;
        let mut add = vec!["route", "replace"];
        add.extend(nft.route.iter().map(String::as_str));
        if let Err(error) = run("ip", &add, None).await {
            let _ = run("nft", &["delete", "table", "ip", &nft.table], None).await;
            return Err(error);
        }
        Ok(nft)
    }

    /// Puts an empty table in the place of whatever is there.
    pub(crate) async fn make_anew(&mut self) -> Result<(), NftError> {
        run("nft", &["-f", "-"], Some(&skeleton(&self.table, &self.comment, &self.pods))).await?;
        self.counts.clear();
        Ok(())
    }

    /// Carries out changes as one transaction.
    pub(crate) async fn apply(&mut self, changes: &[Change]) -> Result<(), NftError> {
        let (text, counts) = script(&self.table, changes, &self.counts);
        if text.is_empty() {
            return Ok(());
        }
        run("nft", &["-f", "-"], Some(&text)).await?;
        self.counts = counts;
        Ok(())
    }

    /// Lets the kernel forget flows of datagrams that went to what is no backend any more. A failure is said and no more: the
    /// flows go on as before, until they are silent for a while.
    pub(crate) async fn drop_stale_flows(&self, changes: &[Change]) {
        let (stale, pods) = (Stale::after(changes), self.pods.clone());
        if stale.is_empty() {
            return;
        }
        match tokio::task::spawn_blocking(move || conntrack::delete(&stale, &pods)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(flows)) => tracing::debug!(flows, "flows to backends that are gone were ended"),
            Ok(Err(error)) => tracing::warn!(%error, "flows to backends that are gone cannot be ended"),
            Err(error) => tracing::warn!(%error, "flows to backends that are gone were not ended"),
        }
    }

    /// Takes everything out of the kernel.
    pub(crate) async fn close(self) {
        if let Err(error) = run("nft", &["delete", "table", "ip", &self.table], None).await {
            tracing::warn!(%error, "the nftables table was not removed");
        }
        let mut delete = vec!["route", "del"];
        delete.extend(self.route.iter().map(String::as_str));
        let _ = run("ip", &delete, None).await;
    }
}

/// Claims a range in this network namespace. The kernel gives the claim up when the process ends, however it ends.
fn claim(range: Ipv4Net) -> Result<unix::UnixListener, NftError> {
    let address = unix::SocketAddr::from_abstract_name(format!("coracle/services/{range}"));
    address.and_then(|address| unix::UnixListener::bind_addr(&address)).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => NftError::Taken(range),
        _ => NftError::Refused { tool: "the kernel", message: error.to_string() },
    })
}

async fn run(tool: &'static str, arguments: &[&str], input: Option<&str>) -> Result<(), NftError> {
    let refused = |message: String| NftError::Refused { tool, message };
    let mut child =
        Command::new(tool)
            .args(arguments)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| {
                if e.kind() == io::ErrorKind::NotFound { NftError::Missing(tool) } else { refused(e.to_string()) }
            })?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).await.map_err(|e| refused(e.to_string()))?;
    }
    let output = child.wait_with_output().await.map_err(|e| refused(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(refused(said.lines().next().unwrap_or("it failed").trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_at_a_time_serves_a_range() {
        let range: Ipv4Net = "198.18.7.0/24".parse().unwrap();
        let first = claim(range).unwrap();
        let error = claim(range).unwrap_err().to_string();
        assert!(error.starts_with("another server on this machine serves 198.18.7.0/24 already"), "{error}");
        drop(first);
        claim(range).unwrap();
    }
}
