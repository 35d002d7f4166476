//! One entry of a log, and cutting bytes into entries. Pure.

use jiff::Timestamp;

/// A parsed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) timestamp: &'a str,
    pub(super) stream: &'a str,
    /// Tag `F`: the line ends here. `P` is a part of a line.
    pub(super) full: bool,
    pub(super) content: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Parses one entry without its newline; `None` for what is none, such as a write cut short by a crash.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let timestamp = std::str::from_utf8(parts.next()?).ok()?;
        let stream = std::str::from_utf8(parts.next()?).ok().filter(|stream| matches!(*stream, "stdout" | "stderr"))?;
        let tag = parts.next()?;
        let full = tag.split(|byte| *byte == b':').next() == Some(b"F");
        Some(Self { timestamp, stream, full, content: parts.next().unwrap_or_default() })
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        self.timestamp.parse().ok()
    }
}

/// Bytes that come in blocks and go out in lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    taken: usize,
}

impl Lines {
    pub(super) fn push(&mut self, block: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(block);
    }

    /// The next whole line, without its newline.
    pub(super) fn next_line(&mut self) -> Option<Vec<u8>> {
        let rest = &self.buffer[self.taken..];
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..end].to_vec();
        self.taken += end + 1;
        Some(line)
    }
}
