//! One connection: what came in becomes events, what is to go out is gathered in a buffer, which whoever drives the session writes
//! away before it asks for more.
//!
//! Windows: Kubernetes' own implementation neither keeps to windows nor widens them, so this side keeps to the peer's only once the
//! peer has shown that it has any. A server gives any client new room as data is consumed. A client gives it only to a server
//! that has windows: one that has ended the connection would answer with a reset, which loses what was not read yet.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::{
    Headers, ResetStatus, SpdyError, StreamId,
    frame::{self, Frame, More},
    headers::{Compressor, Decompressor},
};

/// A window's first size.
const INITIAL_WINDOW: i64 = 64 * 1024;
/// The largest a window may grow.
const MAX_WINDOW: i64 = 0x7fff_ffff;
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

/// What a peer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams that are open at once; more are refused.
    pub streams: usize,
    /// Whether windows are kept to once the peer has shown that it has any. Who reads a connection only as fast as all of
    /// its streams are read must not: what makes room on one stream would lie behind what is not read of another.
    pub windows: bool,
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
    /// There may be room again for what did not go out.
    Room,
}

/// What became of bytes that were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// That many are on their way; for the rest the peer has no room now.
    Bytes(usize),
    /// Nobody reads this stream any more.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    Closed,
}

struct Stream {
    local: Half,
    remote: Half,
    /// What the peer has room for.
    window: i64,
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
    limits: Limits,
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
    /// The window of each new stream, and whether the peer keeps windows of streams at all.
    initial_window: i64,
    has_windows: bool,
    /// The same for the whole connection, which SPDY/3 did not have.
    window: i64,
    has_window: bool,
    consumed: u32,
}

impl Session {
    /// A new connection.
    #[must_use]
    pub fn new(role: Role, limits: Limits) -> Self {
        let first = if role == Role::Client { 1 } else { 2 };
        Self {
            role,
            limits,
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
            initial_window: INITIAL_WINDOW,
            has_windows: false,
            window: INITIAL_WINDOW,
            has_window: false,
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
            Frame::Settings { initial_window: None } | Frame::Unknown => Ok(None),
            Frame::Settings { initial_window: Some(size) } => self.resize(i64::from(size)).map(Some),
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
            Frame::WindowUpdate { id, delta } => self.widen(id, i64::from(delta)).map(|()| Some(Event::Room)),
        }
    }

    fn opened(&mut self, id: StreamId, headers: Headers, more: More, local: Half) -> Result<Option<Event>, SpdyError> {
        let of_peer = (id % 2 == 1) == (self.role == Role::Server);
        // Clients that open many at once give the numbers out before they take turns to write: they come in any order.
        if !of_peer || self.streams.contains_key(&id) {
            return Err(SpdyError::StreamNumber(id));
        }
        self.last_of_peer = self.last_of_peer.max(id);
        if self.going || self.streams.len() >= self.limits.streams {
            self.put_reset(id, ResetStatus::RefusedStream);
            return Ok(None);
        }
        self.streams.insert(id, Stream { local, remote: Half::Open, window: self.initial_window, consumed: 0 });
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

    fn resize(&mut self, size: i64) -> Result<Event, SpdyError> {
        if size > MAX_WINDOW {
            return Err(SpdyError::Window);
        }
        self.has_windows = self.limits.windows;
        let change = size - std::mem::replace(&mut self.initial_window, size);
        for stream in self.streams.values_mut() {
            stream.window += change;
            if stream.window > MAX_WINDOW {
                return Err(SpdyError::Window);
            }
        }
        Ok(Event::Room)
    }

    fn widen(&mut self, id: StreamId, delta: i64) -> Result<(), SpdyError> {
        let window = if id == 0 {
            self.has_window = self.limits.windows;
            &mut self.window
        } else {
            self.has_windows = self.limits.windows;
            // A stream that is over by now has no window.
            let Some(stream) = self.streams.get_mut(&id) else { return Ok(()) };
            &mut stream.window
        };
        *window += delta;
        if *window > MAX_WINDOW { Err(SpdyError::Window) } else { Ok(()) }
    }

    /// Opens a stream; `None` when the peer takes no more.
    pub fn open(&mut self, headers: &Headers) -> Option<StreamId> {
        if self.going || self.next > MAX_STREAM {
            return None;
        }
        let id = self.next;
        self.next += 2;
        let stream = Stream { local: Half::Open, remote: Half::Open, window: self.initial_window, consumed: 0 };
        self.streams.insert(id, stream);
        let block = self.compressor.compress(headers);
        frame::put_syn_stream(&mut self.output, id, &block);
        Some(id)
    }

    /// Takes a stream that the peer opened.
    pub fn reply(&mut self, id: StreamId) {
        let block = self.compressor.compress(&Headers::default());
        frame::put_syn_reply(&mut self.output, id, &block);
    }

    /// Hands bytes over.
    pub fn send(&mut self, id: StreamId, bytes: &[u8]) -> Sent {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.local == Half::Open) else {
            return Sent::Closed;
        };
        let mut sent = 0;
        while sent < bytes.len() {
            let mut room = MAX_DATA_BYTES.min(bytes.len() - sent);
            for (counts, window) in [(self.has_windows, stream.window), (self.has_window, self.window)] {
                if counts {
                    room = room.min(usize::try_from(window).unwrap_or(0));
                }
            }
            if room == 0 {
                break;
            }
            frame::put_data(&mut self.output, id, &bytes[sent..sent + room], More::Follows);
            sent += room;
            let used = i64::try_from(room).unwrap_or(0);
            stream.window = (stream.window - used).max(-MAX_WINDOW);
            self.window = (self.window - used).max(-MAX_WINDOW);
        }
        Sent::Bytes(sent)
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
        if self.role == Role::Client && !self.has_windows && !self.has_window {
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
