//! A program that goes on: what it prints is read as it comes. It ends with the value.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::eventually;

/// A program that runs beside the test.
#[derive(Debug)]
pub struct Running {
    shown: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts it. Lines of its standard output and of its complaints are kept in the order they come.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command) -> Result<Self> {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| shown.clone())?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let readers = [
            child.stdout.take().map(|out| read(out, Arc::clone(&lines))),
            child.stderr.take().map(|out| read(out, Arc::clone(&lines))),
        ];
        Ok(Self { shown, child, lines, readers: readers.into_iter().flatten().collect() })
    }

    /// What it has printed so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a line that `is_it` accepts, and gives it.
    ///
    /// # Errors
    /// None came in time.
    pub fn line(&self, limit: Duration, is_it: impl Fn(&str) -> bool) -> Result<String> {
        eventually(limit, || {
            let lines = self.lines();
            let found = lines.iter().find(|line| is_it(line)).cloned();
            found.with_context(|| format!("{} has printed only:\n{}", self.shown, lines.join("\n")))
        })
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    /// The machine cannot say.
    pub fn is_alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end by itself, and gives all that it printed.
    ///
    /// # Errors
    /// It does not end in time, or not well.
    pub fn ended(mut self, limit: Duration) -> Result<Vec<String>> {
        let status = eventually(limit, || self.child.try_wait()?.context("it still runs"))
            .with_context(|| format!("{}\n{}", self.shown, self.lines().join("\n")))?;
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        let lines = self.lines();
        ensure!(status.success(), "{} ended with {status}:\n{}", self.shown, lines.join("\n"));
        Ok(lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(from: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
