//! Streams of bytes in both directions, whatever carries them: a socket, TLS, a pipe in memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

/// How long a connection may say nothing in either direction (`streamingConnectionIdleTimeout` of the kubelet).
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// How much is read at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// Bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Any of them.
pub type BoxedStream = Box<dyn ByteStream>;

/// When something last went through, as the time since a common beginning.
#[derive(Clone)]
pub(crate) struct Activity {
    begun: Instant,
    last_millis: Arc<AtomicU64>,
    timeout: Duration,
}

impl Activity {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { begun: Instant::now(), last_millis: Arc::default(), timeout }
    }

    pub(crate) fn seen(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_millis.store(now, Ordering::Relaxed);
    }

    /// Ends when nothing has been seen for the whole timeout.
    pub(crate) async fn idle(&self) {
        loop {
            let deadline = self.begun + Duration::from_millis(self.last_millis.load(Ordering::Relaxed)) + self.timeout;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// Carries bytes between two streams until either ends or nothing came for `idle`; then both are closed. What was read before is
/// written before.
pub async fn splice(one: impl ByteStream, other: impl ByteStream, idle: Duration) {
    let activity = Activity::new(idle);
    let (mut one_in, mut one_out) = tokio::io::split(one);
    let (mut other_in, mut other_out) = tokio::io::split(other);
    tokio::select! {
        _ = carry(&mut one_in, &mut other_out, &activity) => {}
        _ = carry(&mut other_in, &mut one_out, &activity) => {}
        () = activity.idle() => {}
    }
    // A side that is gone cannot be told.
    let _ = tokio::join!(one_out.shutdown(), other_out.shutdown());
}

/// Carries bytes one way until they end.
async fn carry(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    activity: &Activity,
) -> io::Result<()> {
    let mut block = BytesMut::with_capacity(BLOCK_BYTES);
    loop {
        block.clear();
        if from.read_buf(&mut block).await? == 0 {
            return Ok(());
        }
        activity.seen();
        to.write_all(&block).await?;
        // What stands in a buffer of TLS is not on its way yet.
        to.flush().await?;
        activity.seen();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_until_one_side_ends() {
        let (mut client, one) = tokio::io::duplex(16);
        let (mut server, other) = tokio::io::duplex(16);
        let splicing = tokio::spawn(splice(one, other, IDLE_TIMEOUT));
        let sent = vec![7; 100_000];
        let (written, read) = tokio::join!(client.write_all(&sent), async {
            let mut read = vec![0; 100_000];
            server.read_exact(&mut read).await.unwrap();
            read
        });
        written.unwrap();
        assert_eq!(read, sent);
        server.write_all(b"bye").await.unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"bye");
        splicing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let (_client, one) = tokio::io::duplex(16);
        let (_server, other) = tokio::io::duplex(16);
        let begun = Instant::now();
        splice(one, other, Duration::from_secs(60)).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
    }
}
