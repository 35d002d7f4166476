//! How a guest ended, read from what wasmtime says. It never decides what happens next.

use coracle_engine::MemoryLimitExceeded;
use wasmtime::Trap;
use wasmtime_wasi::I32Exit;

/// Most bytes of a message about a trap.
const MAX_MESSAGE_BYTES: usize = 4096;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ended by itself.
    Exited {
        /// Its exit code, 0 to 255.
        code: u8,
    },
    /// It went over its memory limit.
    OutOfMemory {
        /// Says by how much.
        message: String,
    },
    /// It trapped, or the host failed it.
    Trapped {
        /// The trap and where it was.
        message: String,
    },
}

impl Outcome {
    /// From the error that a call into the guest ended with.
    pub(crate) fn from_error(error: &wasmtime::Error) -> Self {
        if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
            // The low eight bits, as wait(2) has it.
            return Self::Exited { code: (code & 0xff) as u8 };
        }
        if let Some(exceeded) = error.downcast_ref::<MemoryLimitExceeded>() {
            return Self::OutOfMemory { message: exceeded.to_string() };
        }
        let mut message = match error.downcast_ref::<Trap>() {
            Some(trap) => format!("{trap}\n{error:#}"),
            None => format!("{error:#}"),
        };
        let end = (0..=MAX_MESSAGE_BYTES.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        Self::Trapped { message }
    }
}
