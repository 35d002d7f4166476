//! What the node's own network needs for pods that have a namespace: packets are forwarded, and what leaves for elsewhere
//! leaves under the node's address.

use std::{fs, process::Stdio};

use ipnet::Ipv4Net;
use tokio::{io::AsyncWriteExt, process::Command};

use super::link;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Prepares the node for pods of this range. It may be done again at any time.
pub(crate) async fn prepare(range: Ipv4Net) -> Result<(), String> {
    if fs::read_to_string(FORWARDING).map_err(|error| format!("{FORWARDING}: {error}"))?.trim() != "1" {
        fs::write(FORWARDING, "1").map_err(|error| format!("{FORWARDING}: {error}"))?;
    }
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`nft` cannot be run: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script(range).as_bytes()).await.map_err(|error| format!("`nft`: {error}"))?;
    }
    let output = child.wait_with_output().await.map_err(|error| format!("`nft`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`nft`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A table for this range, made anew. Pods see each other, and the node's own addresses see them, under their own address.
fn script(range: Ipv4Net) -> String {
    let links = link::PREFIX;
    let table = format!("coracle_pods_{}", u32::from(range.network()));
    format!(
        "table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {range} ip daddr != {range} oifname != \"lo\" oifname != \"{links}*\" masquerade
  }}
}}
"
    )
}
