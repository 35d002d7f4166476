//! What stands on the error stream when a command has ended: a `Status`, from version 4 of the protocol on (`remotecommand`'s
//! `v4WriteStatusFunc`). Older clients get its message alone.

use serde_json::{Value, json};

/// All went well.
#[must_use]
pub fn success() -> String {
    json!({"metadata": {}, "status": "Success"}).to_string()
}

/// The command ended with another code than 0; 0 is a success.
#[must_use]
pub fn exit_code(code: i32) -> String {
    if code == 0 {
        return success();
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
    })
    .to_string()
}

/// It could not be run, or not to its end.
#[must_use]
pub fn failure(message: &str) -> String {
    json!({
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": format!("Internal error occurred: {message}"),
        "details": {"causes": [{"message": message}]},
        "code": 500,
    })
    .to_string()
}

/// What an older client is told in place of a `Status`: nothing of a success, else its words.
#[must_use]
pub fn plain(status: &[u8]) -> String {
    let Ok(status) = serde_json::from_slice::<Value>(status) else {
        return String::from_utf8_lossy(status).into_owned();
    };
    if status["status"] == "Success" {
        return String::new();
    }
    status["message"].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_as_clients_read_them() {
        let status: Value = serde_json::from_str(&exit_code(7)).unwrap();
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "7"}));
        assert_eq!(exit_code(0), success());
        assert_eq!(plain(exit_code(7).as_bytes()), "command terminated with non-zero exit code: exit status 7");
        assert_eq!(plain(success().as_bytes()), "");
        assert_eq!(plain(b"words"), "words");
    }
}
