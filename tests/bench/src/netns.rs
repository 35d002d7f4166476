//! A network namespace around this program: what a server sets up in the kernel is then its own, and gone afterwards.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Tells this program that it runs in its namespace.
pub(crate) const INSIDE: &str = "CORACLE_BENCH_IN_NAMESPACE";

/// Whether this process should run itself in a namespace of its own first: only root can, and only once.
pub(crate) fn wanted() -> bool {
    rustix::process::geteuid().is_root() && env::var_os(INSIDE).is_none()
}

/// Runs this program with the same arguments in a new namespace that has a loopback device. Once `told` ends, the inner
/// program is asked to end too, and waited for: its servers are in the namespace.
pub(crate) async fn rerun(told: impl Future<Output = ()>) -> Result<ExitCode> {
    let namespace = Namespace::new()?;
    let program = env::current_exe().context("this program does not know where it is")?;
    let mut child = tokio::process::Command::new("ip")
        .args(["netns", "exec", &namespace.name])
        .arg(program)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .spawn()
        .context("cannot run ip (Debian has it in iproute2)")?;
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    tokio::select! {
        _ = child.wait() => {}
        () = told => if let Some(pid) = pid {
            // It may have ended in this moment.
            let _ = kill_process(pid, Signal::TERM);
        },
    }
    let status = child.wait().await.context("cannot wait for the program in the namespace")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Namespace {
    name: String,
}

impl Namespace {
    fn new() -> Result<Self> {
        let name = format!("coracle-bench-{}", std::process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        ip(&["-n", &namespace.name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("the network namespace {} stays: {error:#}", self.name);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("cannot run ip (Debian has it in iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
