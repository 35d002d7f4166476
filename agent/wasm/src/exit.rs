//! How a container's end is reported: exit codes as a shell has them for signals, the reason, and the termination message.

use std::{fs::File, io::Read, path::Path};

use coracle_agent_core::workload::{Exit, ExitReason, TERMINATION_MESSAGE_MAX_BYTES, TerminationMessage};
use coracle_host::Outcome;
use jiff::Timestamp;

use crate::log::CriLog;

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// What a signal adds to its number to be an exit code.
const SIGNAL_BASE: i32 = 128;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself.
    Outcome(Outcome),
    /// On request, in time.
    Terminated,
    /// By force.
    Killed,
}

impl End {
    /// The report of it.
    pub(crate) fn exit(&self, started_at: Timestamp, log: &CriLog, message: &TerminationMessage) -> Exit {
        let (code, signal, reason, words) = match self {
            Self::Outcome(Outcome::Exited { code: 0 }) => (0, None, ExitReason::Completed, ""),
            Self::Outcome(Outcome::Exited { code }) => (i32::from(*code), None, ExitReason::Error, ""),
            Self::Outcome(Outcome::OutOfMemory { .. }) => {
                (SIGNAL_BASE + SIGKILL, Some(SIGKILL), ExitReason::OomKilled, "")
            }
            // What a native program shows that the processor stopped.
            Self::Outcome(Outcome::Trapped { message }) => {
                (SIGNAL_BASE + SIGABRT, Some(SIGABRT), ExitReason::Error, message.as_str())
            }
            Self::Terminated => (SIGNAL_BASE + SIGTERM, Some(SIGTERM), ExitReason::Error, ""),
            Self::Killed => (SIGNAL_BASE + SIGKILL, Some(SIGKILL), ExitReason::Error, ""),
        };
        let mut text = message.host_path.as_deref().map(read_message).unwrap_or_default();
        if text.is_empty() && code != 0 && message.fallback_to_logs {
            text = log.last_words();
        }
        if text.is_empty() {
            text = words.to_owned();
        }
        Exit { code, signal, reason, message: text, started_at, finished_at: Timestamp::now() }
    }

    /// A line for the log, where the guest itself cannot have said why it ended.
    pub(crate) fn last_words(&self) -> Option<String> {
        match self {
            Self::Outcome(Outcome::Trapped { message } | Outcome::OutOfMemory { message }) => {
                Some(format!("{}\n", message.trim_end()))
            }
            _ => None,
        }
    }
}

fn read_message(path: &Path) -> String {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(TERMINATION_MESSAGE_MAX_BYTES as u64).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::debug!("the termination message {} cannot be read: {error}", path.display());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use coracle_host::{LogSink, StdStream};

    use super::*;
    use crate::LogLimits;

    #[test]
    fn ends_are_reported_as_kubernetes_shows_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = CriLog::create(&folder.path().join("0.log"), LogLimits::default()).unwrap();
        let none = TerminationMessage { path: String::new(), host_path: None, fallback_to_logs: false };
        let trapped = Outcome::Trapped { message: "unreachable".into() };
        let oom = Outcome::OutOfMemory { message: "too much".into() };
        for (end, code, signal, reason, message) in [
            (End::Outcome(Outcome::Exited { code: 0 }), 0, None, ExitReason::Completed, ""),
            (End::Outcome(Outcome::Exited { code: 3 }), 3, None, ExitReason::Error, ""),
            (End::Outcome(trapped), 134, Some(6), ExitReason::Error, "unreachable"),
            (End::Outcome(oom), 137, Some(9), ExitReason::OomKilled, ""),
            (End::Terminated, 143, Some(15), ExitReason::Error, ""),
            (End::Killed, 137, Some(9), ExitReason::Error, ""),
        ] {
            let exit = end.exit(Timestamp::now(), &log, &none);
            assert_eq!((exit.code, exit.signal, exit.reason, exit.message.as_str()), (code, signal, reason, message));
        }
    }

    #[test]
    fn the_message_is_the_file_s_else_the_log_s_end() {
        let folder = tempfile::tempdir().unwrap();
        let log = CriLog::create(&folder.path().join("0.log"), LogLimits::default()).unwrap();
        log.write(StdStream::Stderr, b"why it failed\n");
        let file = folder.path().join("message");
        let message = TerminationMessage { path: String::new(), host_path: Some(file.clone()), fallback_to_logs: true };
        let failed = End::Outcome(Outcome::Exited { code: 1 });
        assert_eq!(failed.exit(Timestamp::now(), &log, &message).message, "why it failed\n");
        let fine = End::Outcome(Outcome::Exited { code: 0 });
        assert_eq!(fine.exit(Timestamp::now(), &log, &message).message, "");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(failed.exit(Timestamp::now(), &log, &message).message.len(), 4096);
    }
}
