//! SPDY/3.1 as Kubernetes' streaming uses it (draft-mbelshe-httpbis-spdy-00 and the additions of 3.1). Frames, header blocks, and
//! a session that keeps the state of all streams.

mod dictionary;
mod frame;
mod headers;
mod session;

pub use headers::Headers;
pub use session::{Event, Role, Session};

/// The number of a stream: odd for those the client opened, even for the server's, never 0.
pub type StreamId = u32;

/// Why a stream ended before its time: the status of `RST_STREAM`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetStatus {
    /// It breaks the protocol.
    ProtocolError,
    /// There is no such stream.
    InvalidStream,
    /// It is not wanted, and nothing of it was looked at.
    RefusedStream,
    /// Its opener no longer wants it.
    Cancel,
    /// It failed.
    InternalError,
    /// Any other number.
    Other(u32),
}

impl ResetStatus {
    /// From the wire.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            1 => Self::ProtocolError,
            2 => Self::InvalidStream,
            3 => Self::RefusedStream,
            5 => Self::Cancel,
            6 => Self::InternalError,
            other => Self::Other(other),
        }
    }

    /// For the wire.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::ProtocolError => 1,
            Self::InvalidStream => 2,
            Self::RefusedStream => 3,
            Self::Cancel => 5,
            Self::InternalError => 6,
            Self::Other(other) => other,
        }
    }
}

/// What ends the whole connection: the peer does not speak the protocol, or means harm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpdyError {
    /// A control frame of another version.
    #[error("the peer speaks SPDY/{0}, not SPDY/3")]
    Version(u16),
    /// A control frame that is longer than any that is needed.
    #[error("a control frame of {0} bytes is too long")]
    FrameTooLong(usize),
    /// A frame that is not as its type demands.
    #[error("a malformed {0} frame")]
    Malformed(&'static str),
    /// A header block that does not decompress, or not to headers.
    #[error("a broken header block: {0}")]
    Headers(&'static str),
    /// A stream number that the peer may not use.
    #[error("stream {0} may not be opened by the peer")]
    StreamNumber(StreamId),
}
