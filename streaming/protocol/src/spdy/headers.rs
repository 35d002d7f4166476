//! Header blocks: names and values, compressed by one zlib stream for each direction of a connection. What a block may come to
//! is bounded while it is decompressed, not after.

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateError, InflateFlush, Status};

use super::{SpdyError, dictionary::dictionary};

/// The most a header block may decompress to; Kubernetes' streams have four short headers.
const MAX_BLOCK_BYTES: usize = 16 * 1024;
/// The most headers of a block.
const MAX_HEADERS: u32 = 64;
/// The window that every decompressor has.
const WINDOW_BITS: u8 = 15;
/// Kubernetes' own.
const LEVEL: i32 = 9;

/// The headers of a stream. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of a header; the first, if there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        value.split('\0').next()
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.extend(length(self.0.len()));
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(length(text.len()));
            block.extend_from_slice(text.as_bytes());
        }
        block
    }

    fn from_block(block: &[u8]) -> Result<Self, SpdyError> {
        let mut rest = block;
        let count = take_number(&mut rest)?;
        if count > MAX_HEADERS {
            return Err(SpdyError::Headers("too many headers"));
        }
        let mut headers: Vec<(String, String)> = Vec::new();
        for _ in 0..count {
            let (name, value) = (take_text(&mut rest)?, take_text(&mut rest)?);
            if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(SpdyError::Headers("a name that is empty or not in lower case"));
            }
            if headers.iter().any(|(known, _)| *known == name) {
                return Err(SpdyError::Headers("a name twice"));
            }
            headers.push((name, value));
        }
        if rest.is_empty() { Ok(Self(headers)) } else { Err(SpdyError::Headers("bytes behind the last header")) }
    }
}

fn length(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes()
}

fn take_number(rest: &mut &[u8]) -> Result<u32, SpdyError> {
    let (number, more) = rest.split_first_chunk::<4>().ok_or(SpdyError::Headers("it ends early"))?;
    *rest = more;
    Ok(u32::from_be_bytes(*number))
}

fn take_text(rest: &mut &[u8]) -> Result<String, SpdyError> {
    let length = take_number(rest)? as usize;
    let (text, more) = rest.split_at_checked(length).ok_or(SpdyError::Headers("it ends early"))?;
    *rest = more;
    String::from_utf8(text.to_vec()).map_err(|_| SpdyError::Headers("text that is not UTF-8"))
}

/// Compresses the blocks of one direction.
pub(super) struct Compressor(Deflate);

impl Compressor {
    pub(super) fn new() -> Self {
        let mut deflate = Deflate::new(LEVEL, true, WINDOW_BITS);
        deflate.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
        Self(deflate)
    }

    pub(super) fn compress(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.to_block();
        let mut out = Vec::new();
        let mut done = 0;
        loop {
            let mut piece = [0; 1024];
            let (before_in, before_out) = (self.0.total_in(), self.0.total_out());
            let status = self.0.compress(&block[done..], &mut piece, DeflateFlush::SyncFlush);
            status.expect("compressing into memory does not fail");
            done += usize::try_from(self.0.total_in() - before_in).unwrap_or(0);
            let made = usize::try_from(self.0.total_out() - before_out).unwrap_or(0);
            out.extend_from_slice(&piece[..made]);
            // Room that was left means that all is flushed.
            if made < piece.len() {
                return out;
            }
        }
    }
}

/// Decompresses the blocks of one direction.
pub(super) struct Decompressor {
    inflate: Inflate,
    dictionary: Vec<u8>,
}

impl Decompressor {
    pub(super) fn new() -> Self {
        Self { inflate: Inflate::new(true, WINDOW_BITS), dictionary: dictionary() }
    }

    pub(super) fn decompress(&mut self, compressed: &[u8]) -> Result<Headers, SpdyError> {
        let mut out = Vec::new();
        let mut done = 0;
        loop {
            let mut piece = [0; 1024];
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(&compressed[done..], &mut piece, InflateFlush::SyncFlush);
            done += usize::try_from(self.inflate.total_in() - before_in).unwrap_or(0);
            let made = usize::try_from(self.inflate.total_out() - before_out).unwrap_or(0);
            out.extend_from_slice(&piece[..made]);
            if out.len() > MAX_BLOCK_BYTES {
                return Err(SpdyError::Headers("it is too long"));
            }
            match result {
                Err(InflateError::NeedDict { .. }) => {
                    let known = self.inflate.set_dictionary(&self.dictionary);
                    known.map_err(|_| SpdyError::Headers("it wants another dictionary"))?;
                }
                Err(_) => return Err(SpdyError::Headers("it is not compressed as it should be")),
                Ok(Status::StreamEnd) => return Err(SpdyError::Headers("the compressed stream ends")),
                Ok(_) if made < piece.len() => {
                    let whole = done == compressed.len();
                    return if whole { Headers::from_block(&out) } else { Err(SpdyError::Headers("it stops midway")) };
                }
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Headers {
        Headers::default().with("streamType", "data").with("port", "8080").with("requestID", "7")
    }

    #[test]
    fn blocks_of_one_connection_share_a_compressor() {
        let (mut there, mut here) = (Compressor::new(), Decompressor::new());
        let first = there.compress(&sample());
        let second = there.compress(&sample());
        assert!(second.len() < first.len(), "{} {}", first.len(), second.len());
        assert_eq!(here.decompress(&first), Ok(sample()));
        assert_eq!(here.decompress(&second), Ok(sample()));
        assert_eq!(sample().get("STREAMTYPE"), Some("data"));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large() {
        let bomb = Headers::default().with("a", &"x".repeat(50 * 1024 * 1024));
        let compressed = Compressor::new().compress(&bomb);
        assert!(compressed.len() < 100 * 1024);
        assert_eq!(Decompressor::new().decompress(&compressed), Err(SpdyError::Headers("it is too long")));
    }

    #[test]
    fn blocks_that_lie_are_refused() {
        let check = |block: &[u8], why| assert_eq!(Headers::from_block(block), Err(SpdyError::Headers(why)));
        check(&[0, 0, 0], "it ends early");
        check(&[0, 0, 0, 65], "too many headers");
        check(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff], "it ends early");
        check(&[0, 0, 0, 0, 1], "bytes behind the last header");
        check(&[0, 0, 0, 1, 0, 0, 0, 1, b'A', 0, 0, 0, 0], "a name that is empty or not in lower case");
        check(&[0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0, 0, 0, 0], "text that is not UTF-8");
        let twice = [0, 0, 0, 2, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 0, 0];
        check(&twice, "a name twice");
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(all in prop::collection::vec(prop::collection::btree_map("[a-z]{1,9}", ".{0,300}", 0..9), 1..6)) {
            let (mut there, mut here) = (Compressor::new(), Decompressor::new());
            for headers in all {
                let headers = Headers(headers.into_iter().collect());
                prop_assert_eq!(here.decompress(&there.compress(&headers)), Ok(headers));
            }
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Decompressor::new().decompress(&bytes);
            let _ = Headers::from_block(&bytes);
        }
    }
}
