//! How a container's end is reported: what the runtime says of it, and the termination message, which the runtime does not know.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use coracle_agent_core::workload::{
    Exit, ExitReason, TERMINATION_MESSAGE_LOG_WINDOW, TERMINATION_MESSAGE_MAX_BYTES, message_of_log,
};
use jiff::Timestamp;

use crate::{cri::v1::ContainerStatus, labels};

/// The report of a container that has ended.
pub(crate) fn exit(status: &ContainerStatus) -> Exit {
    let reason = match (status.reason.as_str(), status.exit_code) {
        ("OOMKilled", _) => ExitReason::OomKilled,
        (_, 0) => ExitReason::Completed,
        _ => ExitReason::Error,
    };
    Exit {
        code: status.exit_code,
        // CRI tells no signal apart from its exit code, and Kubernetes shows none.
        signal: None,
        reason,
        message: message(status),
        started_at: time(status.started_at),
        finished_at: time(status.finished_at),
    }
}

/// A time of CRI: nanoseconds since 1970.
pub(crate) fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn message(status: &ContainerStatus) -> String {
    let written = status.annotations.get(labels::MESSAGE_PATH).map(|path| read_message(Path::new(path)));
    let mut text = written.unwrap_or_default();
    if text.is_empty() && status.exit_code != 0 && falls_back_to_logs(&status.annotations) {
        text = log_tail(Path::new(&status.log_path)).unwrap_or_default();
    }
    if text.is_empty() {
        text.clone_from(&status.message);
    }
    text
}

fn falls_back_to_logs(annotations: &HashMap<String, String>) -> bool {
    annotations.get(labels::MESSAGE_POLICY).is_some_and(|policy| policy == labels::FALLBACK_TO_LOGS)
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

/// The last lines of a log in the CRI format, without their heads.
fn log_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(TERMINATION_MESSAGE_LOG_WINDOW)))?;
    let mut bytes = Vec::new();
    file.take(TERMINATION_MESSAGE_LOG_WINDOW).read_to_end(&mut bytes)?;
    Ok(message_of_log(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, reason: &str) -> ContainerStatus {
        ContainerStatus { exit_code: code, reason: reason.to_owned(), finished_at: 5, ..ContainerStatus::default() }
    }

    #[test]
    fn ends_are_reported_as_kubernetes_shows_them() {
        let check = |code, words, reason| assert_eq!(exit(&ended(code, words)).reason, reason, "{code} {words}");
        check(0, "Completed", ExitReason::Completed);
        check(3, "Error", ExitReason::Error);
        check(143, "Error", ExitReason::Error);
        check(137, "OOMKilled", ExitReason::OomKilled);
    }

    #[test]
    fn the_message_is_the_file_s_else_the_log_s_end_else_the_runtime_s() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("message"), folder.path().join("0.log"));
        std::fs::write(&log, "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr F two\n").unwrap();
        let mut status = ended(1, "Error");
        status.message = "runtime's words".to_owned();
        status.log_path = log.display().to_string();
        assert_eq!(exit(&status).message, "runtime's words");
        let policy = labels::FALLBACK_TO_LOGS.to_owned();
        status.annotations = HashMap::from([
            (labels::MESSAGE_PATH.to_owned(), file.display().to_string()),
            (labels::MESSAGE_POLICY.to_owned(), policy),
        ]);
        assert_eq!(exit(&status).message, "one\ntwo\n");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(exit(&status).message.len(), TERMINATION_MESSAGE_MAX_BYTES);
    }
}
