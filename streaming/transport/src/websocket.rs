//! WebSocket connections on the server's side, and the tunnel in which kubectl sends SPDY through one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use coracle_streaming_protocol::channel::{Encoding, Protocol};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};

use crate::byte_stream::Activity;
use crate::{BoxedStream, ByteStream};

/// The longest message of a client: what a program writes to stdin in one call is one message for most clients.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// What is read at once.
const BLOCK_BYTES: usize = 32 * 1024;
/// What may wait to be written: some messages of one block each.
const WRITE_BYTES: usize = 256 * 1024;
/// How long a client may take to answer that the connection is over.
const GOODBYE: Duration = Duration::from_secs(2);

/// A WebSocket connection.
pub type WebSocket = WebSocketStream<BoxedStream>;

/// The connection after its handshake.
pub async fn websocket(io: BoxedStream) -> WebSocket {
    let config = WebSocketConfig::default()
        .read_buffer_size(BLOCK_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BYTES + MAX_MESSAGE_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// The bytes of a message that has any; `None` of one that is about the connection itself.
pub(crate) fn payload(message: Message) -> Option<Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}

/// A message of a channel.
pub(crate) fn message(protocol: Protocol, channel: u8, bytes: &[u8]) -> Message {
    let message = protocol.write(channel, bytes);
    match protocol.encoding {
        Encoding::Binary => Message::Binary(message),
        // What was encoded is ASCII.
        Encoding::Base64 => Message::text(String::from_utf8_lossy(&message).into_owned()),
    }
}

/// Says that the connection is over, and waits a moment for the client to say so too: one that still writes would lose what it
/// has not read yet.
pub(crate) async fn say_goodbye(socket: &mut WebSocket) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let goodbye = async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A client that says nothing has had its time.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// Carries the bytes of a stream in messages, until either side ends or nothing came for `idle`.
pub async fn tunnel(mut socket: WebSocket, other: impl ByteStream, idle: Duration) {
    let activity = Activity::new(idle);
    let (mut read, mut write) = tokio::io::split(other);
    {
        let (mut sink, mut messages) = (&mut socket).split();
        let to_stream = async {
            while let Some(Ok(message)) = messages.next().await {
                let Some(bytes) = payload(message) else { continue };
                activity.seen();
                if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
                    return;
                }
            }
        };
        let to_client = async {
            let mut block = BytesMut::new();
            loop {
                block.reserve(BLOCK_BYTES);
                if !matches!(read.read_buf(&mut block).await, Ok(1..)) {
                    return;
                }
                activity.seen();
                if sink.send(Message::Binary(block.split().freeze())).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = to_stream => {}
            () = to_client => {}
            () = activity.idle() => {}
        }
    }
    let (_, ()) = tokio::join!(write.shutdown(), say_goodbye(&mut socket));
}
