//! One connection: what came in becomes events, what is to go out is gathered in a buffer, which whoever drives the session writes
//! away before it asks for more.
//!
//! Windows: Kubernetes' own implementation neither keeps to windows nor widens them, and this side keeps to none: a connection is
//! read only as fast as all of its streams are, so what makes room on one would lie behind what is not read of another. A
//! server gives its client new room nevertheless, as data is consumed. A client gives none: a server that has ended the
//! connection would answer with a reset, which loses what was not read yet.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::{
    Headers, ResetStatus, SpdyError, StreamId,
    frame::{self, Frame, More},
    headers::{Compressor, Decompressor},
};

/// Consumed bytes that are worth a frame that says so.
const UPDATE_AFTER: u32 = 32 * 1024;
/// The longest data frame that is sent: the other side reads it as a whole.
const MAX_DATA_BYTES: usize = 32 * 1024;
/// The last number of a stream.
const MAX_STREAM: StreamId = 0x7fff_ffff;

/// Which side of the connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that asked for the connection: its streams have odd numbers.
    Client,
    /// The one that was asked: even numbers.
    Server,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a stream; it waits for [`Session::reply`] or [`Session::reset`].
    Opened {
        /// Its number.
        id: StreamId,
        /// What it is for.
        headers: Headers,
    },
    /// The peer took a stream that this side opened.
    Replied {
        /// Its number.
        id: StreamId,
    },
    /// Bytes of a stream.
    Data {
        /// Its number.
        id: StreamId,
        /// Never empty.
        bytes: Bytes,
    },
    /// The peer sends nothing more on a stream.
    Ended {
        /// Its number.
        id: StreamId,
    },
    /// The peer gave a stream up.
    Reset {
        /// Its number.
        id: StreamId,
        /// Why.
        status: ResetStatus,
    },
    /// The peer takes no more streams; those that are open go on.
    GoAway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    Closed,
}

struct Stream {
    local: Half,
    remote: Half,
    /// Consumed bytes that the peer was not told of.
    consumed: u32,
}

/// A data frame whose head was read.
struct Incoming {
    id: StreamId,
    left: usize,
    more: More,
}

/// The state of a connection.
pub struct Session {
    role: Role,
    max_streams: usize,
    input: BytesMut,
    output: BytesMut,
    incoming: Option<Incoming>,
    compressor: Compressor,
    decompressor: Decompressor,
    streams: HashMap<StreamId, Stream>,
    next: StreamId,
    last_of_peer: StreamId,
    next_ping: u32,
    going: bool,
    /// Consumed bytes of all streams that the peer was not told of.
    consumed: u32,
}

impl Session {
    /// A new connection. The peer may have `max_streams` open at once; more are refused.
    #[must_use]
    pub fn new(role: Role, max_streams: usize) -> Self {
        let first = if role == Role::Client { 1 } else { 2 };
        Self {
            role,
            max_streams,
            input: BytesMut::new(),
            output: BytesMut::new(),
            incoming: None,
            compressor: Compressor::new(),
            decompressor: Decompressor::new(),
            streams: HashMap::new(),
            next: first,
            last_of_peer: 0,
            next_ping: first,
            going: false,
            consumed: 0,
        }
    }

    /// Where bytes from the peer go. Events are taken out after each addition, so that it stays as small as one read.
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// What is to be written to the peer.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// The number of open streams.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// What happened next; `None` when more input is needed.
    ///
    /// # Errors
    /// The peer breaks the protocol: the connection is of no more use.
    pub fn next_event(&mut self) -> Result<Option<Event>, SpdyError> {
        loop {
            if let Some(incoming) = &mut self.incoming {
                if incoming.left == 0 {
                    let (id, more) = (incoming.id, incoming.more);
                    self.incoming = None;
                    if let Some(event) = self.ended(id, more) {
                        return Ok(Some(event));
                    }
                    continue;
                }
                if self.input.is_empty() {
                    return Ok(None);
                }
                let length = incoming.left.min(self.input.len());
                incoming.left -= length;
                let (id, bytes) = (incoming.id, self.input.split_to(length).freeze());
                if self.streams.get(&id).is_some_and(|stream| stream.remote == Half::Open) {
                    return Ok(Some(Event::Data { id, bytes }));
                }
                // Nobody reads it, which leaves room for others.
                self.consume(id, length);
                continue;
            }
            let Some(frame) = Frame::take(&mut self.input)? else { return Ok(None) };
            if let Some(event) = self.handle(frame)? {
                return Ok(Some(event));
            }
        }
    }

    fn handle(&mut self, frame: Frame) -> Result<Option<Event>, SpdyError> {
        match frame {
            Frame::Data { id, length, more } => {
                if !self.streams.contains_key(&id) && !self.was_open(id) {
                    self.put_reset(id, ResetStatus::InvalidStream);
                }
                self.incoming = Some(Incoming { id, left: length, more });
                Ok(None)
            }
            Frame::SynStream { id, block, more, unidirectional } => {
                let headers = self.decompressor.decompress(&block)?;
                self.opened(id, headers, more, if unidirectional { Half::Closed } else { Half::Open })
            }
            Frame::SynReply { id, block, more } => {
                self.decompressor.decompress(&block)?;
                if !self.streams.contains_key(&id) {
                    return Ok(None);
                }
                // An answer that is the end as well: both are told, the end by an empty frame.
                self.incoming = Some(Incoming { id, left: 0, more });
                Ok(Some(Event::Replied { id }))
            }
            Frame::Headers { id, block, more } => {
                self.decompressor.decompress(&block)?;
                Ok(self.ended(id, more))
            }
            Frame::Reset { id, status } => {
                let known = self.streams.remove(&id);
                Ok(known.map(|_| Event::Reset { id, status: ResetStatus::from_code(status) }))
            }
            Frame::Ping { id } => {
                let peers = if self.role == Role::Client { 0 } else { 1 };
                if id != 0 && id % 2 == peers {
                    frame::put_ping(&mut self.output, id);
                }
                Ok(None)
            }
            Frame::GoAway => {
                self.going = true;
                Ok(Some(Event::GoAway))
            }
            Frame::Ignored => Ok(None),
        }
    }

    fn opened(&mut self, id: StreamId, headers: Headers, more: More, local: Half) -> Result<Option<Event>, SpdyError> {
        let of_peer = (id % 2 == 1) == (self.role == Role::Server);
        // Clients that open many at once give the numbers out before they take turns to write: they come in any order.
        if !of_peer || self.streams.contains_key(&id) {
            return Err(SpdyError::StreamNumber(id));
        }
        self.last_of_peer = self.last_of_peer.max(id);
        if self.going || self.streams.len() >= self.max_streams {
            self.put_reset(id, ResetStatus::RefusedStream);
            return Ok(None);
        }
        self.streams.insert(id, Stream { local, remote: Half::Open, consumed: 0 });
        self.incoming = Some(Incoming { id, left: 0, more });
        Ok(Some(Event::Opened { id, headers }))
    }

    /// Whether a stream of this number has been, and is over.
    fn was_open(&self, id: StreamId) -> bool {
        let of_peer = (id % 2 == 1) == (self.role == Role::Server);
        if of_peer { id <= self.last_of_peer } else { id < self.next }
    }

    fn ended(&mut self, id: StreamId, more: More) -> Option<Event> {
        let stream = self.streams.get_mut(&id).filter(|stream| more == More::Ends && stream.remote == Half::Open)?;
        stream.remote = Half::Closed;
        if stream.local == Half::Closed {
            self.streams.remove(&id);
        }
        Some(Event::Ended { id })
    }

    /// Opens a stream; `None` when the peer takes no more.
    pub fn open(&mut self, headers: &Headers) -> Option<StreamId> {
        if self.going || self.next > MAX_STREAM {
            return None;
        }
        let id = self.next;
        self.next += 2;
        self.streams.insert(id, Stream { local: Half::Open, remote: Half::Open, consumed: 0 });
        let block = self.compressor.compress(headers);
        frame::put_syn_stream(&mut self.output, id, &block);
        Some(id)
    }

    /// Takes a stream that the peer opened.
    pub fn reply(&mut self, id: StreamId) {
        let block = self.compressor.compress(&Headers::default());
        frame::put_syn_reply(&mut self.output, id, &block);
    }

    /// Hands bytes over. They go nowhere once the stream is closed or given up by the peer.
    pub fn send(&mut self, id: StreamId, bytes: &[u8]) {
        if self.streams.get(&id).is_some_and(|stream| stream.local == Half::Open) {
            for part in bytes.chunks(MAX_DATA_BYTES) {
                frame::put_data(&mut self.output, id, part, More::Follows);
            }
        }
    }

    /// Sends nothing more on a stream.
    pub fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.local == Half::Open) else { return };
        stream.local = Half::Closed;
        let over = stream.remote == Half::Closed;
        frame::put_data(&mut self.output, id, &[], More::Ends);
        if over {
            self.streams.remove(&id);
        }
    }

    /// Gives a stream up.
    pub fn reset(&mut self, id: StreamId, status: ResetStatus) {
        if self.streams.remove(&id).is_some() {
            self.put_reset(id, status);
        }
    }

    fn put_reset(&mut self, id: StreamId, status: ResetStatus) {
        frame::put_reset(&mut self.output, id, status.code());
    }

    /// Bytes of a stream that somebody has taken: the peer may send as many more.
    pub fn consume(&mut self, id: StreamId, length: usize) {
        if self.role == Role::Client {
            return;
        }
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.consumed = self.consumed.saturating_add(length);
        if self.consumed >= UPDATE_AFTER {
            frame::put_window_update(&mut self.output, 0, std::mem::take(&mut self.consumed));
        }
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.remote == Half::Open) else { return };
        stream.consumed = stream.consumed.saturating_add(length);
        if stream.consumed >= UPDATE_AFTER {
            frame::put_window_update(&mut self.output, id, std::mem::take(&mut stream.consumed));
        }
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self) {
        frame::put_ping(&mut self.output, self.next_ping);
        self.next_ping = if self.next_ping >= MAX_STREAM - 1 { self.next_ping % 2 + 2 } else { self.next_ping + 2 };
    }

    /// Takes no more streams.
    pub fn go_away(&mut self) {
        if !self.going {
            self.going = true;
            frame::put_go_away(&mut self.output, self.last_of_peer);
        }
    }
}

#[cfg(test)]
mod tests;
