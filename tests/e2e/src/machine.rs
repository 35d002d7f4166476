//! A machine with a container runtime: a namespace of processes, mounts and network in which containerd and a registry run. All
//! that was started in it, and all that was mounted, ends with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{Namespace, OciImage, eventually, run};

/// Where the registry listens in the machine's network.
const REGISTRY: &str = "127.0.0.1:5000";
/// A container of BusyBox, in it.
pub const BUSYBOX: &str = "127.0.0.1:5000/busybox:v1";
/// What sandboxes are made of.
const PAUSE: &str = "localhost/pause:test";
/// A start of a program, on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A machine with containerd. It ends with the value.
#[derive(Debug)]
pub struct Machine {
    namespace: Arc<Namespace>,
    dir: TempDir,
    /// Holds the namespaces; whatever is in them ends with it.
    holder: Child,
    init: u32,
    containerd: Mutex<Option<Inside>>,
    registry: Option<Inside>,
    /// More registries, with the images of the first.
    registries: Mutex<Vec<Inside>>,
}

impl Machine {
    /// A machine whose containerd runs, with the images of the tests in its registry.
    ///
    /// # Errors
    /// Something is not installed, or does not start.
    pub fn start() -> Result<Self> {
        let machine = Self::without_runtime()?;
        machine.start_runtime()?;
        Ok(machine)
    }

    /// A machine with the registry, on which no containerd runs yet.
    ///
    /// # Errors
    /// Something is not installed, or does not start.
    pub fn without_runtime() -> Result<Self> {
        let mut machine = Self::bare()?;
        machine.start_registry()?;
        Ok(machine)
    }

    fn bare() -> Result<Self> {
        let namespace = Arc::new(Namespace::new()?);
        let dir = tempfile::tempdir()?;
        // Its first process reaps whoever loses its parent, as a machine's does.
        let script = "mkdir -p /run/containerd && mount -t tmpfs tmpfs /run/containerd && sleep infinity & wait";
        let mut holder = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", namespace.name()))
            .args(["unshare", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .spawn()
            .context("unshare (scripts/test installs what the tests need)")?;
        let ready = eventually(START_LIMIT, || {
            let init = child_of(holder.id())?;
            let mounted = fs::read_to_string(format!("/proc/{init}/mounts"))?;
            ensure!(mounted.contains(" /run/containerd tmpfs"), "its own /run/containerd is not mounted yet");
            Ok(init)
        });
        match ready {
            Ok(init) => Ok(Self {
                namespace,
                dir,
                holder,
                init,
                containerd: Mutex::default(),
                registry: None,
                registries: Mutex::default(),
            }),
            Err(error) => {
                let _ = holder.kill();
                let _ = holder.wait();
                Err(error)
            }
        }
    }

    /// Its network.
    #[must_use]
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// A directory that ends with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The container runtime's socket, as its programs see it.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        PathBuf::from("/run/containerd/containerd.sock")
    }

    /// A program on this machine. It ends with the program that starts it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string(), "--mount", "--net", "--pid"]);
        command.args(["setpriv", "--pdeathsig", "KILL", program]);
        command
    }

    /// Runs a program on this machine; its output, if it went well.
    ///
    /// # Errors
    /// It failed.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        run(command, None)?.ok()
    }

    /// `ctr` on what Kubernetes has in containerd.
    ///
    /// # Errors
    /// It failed.
    pub fn ctr(&self, line: &str) -> Result<String> {
        let arguments: Vec<&str> = ["-n", "k8s.io"].into_iter().chain(line.split_whitespace()).collect();
        self.exec("ctr", &arguments)
    }

    /// Starts another registry with the images of the first, which it shows under rules of its own: `http` and `more` are in
    /// the form of its configuration.
    ///
    /// # Errors
    /// It does not start.
    pub fn registry_at(&self, address: &str, http: &str, more: &str) -> Result<()> {
        let started = self.registry_process(address, http, more)?;
        self.registries.lock().unwrap_or_else(PoisonError::into_inner).push(started);
        let (host, port) = address.rsplit_once(':').context("an address has a port")?;
        let connect = format!("exec 3<>/dev/tcp/{host}/{port}");
        eventually(START_LIMIT, || self.exec("bash", &["-c", &connect])).context("docker-registry").map(drop)
    }

    fn registry_process(&self, address: &str, http: &str, more: &str) -> Result<Inside> {
        let root = self.dir.path().join("registry");
        let config = self.dir.path().join(format!("registry-{address}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  \
             delete: {{enabled: true}}\nhttp: {{addr: '{address}'{http}}}\n{more}\n",
            root.display()
        );
        fs::write(&config, text)?;
        let mut command = self.command("docker-registry");
        command.arg("serve").arg(&config);
        Inside::start(command, &self.dir.path().join("registry.log"))
    }

    /// Starts the registry and fills it.
    fn start_registry(&mut self) -> Result<()> {
        self.registry = Some(self.registry_process(REGISTRY, "", "")?);
        eventually(START_LIMIT, || self.namespace.exec("curl", &["-sSf", &format!("http://{REGISTRY}/v2/")]))
            .context("docker-registry")?;
        OciImage::busybox(self.dir.path())?.push(&self.namespace, &format!("{REGISTRY}/busybox"), "v1")
    }

    /// Starts containerd, or starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_runtime(&self) -> Result<()> {
        let config = self.dir.path().join("containerd.toml");
        fs::write(&config, self.runtime_config())?;
        let mut command = self.command("containerd");
        command.arg("--config").arg(&config);
        *self.runtime() = Some(Inside::start(command, &self.dir.path().join("containerd.log"))?);
        eventually(START_LIMIT, || self.ctr("version")).with_context(|| self.runtime_log())?;
        if !self.ctr("images ls -q")?.contains(PAUSE) {
            let archive = OciImage::pause(self.dir.path())?.archive(PAUSE)?;
            self.ctr(&format!("images import {}", archive.display()))?;
        }
        Ok(())
    }

    fn runtime_config(&self) -> String {
        let dir = self.dir.path().display();
        let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
        // Without CAP_SYS_RESOURCE, as in many virtual machines, no score below the runtime's own can be set.
        format!(
            "version = 2\nroot = \"{dir}/containerd\"\nstate = \"/run/containerd\"\n\
             [grpc]\naddress = \"/run/containerd/containerd.sock\"\n\
             {cri}]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n\
             {cri}.cni]\nbin_dir = \"{dir}/cni/bin\"\nconf_dir = \"{dir}/cni/net.d\"\n\
             {cri}.registry]\nconfig_path = \"{dir}/certs.d\"\n"
        )
    }

    /// What containerd complained of, its end.
    #[must_use]
    pub fn runtime_log(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("containerd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Kills containerd. Containers run on.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill_runtime(&self) -> Result<()> {
        let running = self.runtime().take();
        running.context("no containerd runs")?.kill()
    }

    fn runtime(&self) -> std::sync::MutexGuard<'_, Option<Inside>> {
        self.containerd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn init_file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.init))
    }

    /// All its processes, by the whole system's numbers, with their command lines.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes(&self) -> Result<Vec<(u32, String)>> {
        let own = fs::read_link(self.init_file("ns/pid"))?;
        let all = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            // Containers have namespaces of their own below this one: their parents' is what counts.
            let inside = fs::read_link(entry.path().join("ns/mnt")).ok()?
                == fs::read_link(self.init_file("ns/mnt")).ok()?
                || fs::read_link(entry.path().join("ns/pid")).ok()? == own;
            let line = fs::read_to_string(entry.path().join("cmdline")).ok()?.replace('\0', " ");
            inside.then_some((pid, line))
        });
        Ok(all.collect())
    }

    /// What is mounted on it.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn mounts(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(self.init_file("mounts"))?.lines().map(str::to_owned).collect())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("containerd:\n{}", self.runtime_log());
        }
        // Cgroups are the system's: those of containers that are ended by force stay behind.
        let left = self.ctr("containers ls -q").unwrap_or_default();
        let running = self.runtime().take();
        let more = std::mem::take(&mut *self.registries.lock().unwrap_or_else(PoisonError::into_inner));
        drop((running, self.registry.take(), more));
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        let ids: Vec<&str> = left.lines().filter(|id| !id.is_empty()).collect();
        remove_cgroups(Path::new("/sys/fs/cgroup"), &ids, 4);
    }
}

/// Removes cgroups of these names, their processes being gone.
fn remove_cgroups(folder: &Path, names: &[&str], depth: u32) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name().to_str().is_some_and(|name| names.contains(&name)) {
            let removed = eventually(Duration::from_secs(2), || Ok(fs::remove_dir(entry.path())?));
            if let Err(error) = removed {
                eprintln!("the cgroup {} stays: {error:#}", entry.path().display());
            }
        } else if depth > 0 {
            remove_cgroups(&entry.path(), names, depth - 1);
        }
    }
}

/// The only child of a process.
pub(crate) fn child_of(pid: u32) -> Result<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let first = children.split_whitespace().next().with_context(|| format!("process {pid} has no child"))?;
    Ok(first.parse()?)
}

/// A program that runs inside a machine: what was started is `nsenter`, and the program is its child.
#[derive(Debug)]
struct Inside {
    child: Child,
}

impl Inside {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        let shown = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context(shown)?;
        Ok(Self { child })
    }

    /// Kills the program and waits until it is gone.
    fn kill(mut self) -> Result<()> {
        let inner = child_of(self.child.id())?;
        let mut kill = Command::new("kill");
        kill.args(["-KILL", &inner.to_string()]);
        run(kill, None)?.ok()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
