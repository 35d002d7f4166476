//! CPU time of both sides while a load runs, and on request a profile of the server over the same time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::{Process, own_cpu};

/// What a load cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// CPU time of the server, where its process is known.
    pub(crate) server: Option<Duration>,
    /// CPU time of this program.
    pub(crate) client: Duration,
    pub(crate) elapsed: Duration,
}

/// A measurement under way.
#[derive(Debug)]
pub(crate) struct Probe {
    server: Option<(Process, Duration)>,
    client: Duration,
    begun: Instant,
    profile: Option<Profile>,
}

impl Probe {
    /// Begins; with `profiles`, `perf` writes `NAME.data` there.
    pub(crate) fn start(server: Option<Process>, profiles: Option<&Path>, name: &str) -> Result<Self> {
        let profile = match (server, profiles) {
            (Some(server), Some(folder)) => Some(Profile::start(server, folder, name)?),
            _ => None,
        };
        let server = server.map(|process| anyhow::Ok((process, process.cpu()?))).transpose()?;
        Ok(Self { server, client: own_cpu(), begun: Instant::now(), profile })
    }

    pub(crate) fn stop(self) -> Result<Usage> {
        let elapsed = self.begun.elapsed();
        let client = own_cpu() - self.client;
        let server = self.server.map(|(process, before)| anyhow::Ok(process.cpu()?.saturating_sub(before)));
        let usage = Usage { server: server.transpose()?, client, elapsed };
        if let Some(profile) = self.profile {
            profile.stop()?;
        }
        Ok(usage)
    }
}

/// A running `perf record`. It samples by the CPU clock, which works in virtual machines too, and copies enough of each stack
/// for the deep ones of asynchronous code.
#[derive(Debug)]
struct Profile {
    perf: Child,
    file: PathBuf,
}

impl Profile {
    fn start(server: Process, folder: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let file = folder.join(format!("{name}.data"));
        let perf = Command::new("perf")
            .args(["record", "-q", "-F", "499", "-e", "cpu-clock", "--call-graph", "dwarf,32768", "-o"])
            .arg(&file)
            .args(["-p", &server.pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run perf (Debian has it in linux-perf); leave --profile out to go without")?;
        Ok(Self { perf, file })
    }

    fn stop(mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.perf.id())?).context("perf has no process id")?;
        // perf writes the end of its file when it is interrupted; it may have ended already with the server.
        let _ = kill_process(pid, Signal::INT);
        self.perf.wait().context("perf")?;
        eprintln!("profile: perf report -i {}", self.file.display());
        Ok(())
    }
}
