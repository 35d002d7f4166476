//! The body of a guest that has ended: what it wrote is in the host's buffers already, so its length is known, which spares
//! the client the chunks and the connection their writing.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use wasmtime_wasi_http::{Error, WasiBody};

/// A body's pieces that were there at once, and what may follow them.
struct Gathered {
    pieces: VecDeque<Bytes>,
    /// An end that is no plain one: trailers, an error, or pieces that are yet to come.
    last: Option<Result<Frame<Bytes>, Error>>,
    rest: Option<WasiBody>,
}

/// Takes the pieces that are there.
pub(super) fn gather(mut body: WasiBody) -> WasiBody {
    let mut cx = Context::from_waker(Waker::noop());
    let mut gathered = Gathered { pieces: VecDeque::new(), last: None, rest: None };
    loop {
        match Pin::new(&mut body).poll_frame(&mut cx) {
            Poll::Ready(None) => break,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => gathered.pieces.push_back(data),
                Err(trailers) => {
                    (gathered.last, gathered.rest) = (Some(Ok(trailers)), Some(body));
                    break;
                }
            },
            Poll::Ready(Some(Err(error))) => {
                gathered.last = Some(Err(error));
                break;
            }
            // It is polled again by the connection, with a waker that counts.
            Poll::Pending => {
                gathered.rest = Some(body);
                break;
            }
        }
    }
    gathered.boxed_unsync()
}

impl Body for Gathered {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if let Some(last) = self.last.take() {
            return Poll::Ready(Some(last));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.last.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let here: u64 = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.last.is_none() && self.rest.is_none() {
            return SizeHint::with_exact(here);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(here);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http::HeaderMap;
    use http_body_util::StreamBody;

    use super::*;

    fn data(text: &'static str) -> Result<Frame<Bytes>, Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn body(frames: Vec<Result<Frame<Bytes>, Error>>) -> WasiBody {
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    #[tokio::test]
    async fn a_finished_body_has_a_length_and_others_end_as_they_would_have() {
        let whole = gather(body(vec![data("one"), data("two")]));
        assert_eq!(whole.size_hint().exact(), Some(6));
        assert_eq!(whole.collect().await.unwrap().to_bytes(), "onetwo");
        assert!(gather(body(vec![])).is_end_stream());

        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let trailed = gather(body(vec![data("one"), Ok(Frame::trailers(trailers.clone()))]));
        assert_eq!(trailed.size_hint().exact(), None);
        let collected = trailed.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), "one");

        let failed = gather(body(vec![data("one"), Err(Error::HttpProtocolError)]));
        assert_eq!(failed.size_hint().exact(), None);
        failed.collect().await.unwrap_err();
    }

    #[tokio::test]
    async fn what_is_not_there_yet_is_waited_for() {
        let (sender, later) = futures::channel::mpsc::unbounded();
        let frames = stream::iter([data("one")]).chain(later);
        let gathered = gather(StreamBody::new(frames).boxed_unsync());
        assert_eq!(gathered.size_hint().exact(), None);
        sender.unbounded_send(data("two")).unwrap();
        drop(sender);
        assert_eq!(gathered.collect().await.unwrap().to_bytes(), "onetwo");
    }
}
