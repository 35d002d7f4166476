//! The driver of a SPDY session: one future reads and writes the connection, streams are handles to it. Buffers are bounded, on the
//! way in by not reading on: a stream that nobody reads holds back its whole connection, as it does in
//! Kubernetes' own implementation.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_streaming_protocol::spdy::{Event, Headers, ResetStatus, Role, Session, SpdyError, StreamId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::ByteStream;

/// Streams of one connection: two for each connection that is forwarded at the same time.
const MAX_STREAMS: usize = 4096;
/// Blocks that wait for the reader of a stream.
const BLOCKS: usize = 4;
/// Streams that wait to be taken.
const WAITING_STREAMS: usize = 16;
/// Commands on their way to the driver. Streams take turns in giving them.
const COMMANDS: usize = 8;
/// The longest block of one command.
const COMMAND_BYTES: usize = 32 * 1024;
/// Bytes that wait to be written; above it nothing more is taken from our own streams.
const OUTPUT_BYTES: usize = 128 * 1024;
/// The same with answers to the peer's frames. Above it the peer is not listened to either: only one that asks and asks, and does
/// not read the answers, gets there. Two that wait for each other's room would otherwise wait for ever.
const ANSWER_BYTES: usize = 1024 * 1024;
/// How much is read at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// How long what was said last may take to go out.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the streaming connection is closed")]
pub struct Gone;

/// A connection. It ends when this and all its streams are dropped, or when the peer ends it.
pub struct Connection {
    commands: mpsc::Sender<Command>,
    opened: mpsc::Receiver<Stream>,
    ended: CancellationToken,
}

impl Connection {
    /// Opens a stream.
    ///
    /// # Errors
    /// The connection is over, or its peer takes no more streams.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Gone> {
        let (answer, opened) = oneshot::channel();
        self.commands.send(Command::Open { headers, answer }).await.map_err(|_| Gone)?;
        opened.await.map_err(|_| Gone)
    }

    /// The next stream that the peer opened; `None` when the connection is over.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Is cancelled when the connection is over.
    #[must_use]
    pub fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }
}

/// A stream of a connection. One that is dropped before its writer was finished is reset.
pub struct Stream {
    /// Its number.
    pub id: StreamId,
    /// What it is for.
    pub headers: Headers,
    /// From the peer.
    pub reader: StreamReader,
    /// To the peer.
    pub writer: StreamWriter,
}

/// What the peer sends on a stream.
pub struct StreamReader {
    blocks: mpsc::Receiver<Bytes>,
}

impl StreamReader {
    /// The next bytes, never none; `None` when the peer sends nothing more, or is gone.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.blocks.recv().await
    }
}

/// What is sent to the peer on a stream.
pub struct StreamWriter {
    id: StreamId,
    commands: mpsc::Sender<Command>,
    dropped: mpsc::UnboundedSender<StreamId>,
    finished: bool,
}

impl StreamWriter {
    /// Sends bytes, as soon as there is room for them.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let block = bytes.split_to(bytes.len().min(COMMAND_BYTES));
            self.commands.send(Command::Data { id: self.id, block }).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Says that nothing more is sent.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn finish(&mut self) -> Result<(), Gone> {
        if !std::mem::replace(&mut self.finished, true) {
            self.commands.send(Command::Close { id: self.id }).await.map_err(|_| Gone)?;
        }
        Ok(())
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            // The driver may be gone before its streams.
            let _ = self.dropped.send(self.id);
        }
    }
}

enum Command {
    Open { headers: Headers, answer: oneshot::Sender<Stream> },
    Data { id: StreamId, block: Bytes },
    Close { id: StreamId },
}

/// What waits for somebody to take it.
enum Pending {
    Block(mpsc::Sender<Bytes>, Bytes),
    Stream(Stream),
}

/// A connection over `io`, which needs no flush after a write, and the future that drives it.
pub fn connect<S: ByteStream>(io: S, role: Role, idle: Duration) -> (Connection, impl Future<Output = ()> + Send) {
    let (commands, orders) = mpsc::channel(COMMANDS);
    let (opener, opened) = mpsc::channel(WAITING_STREAMS);
    // Bounded by the number of streams: each is dropped once.
    #[expect(clippy::disallowed_methods, reason = "a value that is dropped cannot wait for room")]
    let (dropped, drops) = mpsc::unbounded_channel();
    let ended = CancellationToken::new();
    let (read, write) = tokio::io::split(io);
    let driver = Driver {
        read,
        write,
        input: BytesMut::new(),
        output: BytesMut::new(),
        session: Session::new(role, MAX_STREAMS),
        streams: HashMap::new(),
        pending: None,
        unheard: false,
        commands: commands.downgrade(),
        dropped,
        opener,
    };
    let over = ended.clone().drop_guard();
    let driving = async move {
        let _over = over;
        driver.run(orders, drops, idle).await;
    };
    (Connection { commands, opened, ended }, driving)
}

struct Driver<S> {
    read: ReadHalf<S>,
    write: WriteHalf<S>,
    input: BytesMut,
    output: BytesMut,
    session: Session,
    /// Where the bytes of each stream go.
    streams: HashMap<StreamId, mpsc::Sender<Bytes>>,
    pending: Option<Pending>,
    /// The peer takes nothing more.
    unheard: bool,
    /// Weak, so that the connection ends when nobody else has one.
    commands: mpsc::WeakSender<Command>,
    dropped: mpsc::UnboundedSender<StreamId>,
    opener: mpsc::Sender<Stream>,
}

/// What the driver woke up for.
enum Woken {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Command(Option<Command>),
    Dropped(StreamId),
    Taken,
    Idle,
}

impl<S: ByteStream> Driver<S> {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Command>,
        mut drops: mpsc::UnboundedReceiver<StreamId>,
        idle: Duration,
    ) {
        let mut deadline = Instant::now() + idle;
        loop {
            if self.unheard {
                self.output.clear();
                self.session.output().clear();
            }
            if self.output.is_empty() {
                self.output = self.session.output().split();
            }
            let woken = self.woken(&mut orders, &mut drops, deadline).await;
            if matches!(woken, Woken::Read(_) | Woken::Wrote(_)) {
                deadline = Instant::now() + idle;
            }
            let goes_on = match woken {
                Woken::Read(Ok(length)) => length > 0 && self.take_in().is_ok(),
                Woken::Wrote(Ok(1..)) => true,
                // What the peer said before it stopped listening is still read.
                Woken::Wrote(_) => {
                    self.unheard = true;
                    true
                }
                Woken::Read(Err(_)) | Woken::Idle => false,
                Woken::Command(Some(command)) => {
                    self.obey(command);
                    true
                }
                Woken::Command(None) => {
                    self.session.go_away();
                    false
                }
                Woken::Dropped(id) => {
                    // What was said before it was dropped goes first.
                    while let Ok(command) = orders.try_recv() {
                        self.obey(command);
                    }
                    self.give_up(id);
                    true
                }
                Woken::Taken => self.events().is_ok(),
            };
            if !goes_on {
                // Nobody may wait for what never comes, while the last words go out.
                self.streams.clear();
                drop(self.pending.take());
                let _ = tokio::time::timeout(LAST_WORDS, self.flush()).await;
                return;
            }
        }
    }

    async fn woken(
        &mut self,
        orders: &mut mpsc::Receiver<Command>,
        drops: &mut mpsc::UnboundedReceiver<StreamId>,
        deadline: Instant,
    ) -> Woken {
        let waiting = self.output.len() + self.session.output().len();
        let (has_room, listens) = (waiting < OUTPUT_BYTES, waiting < ANSWER_BYTES && self.pending.is_none());
        self.input.reserve(BLOCK_BYTES);
        tokio::select! {
            wrote = self.write.write_buf(&mut self.output), if !self.output.is_empty() => Woken::Wrote(wrote),
            read = self.read.read_buf(&mut self.input), if listens => Woken::Read(read),
            command = orders.recv(), if has_room => Woken::Command(command),
            Some(id) = drops.recv() => Woken::Dropped(id),
            () = taken(&mut self.pending, &self.opener), if self.pending.is_some() => Woken::Taken,
            () = sleep_until(deadline) => Woken::Idle,
        }
    }

    fn take_in(&mut self) -> Result<(), SpdyError> {
        self.session.input().unsplit(self.input.split());
        self.events()
    }

    /// Hands out what came in, until somebody has to be waited for.
    fn events(&mut self) -> Result<(), SpdyError> {
        while self.pending.is_none() {
            let Some(event) = self.session.next_event()? else { return Ok(()) };
            match event {
                Event::Opened { id, headers } => {
                    self.session.reply(id);
                    if let Some(stream) = self.stream(id, headers) {
                        self.pending = offer(&self.opener, stream);
                    }
                }
                Event::Data { id, bytes } => {
                    self.session.consume(id, bytes.len());
                    if let Some(reader) = self.streams.get(&id) {
                        match reader.try_send(bytes) {
                            Err(mpsc::error::TrySendError::Full(bytes)) => {
                                self.pending = Some(Pending::Block(reader.clone(), bytes));
                            }
                            // A reader that left wants no more.
                            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                        }
                    }
                }
                Event::Ended { id } | Event::Reset { id, .. } => drop(self.streams.remove(&id)),
                Event::Replied { .. } | Event::GoAway => {}
            }
        }
        Ok(())
    }

    fn stream(&mut self, id: StreamId, headers: Headers) -> Option<Stream> {
        let commands = self.commands.upgrade()?;
        let (sender, blocks) = mpsc::channel(BLOCKS);
        self.streams.insert(id, sender);
        let writer = StreamWriter { id, commands, dropped: self.dropped.clone(), finished: false };
        Some(Stream { id, headers, reader: StreamReader { blocks }, writer })
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { headers, answer } => {
                let opened = self.session.open(&headers).and_then(|id| self.stream(id, headers));
                if let Some(stream) = opened {
                    // Nobody waits for it any more: dropping it gives it up.
                    drop(answer.send(stream));
                }
            }
            Command::Data { id, block } => self.session.send(id, &block),
            Command::Close { id } => self.session.close(id),
        }
    }

    /// A stream whose writer was dropped in the middle.
    fn give_up(&mut self, id: StreamId) {
        self.streams.remove(&id);
        self.session.reset(id, ResetStatus::Cancel);
    }

    /// Writes what is left, and ends the connection.
    async fn flush(&mut self) {
        loop {
            if self.output.is_empty() {
                self.output = self.session.output().split();
            }
            if self.output.is_empty() || !matches!(self.write.write_buf(&mut self.output).await, Ok(1..)) {
                break;
            }
        }
        // A peer that left is told nothing.
        let _ = self.write.shutdown().await;
    }
}

/// Offers a stream to whoever accepts; what nobody has room for waits.
fn offer(opener: &mpsc::Sender<Stream>, stream: Stream) -> Option<Pending> {
    match opener.try_send(stream) {
        Err(mpsc::error::TrySendError::Full(stream)) => Some(Pending::Stream(stream)),
        // With nobody to accept it, dropping it gives it up.
        Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
    }
}

/// Waits until what is pending is taken, or nobody is left to take it.
async fn taken(pending: &mut Option<Pending>, opener: &mpsc::Sender<Stream>) {
    match pending {
        Some(Pending::Block(reader, _)) => {
            let reader = reader.clone();
            let permit = reader.reserve().await;
            if let (Ok(permit), Some(Pending::Block(_, bytes))) = (permit, pending.take()) {
                permit.send(bytes);
            }
        }
        Some(Pending::Stream(_)) => {
            let permit = opener.reserve().await;
            if let (Ok(permit), Some(Pending::Stream(stream))) = (permit, pending.take()) {
                permit.send(stream);
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests;
