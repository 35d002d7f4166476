//! Programs that are run and read.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Output {
    /// What it printed, if it went well.
    ///
    /// # Errors
    /// It did not.
    pub fn ok(self) -> Result<String> {
        if self.code == Some(0) {
            return Ok(self.stdout);
        }
        bail!("exit {:?}: {}{}", self.code, self.stdout, self.stderr)
    }

    /// What it complained of, if it failed.
    ///
    /// # Errors
    /// It did not fail.
    pub fn fails(self) -> Result<String> {
        if self.code == Some(0) {
            bail!("it went well: {}", self.stdout);
        }
        Ok(format!("{}{}", self.stdout, self.stderr))
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started.
pub fn run(mut command: Command, input: Option<&str>) -> Result<Output> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{shown} (is it installed? scripts/test installs what the tests need)"))?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).context("standard input")?;
    }
    let output = child.wait_with_output().with_context(|| shown)?;
    Ok(Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
