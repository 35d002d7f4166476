//! Flows of datagrams that the kernel goes on sending to where they went first. A flow's entry lives as long as datagrams
//! come, so a client that keeps its port would talk to a backend that is gone for ever; such entries are deleted
//! (`pkg/proxy/conntrack` of Kubernetes). Spoken is ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use ipnet::Ipv4Net;
use rustix::fd::OwnedFd;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

use crate::table::{Change, Frontend, Protocol, Target};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NFNL_SUBSYS_CTNETLINK << 8`, and its messages.
const CT_NEW: u16 = 0x100;
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
const FAMILY_IPV4: u8 = 2;
const NLA_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const UDP: u8 = 17;

/// Bytes of a message's header, and of what ctnetlink puts after it.
const HEADER: usize = 16;
const FAMILY: usize = 4;
/// What the kernel sends of a dump at once.
const ANSWER_BYTES: usize = 64 * 1024;
/// The kernel answers at once; this keeps a lost answer from holding the Services.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A flow of datagrams: from and to as the client sent, and whoever answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    from: SocketAddrV4,
    to: SocketAddrV4,
    answers: SocketAddrV4,
}

/// Frontends of datagrams whose flows may be stale after some changes, with the backends that are right.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Stale {
    addresses: HashMap<SocketAddrV4, HashSet<SocketAddrV4>>,
    node_ports: HashMap<u16, HashSet<SocketAddrV4>>,
}

impl Stale {
    /// A frontend's flows may be stale when it lost a backend, or has the first one: what came before was refused or went
    /// to whoever had the address, and is remembered so.
    pub(crate) fn after(changes: &[Change]) -> Self {
        let mut stale = Self::default();
        for change in changes {
            let none = Target::default();
            let had = &change.before.as_ref().unwrap_or(&none).backends;
            let has: HashSet<SocketAddrV4> = change.after.as_ref().unwrap_or(&none).backends.iter().copied().collect();
            let lost = had.iter().any(|backend| !has.contains(backend));
            let first = had.is_empty() && !has.is_empty();
            if !lost && !first {
                continue;
            }
            match change.frontend {
                Frontend::Address(ip, Protocol::Udp, port) => {
                    stale.addresses.insert(SocketAddrV4::new(ip, port), has);
                }
                Frontend::NodePort(Protocol::Udp, port) => {
                    stale.node_ports.insert(port, has);
                }
                _ => {}
            }
        }
        stale
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.node_ports.is_empty()
    }

    /// Whether a flow goes where it should not. The ports of pods' own addresses are not the node's.
    fn holds(&self, flow: &Flow, pods: &[Ipv4Net]) -> bool {
        let right = self.addresses.get(&flow.to).or_else(|| {
            let of_pod = pods.iter().any(|range| range.contains(flow.to.ip()));
            self.node_ports.get(&flow.to.port()).filter(|_| !of_pod)
        });
        right.is_some_and(|right| !right.contains(&flow.answers))
    }
}

/// Deletes the entries of stale flows, in the network namespace of the thread that calls it; says how many there were.
pub(crate) fn delete(stale: &Stale, pods: &[Ipv4Net]) -> io::Result<usize> {
    let netlink = Netlink::open()?;
    let flows: Vec<Flow> = netlink.flows()?.into_iter().filter(|flow| stale.holds(flow, pods)).collect();
    for flow in &flows {
        match netlink.delete(flow) {
            // It ended by itself.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(flows.len())
}

struct Netlink(OwnedFd);

impl Netlink {
    fn open() -> io::Result<Self> {
        let (family, flags) = (AddressFamily::NETLINK, SocketFlags::CLOEXEC);
        let socket = socket_with(family, SocketType::RAW, flags, Some(netlink::NETFILTER))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self(socket))
    }

    /// Every flow of datagrams over IPv4.
    fn flows(&self) -> io::Result<Vec<Flow>> {
        self.ask(CT_GET, NLM_F_DUMP, &[])?;
        let mut flows = Vec::new();
        self.answers(|kind, body| {
            if kind == CT_NEW {
                flows.extend(body.get(FAMILY..).and_then(flow));
            }
        })?;
        Ok(flows)
    }

    fn delete(&self, flow: &Flow) -> io::Result<()> {
        let mut addresses = attribute(CTA_IP_V4_SRC, &flow.from.ip().octets());
        addresses.extend(attribute(CTA_IP_V4_DST, &flow.to.ip().octets()));
        let mut ports = attribute(CTA_PROTO_NUM, &[UDP]);
        ports.extend(attribute(CTA_PROTO_SRC_PORT, &flow.from.port().to_be_bytes()));
        ports.extend(attribute(CTA_PROTO_DST_PORT, &flow.to.port().to_be_bytes()));
        let mut tuple = attribute(CTA_TUPLE_IP | NLA_NESTED, &addresses);
        tuple.extend(attribute(CTA_TUPLE_PROTO | NLA_NESTED, &ports));
        self.ask(CT_DELETE, NLM_F_ACK, &attribute(CTA_TUPLE_ORIG | NLA_NESTED, &tuple))?;
        self.answers(|_, _| {})
    }

    fn ask(&self, kind: u16, flags: u16, attributes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(HEADER + FAMILY + attributes.len()).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + FAMILY + attributes.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // Sequence and sender: one question at a time needs neither.
        message.extend([0; 8]);
        message.extend([FAMILY_IPV4, 0, 0, 0]);
        message.extend(attributes);
        send(&self.0, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Reads messages to the end of the answer.
    fn answers(&self, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let (size, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty())?;
            let mut rest = &buffer[..size];
            while let Some((kind, body, next)) = message(rest) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = body.get(..4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, body),
                }
                rest = next;
            }
        }
    }
}

/// The first message: its kind, what follows its header, and the messages after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of an attribute among others.
fn find(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        if kind & NLA_TYPE_MASK == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

/// Source and destination of a tuple of UDP.
fn tuple(bytes: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let (ip, proto) = (find(bytes, CTA_TUPLE_IP)?, find(bytes, CTA_TUPLE_PROTO)?);
    if find(proto, CTA_PROTO_NUM)?.first() != Some(&UDP) {
        return None;
    }
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(find(ip, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(find(proto, kind)?.try_into().ok()?));
    Some((
        SocketAddrV4::new(address(CTA_IP_V4_SRC)?, port(CTA_PROTO_SRC_PORT)?),
        SocketAddrV4::new(address(CTA_IP_V4_DST)?, port(CTA_PROTO_DST_PORT)?),
    ))
}

/// The flow of an entry; entries of other protocols and of zones, which are not ours, are `None`.
fn flow(attributes: &[u8]) -> Option<Flow> {
    if find(attributes, CTA_ZONE).is_some() {
        return None;
    }
    let (from, to) = tuple(find(attributes, CTA_TUPLE_ORIG)?)?;
    let (answers, _) = tuple(find(attributes, CTA_TUPLE_REPLY)?)?;
    Some(Flow { from, to, answers })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::UdpSocket;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::script::{script, skeleton};

    fn target(backends: &[&str]) -> Option<Target> {
        Some(Target { backends: backends.iter().map(|a| a.parse().unwrap()).collect(), ..Target::default() })
    }

    fn change(before: Option<Target>, after: Option<Target>) -> Change {
        Change { frontend: Frontend::Address([10, 43, 0, 5].into(), Protocol::Udp, 53), before, after }
    }

    #[test]
    fn flows_are_stale_when_a_backend_goes_or_the_first_one_comes() {
        let (one, two) = (target(&["10.42.0.1:53"]), target(&["10.42.0.1:53", "10.42.0.2:53"]));
        let stale = |before: &Option<Target>, after: &Option<Target>| {
            !Stale::after(&[change(before.clone(), after.clone())]).is_empty()
        };
        assert!(stale(&two, &one) && stale(&one, &None) && stale(&one, &target(&[])));
        assert!(stale(&None, &one) && stale(&target(&[]), &one));
        assert!(!stale(&one, &two) && !stale(&two, &two) && !stale(&None, &target(&[])));
        let tcp = Change { frontend: Frontend::NodePort(Protocol::Tcp, 1), ..change(one.clone(), None) };
        assert!(Stale::after(&[tcp]).is_empty());
    }

    #[test]
    fn only_flows_that_go_wrong_are_stale() {
        let port =
            Change { frontend: Frontend::NodePort(Protocol::Udp, 30053), ..change(None, target(&["10.42.0.2:53"])) };
        let stale = Stale::after(&[change(target(&["10.42.0.1:53"]), target(&["10.42.0.2:53"])), port]);
        let pods = ["10.42.0.0/16".parse().unwrap()];
        for (to, answers, expect) in [
            ("10.43.0.5:53", "10.42.0.1:53", true),
            ("10.43.0.5:53", "10.42.0.2:53", false),
            ("10.43.0.5:54", "10.42.0.1:53", false),
            ("192.0.2.1:30053", "192.0.2.1:30053", true),
            ("192.0.2.1:30053", "10.42.0.2:53", false),
            ("10.42.0.7:30053", "10.42.0.7:30053", false),
        ] {
            let [to, answers] = [to, answers].map(|text| text.parse().unwrap());
            let flow = Flow { from: "10.42.0.9:4000".parse().unwrap(), to, answers };
            assert_eq!(stale.holds(&flow, &pods), expect, "{flow:?}");
        }
    }

    /// Set for the test below when it runs in a network namespace of its own.
    const INSIDE: &str = "CORACLE_TEST_NETWORK";

    /// A client that keeps its port and never falls silent: after its backend is replaced it is answered by the new one. Runs
    /// in a network namespace of its own, as a process of its own.
    #[test]
    fn a_client_s_datagrams_go_to_the_new_backend() {
        if std::env::var_os(INSIDE).is_none() {
            let mut command = Command::new("unshare");
            command.arg("-n").arg(std::env::current_exe().unwrap()).env(INSIDE, "1");
            command.args(["--exact", "conntrack::tests::a_client_s_datagrams_go_to_the_new_backend"]);
            let output = command.output().expect("unshare (util-linux) is installed");
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "this needs root: {}", String::from_utf8_lossy(&said));
            return;
        }
        let run = |program: &str, arguments: &[&str], input: &str| {
            let mut child =
                Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().expect("it is installed");
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
        };
        run("ip", &["link", "set", "lo", "up"], "");
        run("ip", &["route", "add", "local", "10.42.0.0/24", "dev", "lo"], "");
        run("ip", &["route", "add", "10.43.0.0/24", "dev", "lo"], "");
        let pods = ["10.42.0.0/16".parse().unwrap()];
        run("nft", &["-f", "-"], &skeleton("t", "a test", &pods));
        let backend = |ip: &str| {
            let socket = UdpSocket::bind((ip, 53)).unwrap();
            let name = ip.to_owned();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(name.as_bytes(), from);
                }
            });
        };
        backend("10.42.0.1");
        backend("10.42.0.2");
        let client = UdpSocket::bind("10.42.0.9:4000").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let ask = || {
            client.send_to(b"?", "10.43.0.5:53").unwrap();
            let mut buffer = [0; 64];
            let (size, _) = client.recv_from(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..size]).into_owned()
        };
        let (one, two) = (target(&["10.42.0.1:53"]), target(&["10.42.0.2:53"]));
        let first = [change(None, one.clone())];
        let (text, counts) = script("t", &first, &BTreeSet::new());
        run("nft", &["-f", "-"], &text);
        assert_eq!(ask(), "10.42.0.1");
        let second = [change(one, two)];
        run("nft", &["-f", "-"], &script("t", &second, &counts).0);
        assert_eq!(ask(), "10.42.0.1", "the kernel remembers the flow");
        assert_eq!(delete(&Stale::after(&second), &pods).unwrap(), 1);
        assert_eq!(ask(), "10.42.0.2");
        assert_eq!(delete(&Stale::after(&second), &pods).unwrap(), 0, "what is right stays");
    }
}
