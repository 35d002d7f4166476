//! One server in its namespace and data directory.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Machine, Namespace, Output, PATIENCE, Running, eventually, machine::child_of, run};

/// The checkout.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// The whole of a start, on a busy machine and with a program built for debugging.
const START_LIMIT: Duration = Duration::from_secs(60);

/// What a cluster's directory may come to.
const ROOM_BYTES: u64 = 2 << 30;

/// From how full a disk on images are collected: a test that has its own number says so.
const IMAGE_GC: &str = "--image-gc-high-threshold";

/// The user and group without privileges.
const NOBODY: u32 = 65534;

/// A running cluster. It ends with the value.
#[derive(Debug)]
pub struct Cluster {
    namespace: Arc<Namespace>,
    dir: TempDir,
    server: Option<Child>,
    /// The machine it runs on, where that has a container runtime.
    machine: Option<Arc<Machine>>,
    /// The program to run instead of the one under test: a copy that a user without privileges can reach.
    copy: Option<PathBuf>,
}

impl Cluster {
    /// Starts a cluster with the images of the examples and the tests imported, and waits for its node.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self> {
        let mut cluster = Self::prepare()?;
        cluster.launch(&[])?;
        Ok(cluster)
    }

    /// A namespace and a data directory, with no server yet.
    ///
    /// # Errors
    /// The machine does not allow it.
    pub fn prepare() -> Result<Self> {
        let namespace = Arc::new(Namespace::new()?);
        Ok(Self { namespace, dir: roomy_dir()?, server: None, machine: None, copy: None })
    }

    /// A cluster on a machine with a container runtime, and its node.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_on(machine: &Arc<Machine>) -> Result<Self> {
        Self::start_on_with(machine, &[])
    }

    /// The same, of a server with more arguments.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_on_with(machine: &Arc<Machine>, more: &[&str]) -> Result<Self> {
        let (namespace, machine) = (Arc::clone(machine.namespace()), Some(Arc::clone(machine)));
        let mut cluster = Self { namespace, dir: roomy_dir()?, server: None, machine, copy: None };
        cluster.launch(more)?;
        Ok(cluster)
    }

    /// A machine with a container runtime, and a cluster on it. The cluster is to be dropped first.
    ///
    /// # Errors
    /// One of them does not start.
    pub fn with_runtime() -> Result<(Arc<Machine>, Self)> {
        let machine = Arc::new(Machine::start()?);
        let cluster = Self::start_on(&machine)?;
        Ok((machine, cluster))
    }

    /// The program under test.
    ///
    /// # Errors
    /// `CORACLE_BIN` is not set.
    pub fn program() -> Result<PathBuf> {
        let path =
            std::env::var("CORACLE_BIN").context("CORACLE_BIN names the program; run scripts/test end-to-end")?;
        Ok(PathBuf::from(path))
    }

    /// From now on the program runs without privileges.
    ///
    /// # Errors
    /// The program cannot be copied to where its new user finds it.
    pub fn become_nobody(&mut self) -> Result<()> {
        let copy = self.dir.path().join("coracle");
        std::fs::copy(Self::program()?, &copy).context("the program")?;
        // The folder is open, and what the program makes in it is its own.
        std::fs::set_permissions(self.dir.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir_all(self.data_dir())?;
        chown(self.data_dir(), Some(NOBODY), Some(NOBODY))?;
        self.copy = Some(copy);
        Ok(())
    }

    /// Where the cluster keeps its state.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Its administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// The namespace of the cluster.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace of the cluster, for work that goes on while the cluster changes.
    #[must_use]
    pub fn shared_namespace(&self) -> Arc<Namespace> {
        Arc::clone(&self.namespace)
    }

    /// Starts the server and waits until its node is ready.
    ///
    /// # Errors
    /// It does not start.
    pub fn launch(&mut self, more: &[&str]) -> Result<()> {
        let images = [
            ("hello:v1", "examples/hello/hello.wasm"),
            ("hello:v2", "tests/guests/hello-v2/hello-v2.wasm"),
            ("worker:v1", "examples/worker/worker.wasm"),
            ("misbehave:v1", "tests/guests/misbehave/misbehave.wasm"),
            ("tcp-echo:v1", "tests/guests/tcp-echo/tcp-echo.wasm"),
        ];
        // How full the machine of the tests is must not matter to them.
        let tiny = "memory.available<1Mi,nodefs.available<1Mi";
        let mut arguments = ["--node-name", "box", "--eviction-hard", tiny].map(str::to_owned).to_vec();
        if !more.contains(&IMAGE_GC) {
            arguments.extend([IMAGE_GC, "100"].map(str::to_owned));
        }
        // Whatever runs on the machine of the tests is not theirs.
        let endpoint = self.machine.as_ref().map_or_else(|| self.data_dir().join("no-runtime.sock"), |on| on.socket());
        arguments.extend(["--cri-endpoint".to_owned(), endpoint.display().to_string()]);
        for (name, file) in images {
            arguments.extend(["--import".to_owned(), format!("{name}={ROOT}/{file}")]);
        }
        arguments.extend(more.iter().map(|a| (*a).to_owned()));
        self.spawn(&arguments)?;
        let started = eventually(START_LIMIT, || {
            if let Some(status) = self.server.as_mut().and_then(|s| s.try_wait().transpose()) {
                // Nothing is left to wait for.
                return Ok(Err(anyhow!("the server ended: {status:?}\n{}", self.log())));
            }
            let ready = self.kubectl(&[
                "get",
                "node",
                "box",
                "-o",
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}",
            ])?;
            ensure!(ready == "True", "the node is not ready: {ready}");
            Ok(Ok(()))
        });
        started.with_context(|| self.log())?
    }

    fn spawn(&mut self, arguments: &[String]) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.coracle();
        command.arg("server").args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(command.spawn().context("the server")?);
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// What the server printed, its end.
    #[must_use]
    pub fn log(&self) -> String {
        let Ok(file) = std::fs::File::open(self.log_path()) else { return String::new() };
        let lines: Vec<String> = BufReader::new(file).lines().map_while(Result::ok).collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// `coracle` on this cluster.
    #[must_use]
    pub fn coracle(&self) -> Command {
        let mut command = match (&self.copy, &self.machine) {
            (None, Some(machine)) => {
                let program = Self::program().unwrap_or_else(|_| PathBuf::from("coracle"));
                machine.command(&program.display().to_string())
            }
            (None, None) => {
                let program = Self::program().unwrap_or_else(|_| PathBuf::from("coracle"));
                self.namespace.command(&program.display().to_string())
            }
            (Some(copy), _) => {
                let mut command = self.namespace.command("setpriv");
                command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]);
                command.arg(copy).current_dir(self.dir.path()).env("HOME", self.dir.path());
                command
            }
        };
        command.arg("--data-dir").arg(self.data_dir());
        command
    }

    /// Runs `coracle` with arguments.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn coracle_run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.coracle();
        command.args(arguments);
        run(command, None)
    }

    /// `kubectl` on this cluster, not yet run.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = self.namespace.command("kubectl");
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--cache-dir").arg(self.dir.path().join("cache"));
        command
    }

    /// Runs `kubectl`; its output, if it went well.
    ///
    /// # Errors
    /// It failed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_run(arguments, None)?.ok()
    }

    /// Runs `kubectl` with the words of a line; its output, if it went well.
    ///
    /// # Errors
    /// It failed.
    pub fn k(&self, line: &str) -> Result<String> {
        self.kubectl(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `kubectl` with the words of a line; what it complained of, if it failed.
    ///
    /// # Errors
    /// It did not fail.
    pub fn k_fails(&self, line: &str) -> Result<String> {
        self.kubectl_run(&line.split_whitespace().collect::<Vec<_>>(), None)?.fails()
    }

    /// What a JSONPath finds in an object, as `kubectl` prints it.
    ///
    /// # Errors
    /// There is no such object.
    pub fn field(&self, object: &str, path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        let mut arguments = vec!["get", "-o", &path];
        arguments.extend(object.split_whitespace());
        self.kubectl(&arguments)
    }

    /// Waits until a pod is ready, and gives its address.
    ///
    /// # Errors
    /// It does not become ready; what `kubectl describe` says of it.
    pub fn ready(&self, pod: &str) -> Result<String> {
        let waits = self.k(&format!("wait pod {pod} --for=condition=Ready --timeout={}s", PATIENCE.as_secs()));
        waits.or_else(|error| Err(error.context(self.k(&format!("describe pod {pod}"))?)))?;
        self.field(&format!("pod {pod}"), "{.status.podIP}")
    }

    /// Starts `kubectl` with the words of a line and lets it run.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn k_runs(&self, line: &str) -> Result<Running> {
        let mut command = self.kubectl_command();
        command.args(line.split_whitespace());
        Running::start(command)
    }

    /// Runs `kubectl` with a standard input.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn kubectl_run(&self, arguments: &[&str], input: Option<&str>) -> Result<Output> {
        let mut command = self.kubectl_command();
        command.args(arguments);
        run(command, input)
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// It is refused.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        self.kubectl_run(&["apply", "-f", "-"], Some(manifest))?.ok()
    }

    /// An object.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let mut arguments = vec!["get", "-o", "json"];
        arguments.extend(what);
        Ok(serde_json::from_str(&self.kubectl(&arguments)?)?)
    }

    /// The body of a URL, from inside the cluster's machine.
    ///
    /// # Errors
    /// No answer, or none of success.
    pub fn curl(&self, url: &str) -> Result<String> {
        let mut command = self.namespace.command("curl");
        command.args(["-sS", "--fail", "--max-time", "5", url]);
        run(command, None)?.ok()
    }

    /// Kills the server with SIGKILL.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut server = self.server.take().context("no server runs")?;
        self.signal(&server, "-KILL")?;
        server.wait()?;
        Ok(())
    }

    /// Asks the server to end and waits for it.
    ///
    /// # Errors
    /// It does not end, or not well.
    pub fn stop(&mut self) -> Result<()> {
        let mut server = self.server.take().context("no server runs")?;
        self.signal(&server, "-TERM")?;
        let status = eventually(Duration::from_secs(20), || server.try_wait()?.context("it still runs"));
        if status.is_err() {
            server.kill()?;
        }
        ensure!(status?.success(), "the server ended badly\n{}", self.log());
        Ok(())
    }

    /// CPU time of the server, its components' too, as the kernel counts it.
    ///
    /// # Errors
    /// It does not run.
    pub fn cpu_time(&self) -> Result<Duration> {
        let pid = self.pid(self.server.as_ref().context("no server runs")?)?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let words: Vec<&str> = stat.rsplit_once(')').context("a name")?.1.split_whitespace().collect();
        // User and system time, in hundredths of a second.
        let ticks = words[11].parse::<u64>()? + words[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// On a machine of its own the server is the child of what was started.
    fn pid(&self, server: &Child) -> Result<u32> {
        if self.machine.is_some() { child_of(server.id()) } else { Ok(server.id()) }
    }

    fn signal(&self, server: &Child, signal: &str) -> Result<()> {
        let pid = self.pid(server)?;
        let mut kill = Command::new("kill");
        kill.args([signal, &pid.to_string()]);
        run(kill, None)?.ok().map(drop)
    }

    /// The path of a file of the checkout.
    #[must_use]
    pub fn file(path: &str) -> String {
        Path::new(ROOT).join(path).display().to_string()
    }
}

/// A directory in memory where the machine has one: how full and how slow the machine's disk is must not matter to a test.
fn roomy_dir() -> Result<TempDir> {
    const MEMORY: &str = "/dev/shm";
    let free = rustix::fs::statvfs(MEMORY).map_or(0, |room| room.f_bavail * room.f_frsize);
    Ok(if free > ROOM_BYTES { tempfile::tempdir_in(MEMORY)? } else { tempfile::tempdir()? })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
