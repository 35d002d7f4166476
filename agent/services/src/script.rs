//! The text of nftables transactions: from changes of the table to the elements, chains and sets that carry them out. Pure.
//!
//! A frontend's verdict is a chain for its number of backends; the chain draws a number below it, and the pair of frontend
//! and number names the backend. So the rules stay the same however many Services there are, and one endpoint's change
//! touches the elements of its frontends only. A frontend whose clients keep their backends has chains of its own: one per
//! backend, with a set of the clients that it took.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddrV4;

use ipnet::Ipv4Net;

use crate::table::{Change, Frontend, Protocol, Target, Without};

/// The table without any frontend. Whatever was there under its name is gone with it, in one transaction.
/// TCP is refused by a reset: an ICMP answer to a connection from 127.0.0.1 is a martian, and would never arrive.
/// Addresses of pods may be local ones too; a node's ports are not theirs, and a pod may listen on the same number.
pub(crate) fn skeleton(table: &str, comment: &str, pods: &[Ipv4Net]) -> String {
    let ranges: Vec<String> = pods.iter().map(ToString::to_string).collect();
    let not_pods = if pods.is_empty() { String::new() } else { format!("ip daddr != {{ {} }} ", ranges.join(", ")) };
    format!(
        "table ip {table} {{}}
delete table ip {table}
table ip {table} {{
  comment \"{comment}\"
  map frontends {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map nodeports {{ type inet_proto . inet_service : verdict; }}
  map backends {{ type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map nodeport_backends {{ type inet_proto . inet_service . mark : ipv4_addr . inet_service; }}
  map without {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map nodeports_without {{ type inet_proto . inet_service : verdict; }}
  chain services {{
    ip daddr . meta l4proto . th dport vmap @frontends
    {not_pods}fib daddr type local meta l4proto . th dport vmap @nodeports
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
  chain output {{ type nat hook output priority -100; policy accept; jump services; }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject
  }}
  chain without_backend {{
    ip daddr . meta l4proto . th dport vmap @without
    {not_pods}fib daddr type local meta l4proto . th dport vmap @nodeports_without
  }}
  chain filter_input {{ type filter hook input priority filter; policy accept; ct state new jump without_backend; }}
  chain filter_forward {{ type filter hook forward priority filter; policy accept; ct state new jump without_backend; }}
  chain filter_output {{ type filter hook output priority filter; policy accept; ct state new jump without_backend; }}
}}
"
    )
}

/// The transaction for some changes, and the numbers of backends that have chains after it.
pub(crate) fn script(table: &str, changes: &[Change], counts: &BTreeSet<usize>) -> (String, BTreeSet<usize>) {
    let mut script = Script { table, counts: counts.clone(), out: String::new() };
    for change in changes {
        script.change(change);
    }
    (script.out, script.counts)
}

struct Script<'a> {
    table: &'a str,
    counts: BTreeSet<usize>,
    out: String,
}

/// The names that belong to one sort of frontend, and its key in the maps.
struct Names {
    key: String,
    verdicts: &'static str,
    backends: &'static str,
    without: &'static str,
    chain: &'static str,
    /// The chain of its own, where clients keep their backends.
    own: String,
    protocol: &'static str,
}

impl Names {
    fn of(frontend: Frontend) -> Self {
        match frontend {
            Frontend::Address(ip, protocol, port) => Self {
                key: format!("{ip} . {} . {port}", name(protocol)),
                verdicts: "frontends",
                backends: "backends",
                without: "without",
                chain: "of",
                own: format!("keep_{ip}_{}_{port}", name(protocol)),
                protocol: name(protocol),
            },
            Frontend::NodePort(protocol, port) => Self {
                key: format!("{} . {port}", name(protocol)),
                verdicts: "nodeports",
                backends: "nodeport_backends",
                without: "nodeports_without",
                chain: "port_of",
                own: format!("keep_port_{}_{port}", name(protocol)),
                protocol: name(protocol),
            },
        }
    }

    /// The verdict of a frontend with this target, if it has backends.
    fn verdict(&self, target: &Target) -> Option<String> {
        match (target.backends.len(), target.affinity_seconds) {
            (0, _) => None,
            (n, None) => Some(format!("goto {}_{n}", self.chain)),
            (_, Some(_)) => Some(format!("goto {}", self.own)),
        }
    }

    fn client_set(&self, backend: &SocketAddrV4) -> String {
        format!("{}_{}_{}", self.own, backend.ip(), backend.port())
    }
}

impl Script<'_> {
    fn change(&mut self, change: &Change) {
        let names = Names::of(change.frontend);
        let none = Target::default();
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let (had, has) = (before.unwrap_or(&none), after.unwrap_or(&none));
        // What is to be pointed at comes first, what nothing points at any more goes last.
        let (old, new) = (before.and_then(|t| names.verdict(t)), after.and_then(|t| names.verdict(t)));
        let (keeps_before, keeps_after) = (keeps(had), keeps(has));
        if keeps_after {
            self.keep(&names, if keeps_before { had } else { &none }, has);
        } else if new.is_some() && self.counts.insert(has.backends.len()) {
            self.chains(has.backends.len());
        }
        let plain = |target: &Target| if keeps(target) { Vec::new() } else { target.backends.clone() };
        self.numbered(&names, &plain(had), &plain(has));
        if old != new {
            self.element("delete", names.verdicts, &names.key, old.as_deref());
            self.element("add", names.verdicts, &names.key, new.as_deref());
        }
        let (old, new) = (before.and_then(without), after.and_then(without));
        if old != new {
            self.element("delete", names.without, &names.key, old);
            self.element("add", names.without, &names.key, new);
        }
        if keeps_before && !keeps_after {
            self.forget(&names, had);
        }
    }

    fn element(&mut self, verb: &str, map: &str, key: &str, verdict: Option<&str>) {
        if let Some(verdict) = verdict {
            let _ = writeln!(self.out, "{verb} element ip {} {map} {{ {key} : {verdict} }}", self.table);
        }
    }

    /// The numbered backends: only places that hold another one are touched.
    fn numbered(&mut self, names: &Names, before: &[SocketAddrV4], after: &[SocketAddrV4]) {
        let (table, map, key) = (self.table, names.backends, &names.key);
        let differs = |at: &usize| before.get(*at) != after.get(*at);
        let places: Vec<usize> = (0..before.len().max(after.len())).filter(differs).collect();
        for (verb, list) in [("delete", before), ("add", after)] {
            let elements: Vec<String> = places
                .iter()
                .filter_map(|at| Some((at, list.get(*at)?)))
                .map(|(at, backend)| format!("{key} . {at:#010x} : {} . {}", backend.ip(), backend.port()))
                .collect();
            if !elements.is_empty() {
                let _ = writeln!(self.out, "{verb} element ip {table} {map} {{ {} }}", elements.join(", "));
            }
        }
    }

    fn chains(&mut self, n: usize) {
        let table = self.table;
        for (prefix, key, map) in [
            ("of", "ip daddr . meta l4proto . th dport . meta mark", "backends"),
            ("port_of", "meta l4proto . th dport . meta mark", "nodeport_backends"),
        ] {
            let _ = writeln!(self.out, "add chain ip {table} {prefix}_{n}");
            let _ = writeln!(self.out, "add rule ip {table} {prefix}_{n} meta mark set numgen random mod {n}");
            let _ = writeln!(self.out, "add rule ip {table} {prefix}_{n} dnat ip to {key} map @{map}");
        }
    }

    /// The chains of a frontend whose clients keep their backends. Sets of backends that stay are not touched, unless the
    /// time for which clients are remembered has changed.
    fn keep(&mut self, names: &Names, had: &Target, has: &Target) {
        let (table, own) = (self.table, &names.own);
        let seconds = has.affinity_seconds.unwrap_or_default();
        let same_time = had.affinity_seconds == has.affinity_seconds;
        let stays = |backend: &SocketAddrV4, in_: &Target| same_time && in_.backends.contains(backend);
        let _ = writeln!(self.out, "add chain ip {table} {own}\nflush chain ip {table} {own}");
        for backend in had.backends.iter().filter(|backend| !stays(backend, has)) {
            self.forget_backend(names, backend);
        }
        for backend in has.backends.iter().filter(|backend| !stays(backend, had)) {
            let (set, protocol) = (names.client_set(backend), names.protocol);
            let _ = writeln!(
                self.out,
                "add set ip {table} {set} {{ type ipv4_addr; flags dynamic,timeout; timeout {seconds}s; }}
add chain ip {table} {set}
add rule ip {table} {set} update @{set} {{ ip saddr }}
add rule ip {table} {set} meta l4proto {protocol} dnat ip to {backend}"
            );
        }
        for backend in &has.backends {
            let set = names.client_set(backend);
            let _ = writeln!(self.out, "add rule ip {table} {own} ip saddr @{set} goto {set}");
        }
        let draws: Vec<String> = has
            .backends
            .iter()
            .enumerate()
            .map(|(at, backend)| format!("{at} : goto {}", names.client_set(backend)))
            .collect();
        let n = has.backends.len();
        let _ = writeln!(self.out, "add rule ip {table} {own} numgen random mod {n} vmap {{ {} }}", draws.join(", "));
    }

    fn forget(&mut self, names: &Names, had: &Target) {
        let (table, own) = (self.table, &names.own);
        let _ = writeln!(self.out, "flush chain ip {table} {own}\ndelete chain ip {table} {own}");
        for backend in &had.backends {
            self.forget_backend(names, backend);
        }
    }

    fn forget_backend(&mut self, names: &Names, backend: &SocketAddrV4) {
        let (table, set) = (self.table, names.client_set(backend));
        let _ = writeln!(
            self.out,
            "flush chain ip {table} {set}\ndelete chain ip {table} {set}\ndelete set ip {table} {set}"
        );
    }
}

fn keeps(target: &Target) -> bool {
    target.affinity_seconds.is_some() && !target.backends.is_empty()
}

/// What a frontend without backends does.
fn without(target: &Target) -> Option<&'static str> {
    match (target.backends.is_empty(), target.without) {
        (false, _) => None,
        (true, Without::Refuse) => Some("goto refuse"),
        (true, Without::Drop) => Some("drop"),
    }
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn target(backends: &[&str]) -> Target {
        Target { backends: backends.iter().map(|a| a.parse().unwrap()).collect(), ..Target::default() }
    }

    const VIP: Frontend = Frontend::Address(std::net::Ipv4Addr::new(10, 43, 0, 5), Protocol::Tcp, 80);
    const PORT: Frontend = Frontend::NodePort(Protocol::Udp, 30053);

    fn step(frontend: Frontend, before: Option<Target>, after: Option<Target>) -> Change {
        Change { frontend, before, after }
    }

    #[test]
    fn a_change_touches_its_own_elements() {
        let two = target(&["10.42.0.1:8080", "10.42.0.2:8080"]);
        let (text, counts) = script("t", &[step(VIP, Some(target(&[])), Some(two.clone()))], &BTreeSet::new());
        assert_eq!(counts, BTreeSet::from([2]));
        assert_eq!(
            text,
            "add chain ip t of_2
add rule ip t of_2 meta mark set numgen random mod 2
add rule ip t of_2 dnat ip to ip daddr . meta l4proto . th dport . meta mark map @backends
add chain ip t port_of_2
add rule ip t port_of_2 meta mark set numgen random mod 2
add rule ip t port_of_2 dnat ip to meta l4proto . th dport . meta mark map @nodeport_backends
add element ip t backends { 10.43.0.5 . tcp . 80 . 0x00000000 : 10.42.0.1 . 8080, 10.43.0.5 . tcp . 80 . 0x00000001 : 10.42.0.2 . 8080 }
add element ip t frontends { 10.43.0.5 . tcp . 80 : goto of_2 }
delete element ip t without { 10.43.0.5 . tcp . 80 : goto refuse }
"
        );
        let other = target(&["10.42.0.1:8080", "10.42.0.9:8080"]);
        let (text, _) = script("t", &[step(VIP, Some(two.clone()), Some(other))], &counts);
        assert_eq!(
            text,
            "delete element ip t backends { 10.43.0.5 . tcp . 80 . 0x00000001 : 10.42.0.2 . 8080 }
add element ip t backends { 10.43.0.5 . tcp . 80 . 0x00000001 : 10.42.0.9 . 8080 }
"
        );
        let (text, _) = script("t", &[step(PORT, Some(two), None)], &counts);
        assert_eq!(
            text,
            "delete element ip t nodeport_backends { udp . 30053 . 0x00000000 : 10.42.0.1 . 8080, udp . 30053 . 0x00000001 : 10.42.0.2 . 8080 }
delete element ip t nodeports { udp . 30053 : goto port_of_2 }
"
        );
    }

    #[test]
    fn clients_that_keep_their_backend_have_sets_that_outlive_changes_of_others() {
        let kept = |backends: &[&str], seconds| Target { affinity_seconds: Some(seconds), ..target(backends) };
        let before = kept(&["10.42.0.1:80", "10.42.0.2:80"], 60);
        let after = kept(&["10.42.0.1:80", "10.42.0.3:80"], 60);
        let (text, _) = script("t", &[step(VIP, Some(before), Some(after))], &BTreeSet::new());
        assert!(!text.contains("delete set ip t keep_10.43.0.5_tcp_80_10.42.0.1_80"), "{text}");
        assert!(text.contains("delete set ip t keep_10.43.0.5_tcp_80_10.42.0.2_80"), "{text}");
        assert!(text.contains("add set ip t keep_10.43.0.5_tcp_80_10.42.0.3_80 { type ipv4_addr; flags dynamic,timeout; timeout 60s; }"), "{text}");
        assert!(!text.contains("element"), "the frontend still points at its own chain: {text}");
    }

    /// Every step from each kind of target to each other one, in the kernel, in a network namespace of its own. A step that
    /// leaves something behind or names what is not there is refused or shows at the end.
    #[test]
    fn the_kernel_takes_every_step() {
        let kept = |backends: &[&str], seconds| Some(Target { affinity_seconds: Some(seconds), ..target(backends) });
        let dropping = Target { without: Without::Drop, ..Target::default() };
        let states = [
            None,
            Some(target(&[])),
            Some(dropping),
            Some(target(&["10.42.0.1:80"])),
            Some(target(&["10.42.0.1:80", "10.42.0.2:80"])),
            Some(target(&["10.42.0.2:80", "10.42.0.3:80", "10.42.0.1:80"])),
            kept(&["10.42.0.1:80"], 60),
            kept(&["10.42.0.1:80", "10.42.0.2:80"], 60),
            kept(&["10.42.0.1:80", "10.42.0.2:80"], 90),
            kept(&["10.42.0.3:80"], 90),
        ];
        let mut shell = String::from("set -e\n");
        let mut run = |text: &str| shell.push_str(&format!("nft -f - <<'EOF'\n{text}EOF\n"));
        run(&skeleton("t", "a test", &["10.42.0.0/16".parse().unwrap()]));
        let mut counts = BTreeSet::new();
        for frontend in [VIP, PORT] {
            for before in &states {
                for after in &states {
                    let there = [step(frontend, None, before.clone()), step(frontend, before.clone(), after.clone())];
                    for change in there.into_iter().chain([step(frontend, after.clone(), None)]) {
                        let (text, more) = script("t", &[change], &counts);
                        counts = more;
                        run(&text);
                    }
                }
            }
        }
        shell.push_str("nft list table ip t\n");
        let left = in_a_network_of_its_own(&shell);
        assert!(!left.contains("elements") && !left.contains("keep_"), "{left}");
    }

    /// What a script prints that runs in a network namespace of its own.
    fn in_a_network_of_its_own(shell: &str) -> String {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("unshare (util-linux) is installed");
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), shell.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "this needs root and nftables (apt-get install nftables): {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A pod that listens on the number of a node port gets what is sent to its own address, and the node port's backend
    /// what is sent to the node's.
    #[test]
    fn a_node_port_is_not_a_port_of_pods() {
        let taken = step(Frontend::NodePort(Protocol::Tcp, 30080), None, Some(target(&["10.42.0.9:8080"])));
        let refusing = step(Frontend::NodePort(Protocol::Tcp, 30081), None, Some(target(&[])));
        let (changes, _) = script("t", &[taken, refusing], &BTreeSet::new());
        let mut shell = String::from("set -e\nip link set lo up\nip route add local 10.42.0.0/24 dev lo\n");
        for text in [skeleton("t", "a test", &["10.42.0.0/16".parse().unwrap()]), changes] {
            shell.push_str(&format!("nft -f - <<'EOF'\n{text}EOF\n"));
        }
        shell.push_str(
            "python3 - <<'EOF'
import socket, threading
def serve(ip, port, name):
    s = socket.create_server((ip, port))
    def loop():
        while True:
            c, _ = s.accept()
            c.sendall(name.encode()); c.close()
    threading.Thread(target=loop, daemon=True).start()
serve('10.42.0.5', 30080, 'pod')
serve('10.42.0.5', 30081, 'other')
serve('10.42.0.9', 8080, 'backend')
for ip, port in [('10.42.0.5', 30080), ('10.42.0.5', 30081), ('127.0.0.1', 30080), ('127.0.0.1', 30081)]:
    try:
        print(socket.create_connection((ip, port), 5).recv(20).decode())
    except ConnectionRefusedError:
        print('refused')
EOF
",
        );
        assert_eq!(in_a_network_of_its_own(&shell), "pod\nother\nbackend\nrefused\n");
    }
}
