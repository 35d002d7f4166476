//! Clients that take their time. A client may be as slow as it likes while there is room for others; when every instance is
//! at work, one that sends its request or takes its response slower than the slowest link is let go, so that a thousand of
//! them keep nobody out. A connection on which nothing is asked for is ended after a while.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Semaphore,
    time::{Instant, Sleep, sleep_until},
};
use wasmtime_wasi_http::Error;

/// What a body may take whatever its size, and a response without any progress.
const PATIENCE: Duration = Duration::from_secs(20);
/// The rate at which a body must come besides: what Apache's `mod_reqtimeout` asks for.
const MIN_BYTES_PER_SECOND: u64 = 500;
/// A slow client is looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// The places of a server's instances: `true` when all are taken.
fn is_full(places: &Semaphore) -> bool {
    places.available_permits() == 0
}

/// A request's body that ends in an error when its client is slow and others wait.
pub(super) struct Uploaded {
    body: Incoming,
    places: Arc<Semaphore>,
    begun: Instant,
    bytes: u64,
    look: Option<Pin<Box<Sleep>>>,
}

impl Uploaded {
    pub(super) fn new(body: Incoming, places: Arc<Semaphore>) -> Self {
        Self { body, places, begun: Instant::now(), bytes: 0, look: None }
    }

    fn deadline(&self) -> Instant {
        self.begun + PATIENCE + Duration::from_secs(self.bytes / MIN_BYTES_PER_SECOND)
    }
}

impl Body for Uploaded {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
                self.bytes += data.map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let deadline = self.deadline();
        let full = is_full(&self.places);
        late(&mut self.look, deadline, full, cx).map(|()| Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Ready when the deadline has passed and nobody can be served; else it looks again by itself.
fn late(look: &mut Option<Pin<Box<Sleep>>>, deadline: Instant, full: bool, cx: &mut Context<'_>) -> Poll<()> {
    if full && Instant::now() >= deadline {
        return Poll::Ready(());
    }
    let next = deadline.max(Instant::now() + LOOK);
    let sleep = look.get_or_insert_with(|| Box::pin(sleep_until(next)));
    if sleep.deadline() <= Instant::now() {
        sleep.as_mut().reset(next);
    }
    while sleep.as_mut().poll(cx).is_ready() {
        sleep.as_mut().reset(Instant::now() + LOOK);
    }
    Poll::Pending
}

/// A connection whose writes fail when the other side takes nothing and others wait.
pub(super) struct Taken<S> {
    stream: S,
    places: Arc<Semaphore>,
    patience: Duration,
    /// Since when nothing was taken.
    stuck: Option<Instant>,
    look: Option<Pin<Box<Sleep>>>,
}

impl<S> Taken<S> {
    pub(super) fn new(stream: S, places: Arc<Semaphore>) -> Self {
        Self { stream, places, patience: PATIENCE, stuck: None, look: None }
    }

    fn waited<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let since = *self.stuck.get_or_insert_with(Instant::now);
        let full = is_full(&self.places);
        ready!(late(&mut self.look, since + self.patience, full, cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Taken<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Taken<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.waited(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.waited(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.waited(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// When something was asked for last on a connection.
#[derive(Clone)]
pub(super) struct Asked {
    begun: Instant,
    millis: Arc<AtomicU64>,
}

impl Asked {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), millis: Arc::default() }
    }

    pub(super) fn now(&self) {
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// Returns when nothing was asked for in `limit`.
    pub(super) async fn nothing_for(&self, limit: Duration) {
        loop {
            let end = self.begun + Duration::from_millis(self.millis.load(Ordering::Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    fn taken(places: &Arc<Semaphore>) -> (Taken<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(16);
        (Taken { patience: Duration::from_millis(50), ..Taken::new(near, places.clone()) }, far)
    }

    /// A client that takes nothing is let go when there is no place left, and not before.
    #[tokio::test]
    async fn a_client_that_takes_nothing_goes_when_others_wait() {
        let places = Arc::new(Semaphore::new(1));
        let (mut stream, _far) = taken(&places);
        stream.write_all(&[0; 16]).await.unwrap();
        let mut writing = std::pin::pin!(stream.write_all(&[0; 16]));
        let waiting = tokio::time::timeout(Duration::from_millis(200), &mut writing).await;
        assert!(waiting.is_err(), "there is room: it may wait");
        let _all = places.acquire().await.unwrap();
        let ended = tokio::time::timeout(LOOK * 10, &mut writing).await.expect("others wait");
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_takes_something_now_and_then_stays() {
        use tokio::io::AsyncReadExt;
        let (mut stream, mut far) = taken(&Arc::new(Semaphore::new(0)));
        stream.patience = Duration::from_secs(30);
        let reading = tokio::spawn(async move {
            let mut bytes = [0; 8];
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                far.read_exact(&mut bytes).await.unwrap();
            }
        });
        stream.write_all(&[0; 64]).await.unwrap();
        assert!(stream.stuck.is_none_or(|since| since.elapsed() < stream.patience));
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_is_idle_since_the_last_request() {
        let (asked, limit) = (Asked::new(), Duration::from_millis(200));
        let begun = Instant::now();
        let ask = asked.clone();
        let asking = tokio::spawn(async move {
            for _ in 0..4 {
                tokio::time::sleep(limit / 2).await;
                ask.now();
            }
        });
        asked.nothing_for(limit).await;
        assert!(begun.elapsed() > limit * 2 && asking.is_finished(), "{:?}", begun.elapsed());
    }
}
