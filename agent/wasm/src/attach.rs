//! Attach: whoever joins a running component sees what it writes from then on, and may feed its stdin. What a client does not read in
//! time ends its session, never the component: a guest that waited for its watchers would be theirs to stop.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use coracle_agent_core::workload::{Session, SessionInput, SessionOutput, SessionStreams, StdioSpec, WorkloadError};
use coracle_host::{LogSink, StdStream};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite as _, DuplexStream};

/// Output that waits for one client.
const WAITING_BYTES: usize = 1024 * 1024;
/// Input that waits for the component.
const STDIN_BYTES: usize = 64 * 1024;
/// Clients of one container.
const MAX_SESSIONS: usize = 64;

/// The stdio of one run.
pub(crate) struct Stdio {
    once: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: Vec<Arc<Mutex<Waiting>>>,
    /// Where input goes, while no session has it.
    stdin: Option<DuplexStream>,
    ended: bool,
}

/// What one client has not read yet.
#[derive(Default)]
struct Waiting {
    output: VecDeque<(StdStream, Vec<u8>)>,
    bytes: usize,
    lagging: bool,
    ended: bool,
    waker: Option<Waker>,
}

impl Waiting {
    fn push(&mut self, stream: StdStream, bytes: &[u8]) {
        if self.bytes + bytes.len() > WAITING_BYTES {
            self.lagging = true;
        } else {
            self.bytes += bytes.len();
            match self.output.back_mut() {
                Some((last, waiting)) if *last == stream => waiting.extend_from_slice(bytes),
                _ => self.output.push_back((stream, bytes.to_vec())),
            }
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Stdio {
    /// That of a container, and what its component reads if it reads anything.
    pub(crate) fn new(spec: StdioSpec) -> (Arc<Self>, Option<DuplexStream>) {
        let (near, far) = if spec.stdin {
            let (near, far) = tokio::io::duplex(STDIN_BYTES);
            (Some(near), Some(far))
        } else {
            (None, None)
        };
        let state = State { stdin: near, ..State::default() };
        (Arc::new(Self { once: spec.stdin_once, state: Mutex::new(state) }), far)
    }

    /// Joins the container.
    pub(crate) fn attach(self: &Arc<Self>, streams: SessionStreams) -> Result<Box<dyn Session>, WorkloadError> {
        let mut state = self.state.lock();
        if state.sessions.len() >= MAX_SESSIONS {
            return Err(WorkloadError::Runtime(format!(
                "{MAX_SESSIONS} clients are attached to the container already"
            )));
        }
        let waiting = Arc::new(Mutex::new(Waiting { ended: state.ended, ..Waiting::default() }));
        state.sessions.push(waiting.clone());
        let stdin = if streams.stdin { state.stdin.take() } else { None };
        Ok(Box::new(Attached { stdio: self.clone(), waiting, stdin, unwritten: Vec::new() }))
    }

    /// The container has ended: sessions are over once what was written is read.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.stdin = None;
        for session in state.sessions.drain(..) {
            let mut waiting = session.lock();
            waiting.ended = true;
            waiting.wake();
        }
    }

    fn write(&self, stream: StdStream, bytes: &[u8]) {
        for session in &self.state.lock().sessions {
            session.lock().push(stream, bytes);
        }
    }
}

/// Writes to a container's log, and to those who are attached.
pub(crate) struct Teed<L> {
    pub(crate) log: Arc<L>,
    pub(crate) stdio: Arc<Stdio>,
}

impl<L: LogSink> LogSink for Teed<L> {
    fn write(&self, stream: StdStream, bytes: &[u8]) {
        self.log.write(stream, bytes);
        self.stdio.write(stream, bytes);
    }
}

/// A client's session.
struct Attached {
    stdio: Arc<Stdio>,
    waiting: Arc<Mutex<Waiting>>,
    stdin: Option<DuplexStream>,
    unwritten: Vec<u8>,
}

impl Attached {
    /// Writes what came for the component; an error when it reads no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WorkloadError>> {
        while !self.unwritten.is_empty() {
            let Some(stdin) = &mut self.stdin else { break };
            match Pin::new(stdin).poll_write(cx, &self.unwritten) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(written @ 1..)) => drop(self.unwritten.drain(..written)),
                Poll::Ready(_) => {
                    self.stdin = None;
                    return Poll::Ready(Err(WorkloadError::Runtime("the component reads no more".to_owned())));
                }
            }
        }
        self.unwritten.clear();
        Poll::Ready(Ok(()))
    }
}

impl Session for Attached {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<SessionOutput>> {
        // Whether it could be written is told to whoever writes next.
        let _ = self.poll_write(cx);
        let mut waiting = self.waiting.lock();
        if let Some((stream, bytes)) = waiting.output.pop_front() {
            waiting.bytes -= bytes.len();
            return Poll::Ready(Some(match stream {
                StdStream::Stdout => SessionOutput::Stdout(bytes),
                StdStream::Stderr => SessionOutput::Stderr(bytes),
            }));
        }
        if waiting.lagging {
            let message = "output came faster than it was read; `kubectl logs` has all of it".to_owned();
            return Poll::Ready(Some(SessionOutput::Failed { message }));
        }
        if waiting.ended {
            return Poll::Ready(None);
        }
        waiting.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WorkloadError>> {
        self.poll_write(cx)
    }

    fn send(&mut self, input: SessionInput) -> Result<(), WorkloadError> {
        match input {
            SessionInput::Stdin(bytes) => self.unwritten.extend_from_slice(&bytes),
            // `stdinOnce`: the first client that ends its input ends the component's.
            SessionInput::CloseStdin if self.stdio.once => self.stdin = None,
            SessionInput::CloseStdin | SessionInput::Resize { .. } => {}
        }
        Ok(())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut state = self.stdio.state.lock();
        state.sessions.retain(|session| !Arc::ptr_eq(session, &self.waiting));
        if !self.stdio.once && !state.ended {
            state.stdin = state.stdin.take().or(self.stdin.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    const ALL: SessionStreams = SessionStreams { stdin: true, stdout: true, stderr: true, tty: false };

    fn stdio(once: bool) -> (Arc<Stdio>, DuplexStream) {
        let (stdio, read) = Stdio::new(StdioSpec { stdin: true, stdin_once: once, tty: false });
        (stdio, read.unwrap())
    }

    async fn put(session: &mut dyn Session, input: SessionInput) {
        poll_fn(|cx| session.poll_ready(cx)).await.unwrap();
        session.send(input).unwrap();
        poll_fn(|cx| session.poll_ready(cx)).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_sees_what_comes_after_it() {
        let (stdio, _read) = stdio(false);
        stdio.write(StdStream::Stdout, b"before");
        let mut session = stdio.attach(ALL).unwrap();
        stdio.write(StdStream::Stdout, b"a");
        stdio.write(StdStream::Stdout, b"b");
        stdio.write(StdStream::Stderr, b"c");
        stdio.end();
        let mut seen = Vec::new();
        while let Some(output) = poll_fn(|cx| session.poll_next(cx)).await {
            seen.push(output);
        }
        assert_eq!(seen, [SessionOutput::Stdout(b"ab".to_vec()), SessionOutput::Stderr(b"c".to_vec())]);
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_told_so() {
        let (stdio, _read) = stdio(false);
        let mut session = stdio.attach(ALL).unwrap();
        for _ in 0..3 {
            stdio.write(StdStream::Stdout, &vec![0; WAITING_BYTES / 2]);
        }
        assert!(matches!(poll_fn(|cx| session.poll_next(cx)).await, Some(SessionOutput::Stdout(_))));
        assert!(matches!(poll_fn(|cx| session.poll_next(cx)).await, Some(SessionOutput::Failed { .. })));
    }

    #[tokio::test]
    async fn stdin_goes_on_with_the_next_client_unless_it_is_for_one() {
        for once in [false, true] {
            let (stdio, mut read) = stdio(once);
            let mut first = stdio.attach(ALL).unwrap();
            put(&mut *first, SessionInput::Stdin(b"one".to_vec())).await;
            put(&mut *first, SessionInput::CloseStdin).await;
            drop(first);
            let mut second = stdio.attach(ALL).unwrap();
            put(&mut *second, SessionInput::Stdin(b"two".to_vec())).await;
            stdio.end();
            drop(second);
            let mut all = String::new();
            read.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, if once { "one" } else { "onetwo" });
        }
    }
}
