//! Frames as they are on the wire (draft-mbelshe-httpbis-spdy-00, section 2.2). Control frames are read whole and are short; of a
//! data frame only the head is read here.

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::{SpdyError, StreamId};

/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 8;
/// The longest control frame. Those of Kubernetes' clients have some hundred bytes.
const MAX_CONTROL_BYTES: usize = 16 * 1024;

const VERSION: u16 = 3;
const CONTROL: u32 = 0x8000_0000;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;

/// Whether the sender of a frame sends more on its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum More {
    Follows,
    Ends,
}

/// A frame, as far as this side looks at it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The head of a data frame; its bytes follow.
    Data {
        id: StreamId,
        length: usize,
        more: More,
    },
    SynStream {
        id: StreamId,
        block: BytesMut,
        more: More,
        unidirectional: bool,
    },
    SynReply {
        id: StreamId,
        block: BytesMut,
        more: More,
    },
    Headers {
        id: StreamId,
        block: BytesMut,
        more: More,
    },
    Reset {
        id: StreamId,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// A control frame that nothing here depends on: settings, windows, and types that are not known.
    Ignored,
}

impl Frame {
    /// Takes the next frame from `input`; `None` when it is not whole yet.
    pub(super) fn take(input: &mut BytesMut) -> Result<Option<Self>, SpdyError> {
        let Some(head) = input.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let (flags, length) = (head[4], u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize);
        let more = if flags & FIN != 0 { More::Ends } else { More::Follows };
        if word & CONTROL == 0 {
            if word == 0 {
                return Err(SpdyError::Malformed("DATA"));
            }
            input.advance(HEAD_BYTES);
            return Ok(Some(Self::Data { id: word, length, more }));
        }
        let version = u16::from_be_bytes([head[0] & 0x7f, head[1]]);
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        if length > MAX_CONTROL_BYTES {
            return Err(SpdyError::FrameTooLong(length));
        }
        if input.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let kind = u16::from_be_bytes([head[2], head[3]]);
        input.advance(HEAD_BYTES);
        Self::control(kind, flags, input.split_to(length)).map(Some)
    }

    fn control(kind: u16, flags: u8, mut body: BytesMut) -> Result<Self, SpdyError> {
        let more = if flags & FIN != 0 { More::Ends } else { More::Follows };
        let stream = |number: u32, name| match number & !CONTROL {
            0 => Err(SpdyError::Malformed(name)),
            id => Ok(id),
        };
        let mut number = |name| if body.len() < 4 { Err(SpdyError::Malformed(name)) } else { Ok(body.get_u32()) };
        Ok(match kind {
            1 => {
                let id = stream(number("SYN_STREAM")?, "SYN_STREAM")?;
                number("SYN_STREAM")?;
                if body.len() < 2 {
                    return Err(SpdyError::Malformed("SYN_STREAM"));
                }
                body.advance(2);
                Self::SynStream { id, block: body, more, unidirectional: flags & UNIDIRECTIONAL != 0 }
            }
            2 => Self::SynReply { id: stream(number("SYN_REPLY")?, "SYN_REPLY")?, block: body, more },
            3 => {
                let id = stream(number("RST_STREAM")?, "RST_STREAM")?;
                Self::Reset { id, status: number("RST_STREAM")? }
            }
            6 => Self::Ping { id: number("PING")? },
            7 => {
                number("GOAWAY")?;
                Self::GoAway
            }
            8 => Self::Headers { id: stream(number("HEADERS")?, "HEADERS")?, block: body, more },
            _ => Self::Ignored,
        })
    }
}

fn head(output: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    output.put_u32(CONTROL | u32::from(VERSION) << 16 | u32::from(kind));
    output.put_u32(u32::from(flags) << 24 | u32::try_from(length).unwrap_or(0) & 0x00ff_ffff);
}

fn fin(more: More) -> u8 {
    if more == More::Ends { FIN } else { 0 }
}

pub(super) fn put_data(output: &mut BytesMut, id: StreamId, bytes: &[u8], more: More) {
    output.put_u32(id);
    output.put_u32(u32::from(fin(more)) << 24 | u32::try_from(bytes.len()).unwrap_or(0) & 0x00ff_ffff);
    output.put_slice(bytes);
}

pub(super) fn put_syn_stream(output: &mut BytesMut, id: StreamId, block: &[u8]) {
    head(output, 1, 0, 10 + block.len());
    output.put_u32(id);
    // No stream it belongs to, the highest priority, no certificate.
    output.put_u32(0);
    output.put_u16(0);
    output.put_slice(block);
}

pub(super) fn put_syn_reply(output: &mut BytesMut, id: StreamId, block: &[u8]) {
    head(output, 2, 0, 4 + block.len());
    output.put_u32(id);
    output.put_slice(block);
}

pub(super) fn put_reset(output: &mut BytesMut, id: StreamId, status: u32) {
    head(output, 3, 0, 8);
    output.put_u32(id);
    output.put_u32(status);
}

pub(super) fn put_ping(output: &mut BytesMut, id: u32) {
    head(output, 6, 0, 4);
    output.put_u32(id);
}

pub(super) fn put_go_away(output: &mut BytesMut, last: StreamId) {
    head(output, 7, 0, 8);
    output.put_u32(last);
    output.put_u32(0);
}

pub(super) fn put_window_update(output: &mut BytesMut, id: StreamId, delta: u32) {
    head(output, 9, 0, 8);
    output.put_u32(id);
    output.put_u32(delta);
}
