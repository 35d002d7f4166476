//! A session with a component, served over SPDY as the kubelet serves one: the client opens a stream for each of its channels, and is
//! told the end on the last of them.

use std::{collections::HashMap, future::poll_fn, time::Duration};

use coracle_agent_core::workload::{Session, SessionInput, SessionOutput, SessionStreams};
use coracle_streaming::{Connection, Gone, IDLE_TIMEOUT, Role, Stream, StreamReader, connect, outcome};
use tokio::io::DuplexStream;

/// How long a client may take to open its streams (`DefaultStreamCreationTimeout` of the kubelet).
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);
/// The version from which on the end is told as a `Status`.
const STATUS_SINCE: &str = "v4.channel.k8s.io";
/// Versions that know nothing of sizes of terminals.
const WITHOUT_RESIZE: [&str; 2] = ["v2.channel.k8s.io", "channel.k8s.io"];

/// Serves a session until it ends, or the client leaves.
pub(super) async fn serve(
    io: DuplexStream,
    protocol: Option<&'static str>,
    session: Box<dyn Session>,
    streams: SessionStreams,
) {
    let (connection, driving) = connect(io, Role::Server, IDLE_TIMEOUT);
    let serving = async move {
        let ended = connection.ended();
        // A client that left is told nothing.
        let _ = ended.run_until_cancelled(talk(connection, protocol, session, streams)).await;
    };
    tokio::join!(driving, serving);
}

async fn talk(
    mut connection: Connection,
    protocol: Option<&'static str>,
    mut session: Box<dyn Session>,
    streams: SessionStreams,
) -> Result<(), Gone> {
    let protocol = protocol.unwrap_or_default();
    let resizes = streams.tty && !protocol.is_empty() && !WITHOUT_RESIZE.contains(&protocol);
    let mut wanted = vec!["error"];
    wanted.extend(streams.stdin.then_some("stdin"));
    wanted.extend(streams.stdout.then_some("stdout"));
    wanted.extend(streams.stderr.then_some("stderr"));
    wanted.extend(resizes.then_some("resize"));
    let opened = tokio::time::timeout(CREATION_TIMEOUT, all(&mut connection, wanted)).await;
    let Ok(Some(mut opened)) = opened else { return Err(Gone) };
    let (mut stdout, mut stderr) = (opened.remove("stdout"), opened.remove("stderr"));
    let mut error = opened.remove("error").ok_or(Gone)?;
    let mut stdin = opened.remove("stdin");
    let mut resize = opened.remove("resize");
    let mut failure = None;
    loop {
        let event = tokio::select! {
            output = poll_fn(|cx| session.poll_next(cx)) => Event::Output(output),
            input = next(stdin.as_mut().map(|stream| &mut stream.reader)), if stdin.is_some() => Event::Input(input),
            size = next(resize.as_mut().map(|stream| &mut stream.reader)), if resize.is_some() => Event::Size(size),
        };
        match event {
            Event::Output(Some(SessionOutput::Stdout(bytes))) => send(&mut stdout, bytes).await?,
            // With a terminal there is one output for both.
            Event::Output(Some(SessionOutput::Stderr(bytes))) if streams.tty => send(&mut stdout, bytes).await?,
            Event::Output(Some(SessionOutput::Stderr(bytes))) => send(&mut stderr, bytes).await?,
            Event::Output(Some(SessionOutput::Exited { .. }) | None) => break,
            Event::Output(Some(SessionOutput::Failed { message })) => {
                failure = Some(message);
                break;
            }
            Event::Input(Some(bytes)) => {
                if put(&mut *session, SessionInput::Stdin(bytes.to_vec())).await.is_err() {
                    finish(&mut stdin.take()).await?;
                }
            }
            Event::Input(None) => {
                // A session that is over has no stdin to close.
                let _ = put(&mut *session, SessionInput::CloseStdin).await;
                finish(&mut stdin.take()).await?;
            }
            // A component has no terminal to resize.
            Event::Size(Some(_)) => {}
            Event::Size(None) => finish(&mut resize.take()).await?,
        }
    }
    for stream in [&mut stdin, &mut stdout, &mut stderr, &mut resize] {
        finish(stream).await?;
    }
    let last = match (failure, protocol == STATUS_SINCE) {
        (None, true) => outcome::success(),
        (None, false) => String::new(),
        (Some(message), true) => outcome::failure(&message),
        (Some(message), false) => message,
    };
    error.writer.send(last.into()).await?;
    error.writer.finish().await
}

enum Event {
    Output(Option<SessionOutput>),
    Input(Option<bytes::Bytes>),
    Size(Option<bytes::Bytes>),
}

/// The streams of these sorts, each once; `None` when the client leaves before.
async fn all(connection: &mut Connection, mut wanted: Vec<&str>) -> Option<HashMap<String, Stream>> {
    let mut opened = HashMap::new();
    while !wanted.is_empty() {
        let stream = connection.accept().await?;
        let kind = stream.headers.get("streamtype").unwrap_or_default().to_owned();
        // Dropping one that nobody asked for gives it up.
        if let Some(at) = wanted.iter().position(|wanted| *wanted == kind) {
            wanted.swap_remove(at);
            opened.insert(kind, stream);
        }
    }
    Some(opened)
}

async fn next(reader: Option<&mut StreamReader>) -> Option<bytes::Bytes> {
    match reader {
        Some(reader) => reader.next().await,
        None => None,
    }
}

async fn put(session: &mut dyn Session, input: SessionInput) -> Result<(), ()> {
    poll_fn(|cx| session.poll_ready(cx)).await.map_err(drop)?;
    session.send(input).map_err(drop)
}

async fn send(stream: &mut Option<Stream>, bytes: Vec<u8>) -> Result<(), Gone> {
    match stream {
        Some(stream) => stream.writer.send(bytes.into()).await,
        None => Ok(()),
    }
}

async fn finish(stream: &mut Option<Stream>) -> Result<(), Gone> {
    match stream {
        Some(stream) => stream.writer.finish().await,
        None => Ok(()),
    }
}
