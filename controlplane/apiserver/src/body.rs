//! Response bodies: whole, in shared pieces, in pieces that are made as they are sent, or a stream that is polled only as fast as the client reads.
//! A client that goes away drops the body, and with it everything the answer held.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, Stream, StreamExt as _};
use http_body::{Frame, SizeHint};

/// What a streamed body fails with: the connection is cut, since the head has been sent.
pub type StreamError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response.
pub struct Body(Inner);

enum Inner {
    Pieces(VecDeque<Bytes>, u64),
    Made(Box<dyn Iterator<Item = Bytes> + Send>, u64),
    Stream(BoxStream<'static, Result<Bytes, StreamError>>),
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self(Inner::Pieces(VecDeque::new(), 0))
    }

    /// One piece.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::pieces(VecDeque::from([bytes.into()]))
    }

    /// Several pieces, sent one after the other without being joined.
    #[must_use]
    pub fn pieces(mut pieces: VecDeque<Bytes>) -> Self {
        pieces.retain(|p| !p.is_empty());
        let total = pieces.iter().map(|p| p.len() as u64).sum();
        Self(Inner::Pieces(pieces, total))
    }

    /// Pieces that are made one after the other, each when the one before it is on its way, so that a long answer is never
    /// in memory as a whole and its reader has the beginning early. None of them is empty; `length` is that of all.
    #[must_use]
    pub fn made<I>(pieces: I, length: u64) -> Self
    where
        I: Iterator<Item = Bytes> + Send + 'static,
    {
        Self(Inner::Made(Box::new(pieces), length))
    }

    /// A stream of pieces of unknown length.
    pub fn stream<S>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, StreamError>> + Send + 'static,
    {
        Self(Inner::Stream(stream.boxed()))
    }

    /// A stream that cannot fail.
    pub fn infallible<S>(stream: S) -> Self
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        Self::stream(stream.map(Ok))
    }

    /// Another body, passed on as it comes.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<StreamError>,
    {
        let stream = http_body_util::BodyDataStream::new(body);
        Self::stream(stream.map(|piece| piece.map_err(Into::into)))
    }

    /// The pieces of a body that is no stream.
    pub(crate) fn into_pieces(self) -> Result<VecDeque<Bytes>, Self> {
        match self.0 {
            Inner::Pieces(pieces, _) => Ok(pieces),
            Inner::Made(pieces, _) => Ok(pieces.collect()),
            stream @ Inner::Stream(_) => Err(Self(stream)),
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match &mut self.0 {
            Inner::Pieces(pieces, left) => Poll::Ready(pieces.pop_front().map(|piece| {
                *left -= piece.len() as u64;
                Ok(Frame::data(piece))
            })),
            Inner::Made(pieces, left) => Poll::Ready(pieces.next().map(|piece| {
                *left = left.saturating_sub(piece.len() as u64);
                Ok(Frame::data(piece))
            })),
            Inner::Stream(stream) => stream.poll_next_unpin(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Pieces(pieces, _) => pieces.is_empty(),
            Inner::Made(_, left) => *left == 0,
            Inner::Stream(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Pieces(_, left) | Inner::Made(_, left) => SizeHint::with_exact(*left),
            Inner::Stream(_) => SizeHint::default(),
        }
    }
}

impl From<Infallible> for Body {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
