//! Exec and attach of a WebSocket client, carried on to a SPDY connection: channels become streams, and back. What the other side
//! says of the end is passed on; that it is lost is told in its place.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_streaming_protocol::channel::{Ending, Input, Protocol};
use coracle_streaming_protocol::outcome;
use coracle_streaming_protocol::spdy::{Headers, Role};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::ByteStream;
use crate::spdy::{Connection, Gone, Stream, StreamReader, StreamWriter, connect};
use crate::websocket::{WebSocket, message, payload, say_goodbye};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// Messages on their way to the client.
const MESSAGES: usize = 4;
/// The longest word about the end.
const MAX_STATUS_BYTES: usize = 64 * 1024;

/// The streams that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// It sends input.
    pub stdin: bool,
    /// It wants output.
    pub stdout: bool,
    /// It wants error output of its own; never with a terminal.
    pub stderr: bool,
    /// There is a terminal.
    pub tty: bool,
}

/// Carries a client's channels to `other`, which speaks `v4.channel.k8s.io` over SPDY, until the command ends, either side leaves
/// or nothing came for `idle`.
pub async fn remote_command(
    mut socket: WebSocket,
    protocol: Protocol,
    streams: Streams,
    other: impl ByteStream,
    idle: Duration,
) {
    let (connection, driving) = connect(other, Role::Client, idle);
    let carrying = async {
        carry(&mut socket, protocol, streams, connection).await;
        say_goodbye(&mut socket).await;
    };
    tokio::join!(driving, carrying);
}

async fn carry(socket: &mut WebSocket, protocol: Protocol, streams: Streams, connection: Connection) {
    let (sink, messages) = socket.split();
    match Opened::open(&connection, streams).await {
        Ok(opened) => opened.carry(sink, messages, protocol, streams).await,
        Err(Gone) => {
            let lost = outcome::failure("the connection to the container was lost");
            say(sink, protocol, ERROR, &ending(protocol, lost.as_bytes())).await;
        }
    }
}

/// What is said of the end, in the form of the protocol.
fn ending(protocol: Protocol, status: &[u8]) -> Bytes {
    match protocol.ending {
        Ending::Status => Bytes::copy_from_slice(status),
        Ending::Words => outcome::plain(status).into(),
    }
}

async fn say(mut sink: SplitSink<&mut WebSocket, Message>, protocol: Protocol, channel: u8, bytes: &[u8]) {
    // A client that left is told nothing.
    let _ = sink.send(message(protocol, channel, bytes)).await;
}

/// The streams of a command.
struct Opened {
    error: Stream,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Opened {
    async fn open(connection: &Connection, streams: Streams) -> Result<Self, Gone> {
        let one = async |wanted: bool, kind: &str| match wanted {
            true => connection.open(Headers::default().with("streamtype", kind)).await.map(Some),
            false => Ok(None),
        };
        Ok(Self {
            error: connection.open(Headers::default().with("streamtype", "error")).await?,
            stdin: one(streams.stdin, "stdin").await?,
            stdout: one(streams.stdout, "stdout").await?,
            stderr: one(streams.stderr, "stderr").await?,
            resize: one(streams.tty, "resize").await?,
        })
    }

    async fn carry(
        self,
        mut sink: SplitSink<&mut WebSocket, Message>,
        messages: SplitStream<&mut WebSocket>,
        protocol: Protocol,
        streams: Streams,
    ) {
        let Self { mut error, mut stdin, mut stdout, mut stderr, mut resize } = self;
        // An empty message on the first channel there is tells the client that all stands.
        let first = if streams.stdout {
            STDOUT
        } else if streams.stderr {
            STDERR
        } else {
            ERROR
        };
        if sink.send(message(protocol, first, &[])).await.is_err() {
            return;
        }
        // Nothing is sent on these.
        let writers = [Some(&mut error), stdout.as_mut(), stderr.as_mut()];
        for stream in writers.into_iter().flatten() {
            if stream.writer.finish().await.is_err() {
                return;
            }
        }
        let (sender, mut outgoing) = mpsc::channel::<Message>(MESSAGES);
        let output = async |channel: u8, stream: Option<&mut Stream>, sender: mpsc::Sender<Message>| {
            let Some(stream) = stream else { return };
            while let Some(bytes) = stream.reader.next().await {
                if sender.send(message(protocol, channel, &bytes)).await.is_err() {
                    return;
                }
            }
        };
        let outputs = async {
            let (out, err) = (sender.clone(), sender.clone());
            let ((), (), status) = tokio::join!(
                output(STDOUT, stdout.as_mut(), out),
                output(STDERR, stderr.as_mut(), err),
                status_of(&mut error.reader)
            );
            let status = if status.is_empty() {
                outcome::failure("the connection to the container was lost").into()
            } else {
                status.freeze()
            };
            let last = ending(protocol, &status);
            if !last.is_empty() {
                // The writer below ends only after this.
                let _ = sender.send(message(protocol, ERROR, &last)).await;
            }
            drop(sender);
        };
        let writing = async {
            while let Some(message) = outgoing.recv().await {
                if sink.feed(message).await.is_err() || (outgoing.is_empty() && sink.flush().await.is_err()) {
                    return;
                }
            }
        };
        let stdin = stdin.as_mut().map(|stream| &mut stream.writer);
        let resize = resize.as_mut().map(|stream| &mut stream.writer);
        tokio::select! {
            ((), ()) = futures::future::join(outputs, writing) => {}
            () = input(messages, protocol, stdin, resize) => {}
        }
    }
}

/// All that is said of the end; nothing when the other side left without a word.
async fn status_of(reader: &mut StreamReader) -> BytesMut {
    let mut status = BytesMut::new();
    while let Some(bytes) = reader.next().await {
        let room = MAX_STATUS_BYTES - status.len();
        status.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    status
}

/// Carries what the client sends, until it leaves.
async fn input(
    mut messages: SplitStream<&mut WebSocket>,
    protocol: Protocol,
    mut stdin: Option<&mut StreamWriter>,
    mut resize: Option<&mut StreamWriter>,
) {
    while let Some(Ok(message)) = messages.next().await {
        let Some(bytes) = payload(message) else { continue };
        // A client that breaks the protocol is one that leaves.
        let Ok(input) = protocol.read(bytes) else { return };
        // What the other side no longer takes is dropped: it says itself how it ended.
        match input {
            Input::Data(STDIN, bytes) => {
                if let Some(writer) = stdin.as_mut() {
                    let _ = writer.send(bytes).await;
                }
            }
            Input::Data(RESIZE, bytes) => {
                if let Some(writer) = resize.as_mut() {
                    let _ = writer.send(bytes).await;
                }
            }
            Input::Close(STDIN) => {
                if let Some(writer) = stdin.as_mut() {
                    let _ = writer.finish().await;
                }
            }
            Input::Data(..) | Input::Close(_) | Input::Empty => {}
        }
    }
}
