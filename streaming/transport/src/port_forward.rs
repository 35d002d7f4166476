//! Port-forward of a WebSocket client by channels, two for each port: what kubectl spoke before the tunnel, and other clients do.
//! Each port has one connection, which begins with the port's number on both of its channels.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use coracle_streaming_protocol::channel::{Input, Protocol};
use coracle_streaming_protocol::spdy::{Headers, Role};
use futures::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::ByteStream;
use crate::spdy::{Connection, Gone, StreamReader, StreamWriter, connect};
use crate::websocket::{WebSocket, message, payload, say_goodbye};

/// Messages on their way to the client.
const MESSAGES: usize = 4;

/// Carries a client's channels to `other`, which speaks `portforward.k8s.io` over SPDY, until all ports are closed, either side
/// leaves or nothing came for `idle`.
pub async fn port_forward(
    mut socket: WebSocket,
    protocol: Protocol,
    ports: &[u16],
    other: impl ByteStream,
    idle: Duration,
) {
    let (connection, driving) = connect(other, Role::Client, idle);
    let carrying = async {
        carry(&mut socket, protocol, ports, connection).await;
        say_goodbye(&mut socket).await;
    };
    tokio::join!(driving, carrying);
}

async fn open(connection: &Connection, request: usize, port: u16) -> Result<Port, Gone> {
    let headers = |kind| {
        let headers = Headers::default().with("streamtype", kind).with("port", &port.to_string());
        headers.with("requestid", &request.to_string())
    };
    let mut error = connection.open(headers("error")).await?;
    error.writer.finish().await?;
    let data = connection.open(headers("data")).await?;
    Ok(Port { number: port, error: error.reader, data: data.reader, writer: data.writer })
}

struct Port {
    number: u16,
    error: StreamReader,
    data: StreamReader,
    writer: StreamWriter,
}

async fn carry(socket: &mut WebSocket, protocol: Protocol, ports: &[u16], connection: Connection) {
    let (mut sink, mut messages) = socket.split();
    let (sender, mut outgoing) = mpsc::channel::<Message>(MESSAGES);
    let mut writers = HashMap::new();
    let mut outputs = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (Ok(opened), Ok(channel)) = (open(&connection, index, *port).await, u8::try_from(2 * index)) else {
            return;
        };
        let Port { number, error, data, writer } = opened;
        writers.insert(channel, writer);
        for (channel, reader) in [(channel, data), (channel + 1, error)] {
            outputs.push(output(protocol, channel, number, reader, sender.clone()));
        }
    }
    drop(sender);
    let writing = async {
        while let Some(message) = outgoing.recv().await {
            if sink.feed(message).await.is_err() || (outgoing.is_empty() && sink.flush().await.is_err()) {
                return;
            }
        }
    };
    let reading = async {
        while let Some(Ok(message)) = messages.next().await {
            let Some(bytes) = payload(message) else { continue };
            let Ok(input) = protocol.read(bytes) else { return };
            if let Input::Data(channel, bytes) = input
                && let Some(writer) = writers.get_mut(&channel)
                && writer.send(bytes).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        _ = futures::future::join(futures::future::join_all(outputs), writing) => {}
        () = reading => {}
    }
}

/// Carries what comes on a stream, behind the port's number.
async fn output(protocol: Protocol, channel: u8, port: u16, mut reader: StreamReader, sender: mpsc::Sender<Message>) {
    let mut next = Some(Bytes::copy_from_slice(&port.to_le_bytes()));
    while let Some(bytes) = next {
        if sender.send(message(protocol, channel, &bytes)).await.is_err() {
            return;
        }
        next = reader.next().await;
    }
}
