//! A server of our own to measure: the program under test, with a data directory and free ports.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::{
    client::{Call, Endpoint},
    process::Process,
};

/// How long a start may take before it has failed.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long an orderly end may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How often something is looked at that is about to happen: the error of such a time.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// The node of a server that has one.
pub(crate) const NODE: &str = "bench-box";
/// The image of `examples/hello`, as its manifest names it.
pub(crate) const HELLO: &str = "hello:v1";

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) coracle: PathBuf,
    pub(crate) examples: PathBuf,
}

/// A data directory, and perhaps a server that uses it. Both are gone with the value.
#[derive(Debug)]
pub(crate) struct Server {
    program: Program,
    dir: TempDir,
    running: Option<(Child, Instant)>,
}

impl Server {
    /// An empty data directory.
    pub(crate) fn prepare(program: &Program) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("coracle-bench-").tempdir().context("no temporary directory")?;
        Ok(Self { program: program.clone(), dir, running: None })
    }

    /// Starts the program, which imports the image of `examples/hello`; `more` arguments may follow.
    pub(crate) fn launch(&mut self, more: &[&str]) -> Result<Process> {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let image = format!("{HELLO}={}", self.example("hello/hello.wasm").display());
        let begun = Instant::now();
        let child = Command::new(&self.program.coracle)
            .arg("--data-dir")
            .arg(self.data_dir())
            .args(["server", "--bind", "127.0.0.1", "--port", "0", "--node-name", NODE, "--import", &image])
            .args(more)
            // Backtraces of errors cost more than the requests they belong to.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.coracle.display()))?;
        let pid = child.id();
        self.running = Some((child, begun));
        Ok(Process { pid })
    }

    /// A file of the examples.
    pub(crate) fn example(&self, path: &str) -> PathBuf {
        self.program.examples.join(path)
    }

    fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// The time from the start of the program until something is so, looked at again and again. Errors mean not yet.
    pub(crate) async fn time_until(
        &mut self,
        what: &str,
        mut done: impl AsyncFnMut(&Path) -> Result<bool>,
    ) -> Result<Duration> {
        let kubeconfig = self.kubeconfig();
        loop {
            let outcome = done(&kubeconfig).await;
            let (child, begun) = self.running.as_mut().context("no server runs")?;
            let passed = begun.elapsed();
            if matches!(outcome, Ok(true)) {
                return Ok(passed);
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended before {what}: {status}\n{}", self.log());
            }
            if passed > START_LIMIT {
                let why = outcome.err().map(|error| format!(": {error:#}")).unwrap_or_default();
                bail!("not {what} after {} seconds{why}\n{}", START_LIMIT.as_secs(), self.log());
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// The time until the API says that it is ready.
    pub(crate) async fn ready(&mut self) -> Result<Duration> {
        let mut endpoint = None;
        self.time_until("ready", async |kubeconfig| {
            // A kubeconfig of an earlier life names a port that nobody listens on, so it is read again after a failure.
            let known = match &endpoint {
                Some(known) => known,
                None if kubeconfig.exists() => &*endpoint.insert(Endpoint::from_kubeconfig(Some(kubeconfig)).await?),
                None => return Ok(false),
            };
            let answered = async { known.connect().await?.attempt(Call::get("/readyz")).await }.await;
            if answered.is_err() {
                endpoint = None;
            }
            Ok(answered?.0 == 200)
        })
        .await
    }

    /// The time until the node says that it is ready. The API is to be ready already.
    pub(crate) async fn node_ready(&mut self) -> Result<Duration> {
        let mut connection = Endpoint::from_kubeconfig(Some(&self.kubeconfig())).await?.connect().await?;
        let path = format!("/api/v1/nodes/{NODE}");
        self.time_until("a ready node", async |_| {
            let (status, body) = connection.attempt(Call::get(path.as_str())).await?;
            let object: serde_json::Value = serde_json::from_slice(&body)?;
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let ready = conditions.filter(|c| c["type"] == "Ready").any(|c| c["status"] == "True");
            Ok(status == 200 && ready)
        })
        .await
    }

    /// The time until an address of this machine answers a request well.
    pub(crate) async fn answers(&mut self, port: u16) -> Result<Duration> {
        let endpoint = Endpoint::plain(&format!("http://{}:{port}", Ipv4Addr::LOCALHOST))?;
        self.time_until("an answer of the example", async |_| {
            Ok(endpoint.connect().await?.attempt(Call::get("/")).await?.0 == 200)
        })
        .await
    }

    /// Asks the server to end and waits for it.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some((mut child, _)) = self.running.take() else { return Ok(()) };
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("the server has no process id")?;
        kill_process(pid, Signal::TERM).context("cannot stop the server")?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            sleep(POLL_INTERVAL).await;
        }
        child.kill()?;
        child.wait()?;
        bail!("the server did not end in {} seconds and was killed\n{}", STOP_LIMIT.as_secs(), self.log())
    }

    /// The end of what the server printed.
    fn log(&self) -> String {
        const SHOWN_LINES: usize = 30;
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
