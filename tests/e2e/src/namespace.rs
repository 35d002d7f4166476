//! A network namespace with a loopback device, gone when it is dropped.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::run;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new one.
    ///
    /// # Errors
    /// Not root, or no `ip` on the machine.
    pub fn new() -> Result<Self> {
        let name = format!("coracle-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]).context("the end-to-end tests need root and iproute2")?;
        let namespace = Self { name };
        namespace.exec("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, as `ip netns` has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A program inside it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Does some work of this process inside it: sockets made there, also by threads that the work starts, are the namespace's.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the work fails.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file = std::fs::File::open(Path::new("/run/netns").join(&self.name)).context("the namespace")?;
        // A thread of its own: one that has moved is of no use for anything else.
        std::thread::scope(|scope| {
            let moved = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).context("setns")?;
                work()
            });
            moved.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside it.
    ///
    /// # Errors
    /// It failed.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        run(command, None)?.ok()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("the namespace {} stays: {error:#}", self.name);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run(command, None)?.ok()
}
