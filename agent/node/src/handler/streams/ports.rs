//! Port-forward to a pod without a network namespace of its own, served over SPDY as the kubelet serves it: a connection of the
//! client's is two streams, one for its bytes, one for what goes wrong.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::BytesMut;
use coracle_streaming::{Connection, Gone, IDLE_TIMEOUT, Role, Stream, StreamReader, StreamWriter, connect};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

/// How long the second stream of a pair may take after the first (`DefaultStreamCreationTimeout` of the kubelet).
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a component may take to accept: it is on this machine.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How much is read at once.
const BLOCK_BYTES: usize = 32 * 1024;

/// Where connections go, and whose ports these are.
pub(super) struct Target {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) pod: String,
    pub(super) uid: String,
}

/// Serves connections until the client leaves.
pub(super) async fn serve(io: DuplexStream, target: Target) {
    let (connection, driving) = connect(io, Role::Server, IDLE_TIMEOUT);
    tokio::join!(driving, forward_all(connection, target));
}

/// A connection of the client's.
struct Pair {
    port: u16,
    error: Stream,
    data: Stream,
}

async fn forward_all(mut connection: Connection, target: Target) {
    // Dropped with the client: connections that are forwarded end with it.
    let mut forwards = JoinSet::new();
    let mut halves: HashMap<String, (Instant, Stream)> = HashMap::new();
    let target = std::sync::Arc::new(target);
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            Some(_) = forwards.join_next() => continue,
        };
        let Some(stream) = stream else { return };
        halves.retain(|_, (since, _)| since.elapsed() < CREATION_TIMEOUT);
        // One that says nothing sensible is dropped, and so given up.
        let Some((request, port)) = identity(&stream) else { continue };
        let Some((_, other)) = halves.remove(&request) else {
            halves.insert(request, (Instant::now(), stream));
            continue;
        };
        let (error, data) = if kind(&stream) == "error" { (stream, other) } else { (other, stream) };
        if kind(&error) == "error" && kind(&data) == "data" {
            let target = target.clone();
            forwards.spawn(async move { forward(Pair { port, error, data }, &target).await });
        }
    }
}

fn kind(stream: &Stream) -> &str {
    stream.headers.get("streamtype").unwrap_or_default()
}

/// Which connection a stream belongs to, and where that goes. Clients of the first days number no requests: there the data
/// stream follows the error stream.
fn identity(stream: &Stream) -> Option<(String, u16)> {
    let port = stream.headers.get("port")?.parse::<u16>().ok().filter(|port| *port > 0)?;
    let request = match (stream.headers.get("requestid"), kind(stream)) {
        (Some(request), "error" | "data") => request.to_owned(),
        (None, "error") => stream.id.to_string(),
        (None, "data") => stream.id.checked_sub(2)?.to_string(),
        _ => return None,
    };
    Some((request, port))
}

/// Carries one connection to its end.
async fn forward(pair: Pair, target: &Target) -> Result<(), Gone> {
    let Pair { port, mut error, data } = pair;
    let Stream { reader, mut writer, .. } = data;
    let carried = match dial(&target.addresses, port).await {
        Ok(socket) => carry(socket, reader, &mut writer).await,
        Err(error) => Err(error),
    };
    if let Err(why) = carried {
        let (pod, uid) = (&target.pod, &target.uid);
        let words = format!("error forwarding port {port} to pod {pod}, uid {uid}: {why}");
        error.writer.send(words.into()).await?;
    }
    error.writer.finish().await?;
    writer.finish().await
}

async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the pod has no address");
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("dial tcp {address}: connect: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("dial tcp {address}: i/o timeout")),
        }
    }
    Err(last)
}

/// Carries bytes both ways. The client's end is passed on and the answer awaited; the pod's end is the end.
async fn carry(mut socket: TcpStream, mut reader: StreamReader, writer: &mut StreamWriter) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = socket.split();
    let inward = async {
        while let Some(bytes) = reader.next().await {
            to_pod.write_all(&bytes).await?;
        }
        to_pod.shutdown().await
    };
    let outward = async {
        let mut block = BytesMut::new();
        loop {
            block.reserve(BLOCK_BYTES);
            if from_pod.read_buf(&mut block).await? == 0 || writer.send(block.split().freeze()).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
    tokio::select! {
        done = &mut outward => done,
        // What the pod no longer reads it may still have answered.
        _ = &mut inward => outward.await,
    }
}
