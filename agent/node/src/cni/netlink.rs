//! The few requests of rtnetlink (RFC 3549, `linux/rtnetlink.h`) that a pod's network is made of. It knows no pod: it makes
//! links, addresses, routes and neighbours in the namespace of the thread that calls it.

use std::{io, net::Ipv4Addr, os::fd::AsRawFd};

use rustix::{
    fd::{AsFd, OwnedFd},
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with},
};

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// The largest answer that is read: one acknowledgement or one link.
const ANSWER_BYTES: usize = 32 * 1024;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_MAIN: u8 = 254;
const RT_TABLE_LOCAL: u8 = 255;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

const FAMILY_IPV4: u8 = 2;

/// A pair of virtual Ethernet devices: one end here, one in another namespace.
pub(crate) struct Veth<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: Mac,
    pub(crate) mtu: u32,
}

/// A socket to the kernel, of the namespace in which it was opened.
pub(crate) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        // Protocol 0 of this family is rtnetlink.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes both ends and sets the one here up.
    pub(crate) fn add_veth(&mut self, veth: &Veth<'_>, namespace: impl AsFd) -> io::Result<()> {
        let fd = namespace.as_fd().as_raw_fd();
        let mut message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        message.link(0, IFF_UP);
        message.text(IFLA_IFNAME, veth.name);
        message.attribute(IFLA_ADDRESS, &veth.mac);
        message.attribute(IFLA_MTU, &veth.mtu.to_ne_bytes());
        message.nested(IFLA_LINKINFO, |message| {
            message.text(IFLA_INFO_KIND, "veth");
            message.nested(IFLA_INFO_DATA, |message| {
                message.nested(VETH_INFO_PEER, |message| {
                    // It cannot be up before it knows its other end.
                    message.link(0, 0);
                    message.text(IFLA_IFNAME, veth.peer_name);
                    message.attribute(IFLA_ADDRESS, &veth.peer_mac);
                    message.attribute(IFLA_MTU, &veth.mtu.to_ne_bytes());
                    message.attribute(IFLA_NET_NS_FD, &fd.to_ne_bytes());
                });
            });
        });
        self.acknowledged(message)
    }

    /// The index of a link; `NotFound` when there is none.
    pub(crate) fn index(&mut self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(RTM_GETLINK, 0);
        message.link(0, 0);
        message.text(IFLA_IFNAME, name);
        let answer = self.ask(message)?;
        // The header of a message has 16 bytes, and the index is 4 bytes into what follows.
        let index = answer.get(20..24).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
        index.ok_or_else(|| io::Error::other("the kernel's answer about a link is cut short"))
    }

    pub(crate) fn remove_link(&mut self, name: &str) -> io::Result<()> {
        let mut message = Message::new(RTM_DELLINK, 0);
        message.link(0, 0);
        message.text(IFLA_IFNAME, name);
        self.acknowledged(message)
    }

    pub(crate) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWLINK, 0);
        message.link(index, IFF_UP);
        self.acknowledged(message)
    }

    /// Gives a link an address that has no network of its own.
    pub(crate) fn add_address(&mut self, index: u32, ip: Ipv4Addr) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
        message.bytes.extend([FAMILY_IPV4, 32, 0, RT_SCOPE_UNIVERSE]);
        message.bytes.extend(index.to_ne_bytes());
        message.attribute(IFA_LOCAL, &ip.octets());
        message.attribute(IFA_ADDRESS, &ip.octets());
        self.acknowledged(message)
    }

    /// Says which hardware address an address has, so that nobody needs to ask.
    pub(crate) fn add_neighbour(&mut self, index: u32, ip: Ipv4Addr, mac: Mac) -> io::Result<()> {
        let mut message = Message::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE);
        message.bytes.extend([FAMILY_IPV4, 0, 0, 0]);
        message.bytes.extend(index.to_ne_bytes());
        message.bytes.extend(NUD_PERMANENT.to_ne_bytes());
        message.bytes.extend([0, 0]);
        message.attribute(NDA_DST, &ip.octets());
        message.attribute(NDA_LLADDR, &mac);
        self.acknowledged(message)
    }

    /// Everything goes to this neighbour.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> io::Result<()> {
        self.route(RT_TABLE_MAIN, RT_SCOPE_LINK, index, &[(RTA_DST, gateway)])?;
        self.route(RT_TABLE_MAIN, RT_SCOPE_UNIVERSE, index, &[(RTA_GATEWAY, gateway)])
    }

    /// One address is behind this link; what this machine sends there comes from `source`. The route is where the node's
    /// range is routed as local, so that the longer prefix wins.
    pub(crate) fn add_host_route(&mut self, index: u32, ip: Ipv4Addr, source: Ipv4Addr) -> io::Result<()> {
        self.route(RT_TABLE_LOCAL, RT_SCOPE_LINK, index, &[(RTA_DST, ip), (RTA_PREFSRC, source)])
    }

    fn route(&mut self, table: u8, scope: u8, index: u32, addresses: &[(u16, Ipv4Addr)]) -> io::Result<()> {
        let to = addresses.iter().any(|(kind, _)| *kind == RTA_DST);
        let mut message = Message::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
        message.bytes.extend([FAMILY_IPV4, if to { 32 } else { 0 }, 0, 0, table, RTPROT_STATIC, scope, RTN_UNICAST]);
        message.bytes.extend([0; 4]);
        for (kind, ip) in addresses {
            message.attribute(*kind, &ip.octets());
        }
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        self.acknowledged(message)
    }

    fn acknowledged(&mut self, mut message: Message) -> io::Result<()> {
        message.flags |= NLM_F_ACK;
        self.ask(message).map(drop)
    }

    fn ask(&mut self, message: Message) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        send(&self.socket, &message.finish(self.sequence), SendFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(length);
        refused(&answer)?;
        Ok(answer)
    }
}

/// The error in an answer, if it is one.
fn refused(answer: &[u8]) -> io::Result<()> {
    let cut = || io::Error::other("the kernel's answer is cut short");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes).ok_or_else(cut)?;
    if kind != NLMSG_ERROR {
        return Ok(());
    }
    let code = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes).ok_or_else(cut)?;
    match code {
        0 => Ok(()),
        // The kernel writes its error numbers as negative ones. A link that is not there is "no such device".
        code if -code == rustix::io::Errno::NODEV.raw_os_error() => Err(io::ErrorKind::NotFound.into()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

/// A request as it is put together.
struct Message {
    kind: u16,
    flags: u16,
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        Self { kind, flags: flags | NLM_F_REQUEST, bytes: Vec::with_capacity(256) }
    }

    /// The head of a message about a link (`struct ifinfomsg`).
    fn link(&mut self, index: u32, flags: u32) {
        self.bytes.extend([0; 4]);
        self.bytes.extend(index.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes.extend(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nested(kind, |message| {
            message.bytes.extend(value.as_bytes());
            message.bytes.push(0);
        });
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("requests here are far shorter than 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        // Attributes begin at multiples of four.
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len() + 16).expect("requests here are far shorter than 4 GiB");
        let mut all = Vec::with_capacity(self.bytes.len() + 16);
        all.extend(length.to_ne_bytes());
        all.extend(self.kind.to_ne_bytes());
        all.extend(self.flags.to_ne_bytes());
        all.extend(sequence.to_ne_bytes());
        all.extend([0; 4]);
        all.extend(self.bytes);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let mut message = Message::new(RTM_GETLINK, 0);
        message.link(7, 0);
        message.text(IFLA_IFNAME, "eth0");
        let bytes = message.finish(3);
        let mut expected = vec![44, 0, 0, 0, 18, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([9, 0, 3, 0, b'e', b't', b'h', b'0', 0, 0, 0, 0]);
        assert_eq!(bytes, expected, "on a little-endian machine");
    }

    #[test]
    fn the_kernel_knows_the_loopback_link_and_no_other() {
        let mut netlink = Netlink::open().unwrap();
        assert_eq!(netlink.index("lo").unwrap(), 1);
        assert_eq!(netlink.index("no-such-link").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
