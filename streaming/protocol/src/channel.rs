//! Channels over WebSocket messages: the first byte of a message says which stream its other bytes belong to (`wsstream` of
//! Kubernetes). In the base64 forms the messages are text, the first character a digit, the rest encoded.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};

/// The channel by which a client of version 5 says that it sends nothing more on another.
const CLOSE: u8 = 255;

/// What the messages of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Bytes.
    Binary,
    /// Text.
    Base64,
}

/// How the end of a command is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As words, on a failure only: before version 4.
    Words,
    /// As a `Status`.
    Status,
}

/// A protocol that client and server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// As it is named in `Sec-WebSocket-Protocol`; empty for a client that named none.
    pub name: &'static str,
    /// What its messages are.
    pub encoding: Encoding,
    /// How it tells the end of a command.
    pub ending: Ending,
    /// Whether a client can end one of its streams.
    pub can_close: bool,
}

const fn protocol(name: &'static str, encoding: Encoding, ending: Ending, can_close: bool) -> Protocol {
    Protocol { name, encoding, ending, can_close }
}

/// What exec and attach offer.
pub const REMOTE_COMMAND: [Protocol; 6] = [
    protocol("v5.channel.k8s.io", Encoding::Binary, Ending::Status, true),
    protocol("v4.channel.k8s.io", Encoding::Binary, Ending::Status, false),
    protocol("v4.base64.channel.k8s.io", Encoding::Base64, Ending::Status, false),
    protocol("channel.k8s.io", Encoding::Binary, Ending::Words, false),
    protocol("base64.channel.k8s.io", Encoding::Base64, Ending::Words, false),
    protocol("", Encoding::Binary, Ending::Words, false),
];

/// What port-forward offers besides its tunnel.
pub const PORT_FORWARD: [Protocol; 3] = [
    protocol("v4.channel.k8s.io", Encoding::Binary, Ending::Words, false),
    protocol("v4.base64.channel.k8s.io", Encoding::Base64, Ending::Words, false),
    protocol("", Encoding::Binary, Ending::Words, false),
];

/// The client's first choice among what is offered. A client that names nothing gets the nameless one; one that names only what
/// nobody knows gets none.
#[must_use]
pub fn agree(offered: &[Protocol], wanted: &[&str]) -> Option<Protocol> {
    let find = |name: &str| offered.iter().copied().find(|protocol| protocol.name == name);
    if wanted.is_empty() { find("") } else { wanted.iter().filter(|name| !name.is_empty()).find_map(|name| find(name)) }
}

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Bytes of a channel.
    Data(u8, Bytes),
    /// Nothing more comes on a channel.
    Close(u8),
    /// It says nothing.
    Empty,
}

/// A message that is none of this protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message that is not of the protocol {0:?}")]
pub struct NotAMessage(&'static str);

impl Protocol {
    /// Reads a message.
    ///
    /// # Errors
    /// Its first character is no digit, or the rest is not base64, where it should be.
    pub fn read(&self, mut message: Bytes) -> Result<Input, NotAMessage> {
        if message.is_empty() {
            return Ok(Input::Empty);
        }
        let first = message.get_u8();
        if self.encoding == Encoding::Base64 {
            let channel = first.checked_sub(b'0').filter(|digit| *digit <= 9).ok_or(NotAMessage(self.name))?;
            let bytes = STANDARD.decode(&message).map_err(|_| NotAMessage(self.name))?;
            return Ok(Input::Data(channel, bytes.into()));
        }
        if first == CLOSE && self.can_close {
            return Ok(message.first().map_or(Input::Empty, |channel| Input::Close(*channel)));
        }
        Ok(Input::Data(first, message))
    }

    /// Writes a message.
    #[must_use]
    pub fn write(&self, channel: u8, bytes: &[u8]) -> Bytes {
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        match self.encoding {
            Encoding::Binary => {
                message.extend_from_slice(&[channel]);
                message.extend_from_slice(bytes);
            }
            Encoding::Base64 => {
                message.extend_from_slice(&[b'0' + channel % 10]);
                message.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            }
        }
        message.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> Protocol {
        agree(&REMOTE_COMMAND, &[name]).unwrap()
    }

    #[test]
    fn the_client_s_order_decides() {
        let check = |wanted: &[&str], expect: Option<&str>| {
            assert_eq!(agree(&REMOTE_COMMAND, wanted).map(|found| found.name), expect, "{wanted:?}");
        };
        check(&["v5.channel.k8s.io", "v4.channel.k8s.io"], Some("v5.channel.k8s.io"));
        check(&["v9.channel.k8s.io", "v4.channel.k8s.io"], Some("v4.channel.k8s.io"));
        check(&["v9.channel.k8s.io"], None);
        check(&[""], None);
        check(&[], Some(""));
    }

    #[test]
    fn messages_are_read() {
        let bytes = Bytes::from_static;
        assert_eq!(named("v5.channel.k8s.io").read(bytes(b"\x00hi")), Ok(Input::Data(0, bytes(b"hi"))));
        assert_eq!(named("v5.channel.k8s.io").read(bytes(b"\xff\x00")), Ok(Input::Close(0)));
        assert_eq!(named("v5.channel.k8s.io").read(bytes(b"\xff")), Ok(Input::Empty));
        assert_eq!(named("v4.channel.k8s.io").read(bytes(b"\xff\x00")), Ok(Input::Data(255, bytes(b"\x00"))));
        assert_eq!(named("v4.base64.channel.k8s.io").read(bytes(b"0aGk=")), Ok(Input::Data(0, bytes(b"hi"))));
        assert!(named("v4.base64.channel.k8s.io").read(bytes(b"0?")).is_err());
        assert!(named("v4.base64.channel.k8s.io").read(bytes(b"\x00aGk=")).is_err());
        assert_eq!(named("channel.k8s.io").read(Bytes::new()), Ok(Input::Empty));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(channel in 0_u8..10, bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            for protocol in REMOTE_COMMAND {
                let expect = Input::Data(channel, Bytes::from(bytes.clone()));
                prop_assert_eq!(protocol.read(protocol.write(channel, &bytes)), Ok(expect));
            }
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for protocol in REMOTE_COMMAND {
                let _ = protocol.read(Bytes::from(bytes.clone()));
            }
        }
    }
}
