//! Passing bytes both ways, until both sides are done or nothing has come for too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Passes bytes on between two connections. Both are ended when nothing has come from either for `limit`.
pub(super) async fn pass_on(client: TcpStream, server: TcpStream, limit: Duration) {
    let last = Arc::new(Last { start: Instant::now(), millis: AtomicU64::new(0) });
    let (mut client, mut server) = (Watched { stream: client, last: last.clone() }, Watched { stream: server, last });
    let last = client.last.clone();
    let silence = async {
        loop {
            let end = last.at() + limit;
            if end <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(end).await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        () = silence => {}
    }
}

/// When something came last.
struct Last {
    start: Instant,
    millis: AtomicU64,
}

impl Last {
    fn at(&self) -> Instant {
        self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn now(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }
}

/// A connection that notes when bytes come.
struct Watched {
    stream: TcpStream,
    last: Arc<Last>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.last.now();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_silent_connection_ends_and_one_that_speaks_does_not() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let limit = Duration::from_millis(400);
        let passing = tokio::spawn(pass_on(near, far, limit));
        let mut byte = [0];
        for _ in 0..6 {
            tokio::time::sleep(limit / 4).await;
            client.write_all(b"x").await.unwrap();
            server.read_exact(&mut byte).await.unwrap();
        }
        assert!(!passing.is_finished(), "it was never silent for so long");
        passing.await.unwrap();
        assert_eq!(client.read(&mut byte).await.unwrap(), 0, "it is ended for the client");
        assert_eq!(server.read(&mut byte).await.unwrap(), 0, "and for the server");
    }
}
