//! The kernel's side: one nftables table with a map of frontends and a map of backends, changed element by element.
//!
//! A frontend's verdict is a chain for its number of backends; the chain draws a number below it, and the pair of frontend
//! and number names the backend. So the rules stay the same however many Services there are, and one endpoint's change
//! touches the elements of its frontends only.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::ServicesConfig;
use crate::table::{Change, Frontend, Protocol};

/// The kernel cannot serve Services here.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The tools are not installed.
    #[error("{0} is not installed (Debian: apt-get install nftables iproute2)")]
    Missing(&'static str),
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
pub(crate) struct Nft {
    table: String,
    /// Numbers of backends that have a chain.
    counts: BTreeSet<usize>,
    route: Vec<String>,
}

impl Nft {
    /// Makes the table anew; whatever an earlier life left is gone with it, in one transaction.
    pub(crate) async fn open(config: &ServicesConfig) -> Result<Self, NftError> {
        let table = config.nft_table.clone();
        run("nft", &["-f", "-"], Some(&skeleton(&table))).await?;
        // Without a route to the range a connection fails before it meets the table.
        let route: Vec<String> =
            [&config.service_range.to_string(), "dev", "lo", "src", &config.node_address.to_string()]
                .map(ToString::to_string)
                .into();
        let mut add = vec!["route", "replace"];
        add.extend(route.iter().map(String::as_str));
        if let Err(error) = run("ip", &add, None).await {
            let _ = run("nft", &["delete", "table", "ip", &table], None).await;
            return Err(error);
        }
        Ok(Self { table, counts: BTreeSet::new(), route })
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

fn skeleton(table: &str) -> String {
    format!(
        "table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  map frontends {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map nodeports {{ type inet_proto . inet_service : verdict; }}
  map backends {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map nodeport_backends {{ type inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  set refused {{ type ipv4_addr . inet_proto . inet_service; }}
  set refused_nodeports {{ type inet_proto . inet_service; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @frontends
    fib daddr type local meta l4proto . th dport vmap @nodeports
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain refuse {{
    ip daddr . meta l4proto . th dport @refused reject
    fib daddr type local meta l4proto . th dport @refused_nodeports reject
  }}
  chain filter_input {{ type filter hook input priority filter; policy accept; ct state new jump refuse; }}
  chain filter_forward {{ type filter hook forward priority filter; policy accept; ct state new jump refuse; }}
  chain filter_output {{ type filter hook output priority filter; policy accept; ct state new jump refuse; }}
}}
"
    )
}

/// The transaction for some changes, and the numbers of backends that have chains after it.
fn script(table: &str, changes: &[Change], counts: &BTreeSet<usize>) -> (String, BTreeSet<usize>) {
    let mut counts = counts.clone();
    let mut out = String::new();
    for change in changes {
        if let Some(before) = &change.before {
            elements(&mut out, "delete", table, change.frontend, before);
        }
        if let Some(after) = &change.after {
            if !after.is_empty() && counts.insert(after.len()) {
                chains(&mut out, table, after.len());
            }
            elements(&mut out, "add", table, change.frontend, after);
        }
    }
    (out, counts)
}

fn chains(out: &mut String, table: &str, n: usize) {
    for (prefix, key, map) in [
        ("of", "ip daddr . meta l4proto . th dport . meta mark", "backends"),
        ("port_of", "meta l4proto . th dport . meta mark", "nodeport_backends"),
    ] {
        let _ = writeln!(out, "add chain ip {table} {prefix}_{n}");
        let _ = writeln!(out, "add rule ip {table} {prefix}_{n} meta mark set numgen random mod {n}");
        let _ = writeln!(out, "add rule ip {table} {prefix}_{n} dnat ip to {key} map @{map}");
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

fn elements(out: &mut String, verb: &str, table: &str, frontend: Frontend, backends: &[SocketAddrV4]) {
    let (key, map, backend_map, refused, chain) = match frontend {
        Frontend::Address(ip, p, port) => {
            (format!("{ip} . {} . {port}", protocol(p)), "frontends", "backends", "refused", "of")
        }
        Frontend::NodePort(p, port) => {
            (format!("{} . {port}", protocol(p)), "nodeports", "nodeport_backends", "refused_nodeports", "port_of")
        }
    };
    if backends.is_empty() {
        let _ = writeln!(out, "{verb} element ip {table} {refused} {{ {key} }}");
        return;
    }
    let list: Vec<String> =
        backends.iter().enumerate().map(|(i, b)| format!("{key} . {i:#010x} : {} . {}", b.ip(), b.port())).collect();
    let map_line = format!("{verb} element ip {table} {map} {{ {key} : goto {chain}_{} }}\n", backends.len());
    let backend_line = format!("{verb} element ip {table} {backend_map} {{ {} }}\n", list.join(", "));
    // Within a transaction order only matters for names; this one reads well in `nft monitor`.
    out.push_str(&backend_line);
    out.push_str(&map_line);
}

async fn run(tool: &'static str, arguments: &[&str], input: Option<&str>) -> Result<(), NftError> {
    let refused = |message: String| NftError::Refused { tool, message };
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            if e.kind() == std::io::ErrorKind::NotFound { NftError::Missing(tool) } else { refused(e.to_string()) }
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
    fn a_change_touches_its_own_elements() {
        let frontend = Frontend::Address("10.43.0.5".parse().unwrap(), Protocol::Tcp, 80);
        let backends: Vec<SocketAddrV4> = ["10.42.0.1:8080", "10.42.0.2:8080"].map(|a| a.parse().unwrap()).into();
        let up = Change { frontend, before: Some(vec![]), after: Some(backends.clone()) };
        let (text, counts) = script("t", &[up], &BTreeSet::new());
        assert_eq!(counts, BTreeSet::from([2]));
        assert_eq!(
            text,
            "delete element ip t refused { 10.43.0.5 . tcp . 80 }
add chain ip t of_2
add rule ip t of_2 meta mark set numgen random mod 2
add rule ip t of_2 dnat ip to ip daddr . meta l4proto . th dport . meta mark map @backends
add chain ip t port_of_2
add rule ip t port_of_2 meta mark set numgen random mod 2
add rule ip t port_of_2 dnat ip to meta l4proto . th dport . meta mark map @nodeport_backends
add element ip t backends { 10.43.0.5 . tcp . 80 . 0x00000000 : 10.42.0.1 . 8080, 10.43.0.5 . tcp . 80 . 0x00000001 : 10.42.0.2 . 8080 }
add element ip t frontends { 10.43.0.5 . tcp . 80 : goto of_2 }
"
        );
        let port = Frontend::NodePort(Protocol::Udp, 30053);
        let down = Change { frontend: port, before: Some(backends), after: None };
        let (text, _) = script("t", &[down], &counts);
        assert_eq!(
            text,
            "delete element ip t nodeport_backends { udp . 30053 . 0x00000000 : 10.42.0.1 . 8080, udp . 30053 . 0x00000001 : 10.42.0.2 . 8080 }
delete element ip t nodeports { udp . 30053 : goto port_of_2 }
"
        );
    }
}
