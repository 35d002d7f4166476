//! A watch as lines: each event of Kubernetes' watches is one line of JSON.

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};

use crate::{
    bench::Bench,
    client::{Call, Connection},
    scratch::field,
};

/// An open watch on a connection of its own.
pub(crate) struct Watch {
    body: Incoming,
    _connection: Connection,
    buffered: Lines,
}

/// Bytes cut into lines.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Watch {
    /// The revision of a collection as it is now.
    pub(crate) async fn revision(bench: &Bench, collection: &str) -> Result<String> {
        let mut connection = bench.connect().await?;
        let body = connection.fetch(Call::get(format!("{collection}?limit=1"))).await?;
        Ok(field(&body, "resourceVersion").context("the list has no resourceVersion")?.to_owned())
    }

    /// Watches a collection from a revision on. `query` is empty or more parameters, each behind a `&`.
    pub(crate) async fn open(bench: &Bench, collection: &str, revision: &str, query: &str) -> Result<Self> {
        let mut connection = bench.connect().await?;
        let path = format!("{collection}?watch=true&resourceVersion={revision}&timeoutSeconds=3600{query}");
        let body = connection.open(Call::get(path)).await?;
        Ok(Self { body, _connection: connection, buffered: Lines::default() })
    }

    /// Waits for more and hands on each whole line; `None` when the server ended the watch.
    pub(crate) async fn next(&mut self, each: impl FnMut(&[u8])) -> Result<Option<()>> {
        let Some(frame) = self.body.frame().await else { return Ok(None) };
        if let Ok(data) = frame.context("the watch broke")?.into_data() {
            self.buffered.push(&data, each);
        }
        Ok(Some(()))
    }

    /// Waits until an event says so.
    pub(crate) async fn until(&mut self, mut found: impl FnMut(&[u8]) -> bool) -> Result<()> {
        let mut done = false;
        while !done {
            self.next(|line| done |= found(line)).await?.context("the server ended the watch")?;
        }
        Ok(())
    }
}

impl Lines {
    fn push(&mut self, data: &Bytes, mut each: impl FnMut(&[u8])) {
        let mut data = data.as_ref();
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = data.split_at(end);
            match self.rest.is_empty() {
                true => each(line),
                false => {
                    self.rest.extend_from_slice(line);
                    each(&self.rest);
                    self.rest.clear();
                }
            }
            data = &rest[1..];
        }
        self.rest.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_whatever_the_frames() {
        let check = |frames: &[&'static str], expect: &[&str]| {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for frame in frames {
                let data = Bytes::from_static(frame.as_bytes());
                lines.push(&data, |line| seen.push(String::from_utf8_lossy(line).into_owned()));
            }
            assert_eq!(seen, expect);
        };
        check(&["a\nb\n"], &["a", "b"]);
        check(&["a", "b\nc", "\n"], &["ab", "c"]);
        check(&["a\nb"], &["a"]);
        check(&["a", "", "\n\n"], &["a", ""]);
    }
}
