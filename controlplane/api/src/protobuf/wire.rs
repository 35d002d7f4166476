//! Protobuf's wire format: varints, tags, lengths. It knows no message.

use super::DecodeError;

/// The content of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Piece<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other, by tag. Ends after the first error.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn read(&mut self) -> Result<(u32, Piece<'a>), DecodeError> {
        let key = varint(&mut self.rest)?;
        let tag = u32::try_from(key >> 3).ok().filter(|t| *t > 0).ok_or(DecodeError::Malformed("illegal tag 0"))?;
        let piece = match key & 7 {
            0 => Piece::Varint(varint(&mut self.rest)?),
            1 => Piece::Fixed64(u64::from_le_bytes(self.take_array()?)),
            2 => {
                let length = usize::try_from(varint(&mut self.rest)?).map_err(|_| UNEXPECTED_END)?;
                Piece::Bytes(self.take(length)?)
            }
            5 => Piece::Fixed32(u32::from_le_bytes(self.take_array()?)),
            // Groups (3 and 4) are in none of Kubernetes' messages.
            _ => return Err(DecodeError::Malformed("illegal wireType")),
        };
        Ok((tag, piece))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(UNEXPECTED_END)?;
        self.rest = rest;
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(UNEXPECTED_END)?;
        self.rest = rest;
        Ok(*taken)
    }
}

const UNEXPECTED_END: DecodeError = DecodeError::Malformed("unexpected EOF");

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Piece<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes a varint off the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(UNEXPECTED_END)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Malformed("integer overflow"))
}

/// A field's text.
pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("invalid UTF-8"))
}

/// Writes fields.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn starting_with(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn varint(&mut self, tag: u32, value: u64) {
        self.key(tag, 0);
        self.put(value);
    }

    pub(super) fn fixed64(&mut self, tag: u32, value: u64) {
        self.key(tag, 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        self.key(tag, 2);
        self.put(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A message inside; its length goes before it, so it is written and then moved by the length's own bytes.
    pub(super) fn message<E>(&mut self, tag: u32, fill: impl FnOnce(&mut Self) -> Result<(), E>) -> Result<(), E> {
        self.key(tag, 2);
        let start = self.0.len();
        fill(self)?;
        let mut length = self.0.len() - start;
        let mut prefix = smallvec::SmallVec::<[u8; 10]>::new();
        while length >= 0x80 {
            prefix.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        prefix.push(length as u8);
        self.0.splice(start..start, prefix);
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, tag: u32, wire_type: u64) {
        self.put(u64::from(tag) << 3 | wire_type);
    }

    fn put(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
