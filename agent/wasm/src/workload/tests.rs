//! The port against real components: each test has a runtime of its own, and pods on loopback addresses of their own.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use coracle_agent_core::credentials::Keyring;
use coracle_agent_core::workload::{
    Access, DnsSpec, ExecRequest, Exit, ExitReason, Mount, NamespaceSpec, Port, Protocol, PullFailure, PullPolicy,
    PullRequest, ResourceLimits, SecuritySpec, StdioSpec, TerminationMessage, Ticket,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::*;

fn contents(path: &std::path::Path, name: impl AsRef<str>) -> coracle_artifact::Contents {
    coracle_artifact::Contents::of(path, Some(&name.as_ref().parse().unwrap())).unwrap()
}

mod wasi_0_3;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn container(image: &str) -> ContainerSpec {
    ContainerSpec {
        key: ContainerKey { pod: PodUid::new("pod"), name: "app".into(), attempt: 0 },
        image: image.into(),
        image_id: String::new(),
        command: Vec::new(),
        args: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        mounts: Vec::new(),
        ports: Vec::new(),
        resources: ResourceLimits::default(),
        log_path: PathBuf::new(),
        security: SecuritySpec::default(),
        stop_signal: None,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        termination_message: TerminationMessage { path: String::new(), host_path: None, fallback_to_logs: false },
        stdio: StdioSpec::default(),
    }
}

/// A runtime with one pod.
struct Setup {
    workload: WasmWorkload,
    reports: mpsc::Receiver<Report>,
    folder: tempfile::TempDir,
    pod: PodUid,
    ip: IpAddr,
}

impl Setup {
    /// What the pod uses.
    async fn stats(&self) -> PodStats {
        self.workload.stats().await.pods.remove(&self.pod).expect("the pod is known")
    }

    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (sender, reports) = mpsc::channel(64);
        let mut config = WasmConfig::new(folder.path().join("data"));
        config.engine = EngineOptions::with_memories(256);
        let workload = WasmWorkload::new(config, sender).unwrap();
        // Tests run at the same time in one process, and processes beside each other.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 | (high & 63), low, NEXT.fetch_add(1, Ordering::Relaxed)).into();
        let mut setup = Self { workload, reports, folder, pod: PodUid::new("pod"), ip };
        setup.create_sandbox("pod", ip).await;
        setup
    }

    async fn create_sandbox(&mut self, uid: &str, ip: IpAddr) {
        let spec = SandboxSpec {
            pod: PodUid::new(uid),
            namespace: "default".into(),
            name: uid.into(),
            attempt: 0,
            hostname: uid.into(),
            full_hostname: None,
            namespaces: NamespaceSpec::default(),
            sysctls: BTreeMap::new(),
            has_privileged: false,
            ips: vec![ip],
            host_network: HostNetwork::No,
            dns: DnsSpec::default(),
            host_aliases: vec![("127.0.0.1".parse().unwrap(), vec!["alias".into()])],
            log_dir: self.folder.path().join("logs"),
            images: Vec::new(),
            handler: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            service_account: "default".into(),
        };
        self.workload.submit(Command::CreateSandbox(Box::new(spec)));
        let ready = Report::SandboxReady { pod: PodUid::new(uid), ips: vec![ip] };
        assert_eq!(self.report().await, ready);
    }

    /// Imports a built component of the repository under its own name.
    fn import(&self, path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let images = self.workload.image_store().import(&contents(&path, name)).unwrap();
        images[0].id.to_string()
    }

    /// A spec for a component of the repository.
    fn spec(&self, path: &str, name: &str, args: &[&str]) -> ContainerSpec {
        let image_id = self.import(path);
        let mut spec = container(Path::new(path).file_stem().unwrap().to_str().unwrap());
        spec.key = ContainerKey { pod: self.pod.clone(), name: name.into(), attempt: 0 };
        spec.image_id = image_id;
        spec.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        spec.log_path = self.folder.path().join(format!("logs/{name}/0.log"));
        spec
    }

    async fn report(&mut self) -> Report {
        timeout(PATIENCE, self.reports.recv()).await.expect("a report comes").expect("the runtime lives")
    }

    fn submit(&self, spec: &ContainerSpec) {
        self.workload.submit(Command::StartContainer(Box::new(spec.clone())));
    }

    /// Starts a container and waits until it runs.
    async fn start(&mut self, spec: &ContainerSpec) {
        self.submit(spec);
        let created = self.report().await;
        assert!(matches!(&created, Report::Created { id, .. } if id.starts_with("wasm://")), "{created:?}");
        let started = self.report().await;
        assert!(matches!(started, Report::Started { .. }), "{started:?}");
    }

    async fn exit(&mut self, spec: &ContainerSpec) -> Exit {
        match self.report().await {
            Report::Exited { key, exit } if key == spec.key => exit,
            other => panic!("{other:?}"),
        }
    }

    async fn run(&mut self, spec: &ContainerSpec) -> Exit {
        self.start(spec).await;
        self.exit(spec).await
    }

    fn stop(&self, spec: &ContainerSpec, grace: Duration) {
        self.workload.submit(Command::StopContainer { key: spec.key.clone(), grace });
    }

    /// The content of a container's log, without times.
    fn log(&self, spec: &ContainerSpec) -> Vec<String> {
        let text = std::fs::read_to_string(&spec.log_path).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    async fn until_logged(&self, spec: &ContainerSpec, line: &str) {
        let wait = async {
            while !self.log(spec).iter().any(|found| found.contains(line)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the line comes");
    }
}

fn port(number: u16) -> Port {
    Port { name: String::new(), container_port: number, host: None, protocol: Protocol::Tcp }
}

/// A GET over a connection of its own: status and body.
async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { joined(body) } else { body.to_owned() }))
}

/// What chunks hold together (RFC 9112, section 7.1). A guest that has not ended when its answer is sent is sent in chunks.
fn joined(mut chunks: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = chunks.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        // A cut answer ends anywhere.
        let (piece, rest) = rest.split_at(size.min(rest.len()));
        text.push_str(piece);
        chunks = rest.strip_prefix("\r\n").unwrap_or_default();
    }
    text
}

const HELLO: &str = "examples/hello/hello.wasm";
const MISBEHAVE: &str = "tests/guests/misbehave/misbehave.wasm";
const SERVER: &str = "tests/guests/server/server.wasm";

#[tokio::test]
async fn a_server_answers_on_its_pod_s_address_and_drains() {
    let mut setup = Setup::new().await;
    let mut spec = setup.spec(HELLO, "web", &[]);
    spec.ports = vec![port(8080)];
    spec.env = vec![("POD_NAME".into(), "pod-0".into())];
    setup.start(&spec).await;
    let address = SocketAddr::new(setup.ip, 8080);
    let (status, body) = get(address, "/").await.unwrap();
    assert_eq!(status, 200);
    assert!(body.contains("Hello from pod-0!"), "{body}");
    let stats = setup.stats().await;
    assert!(stats.containers["web"].cpu_nanoseconds > 0);
    setup.stop(&spec, Duration::from_secs(30));
    let exit = setup.exit(&spec).await;
    assert_eq!((exit.code, exit.signal, exit.reason), (143, Some(15), ExitReason::Error));
    assert!(get(address, "/").await.is_err());
}

#[tokio::test]
async fn instances_can_be_reused() {
    let mut setup = Setup::new().await;
    let mut spec = setup.spec(HELLO, "web", &[]);
    spec.annotations.insert(crate::INSTANCES_ANNOTATION.into(), "reuse".into());
    setup.start(&spec).await;
    for _ in 0..20 {
        assert_eq!(get(SocketAddr::new(setup.ip, 8080), "/health").await.unwrap(), (200, "ok\n".into()));
    }
    let idle = setup.stats().await.containers["web"].memory.working_set_bytes;
    assert!(idle > 0, "an instance is kept");
}

#[tokio::test]
async fn a_failed_request_harms_no_other() {
    let mut setup = Setup::new().await;
    let mut spec = setup.spec(SERVER, "web", &[]);
    spec.resources.memory_limit_bytes = Some(16 << 20);
    setup.start(&spec).await;
    let address = SocketAddr::new(setup.ip, 8080);
    let slow = tokio::spawn(get(address, "/slow?300"));
    assert_eq!(get(address, "/trap").await.unwrap().0, 500);
    assert_eq!(get(address, "/allocate?64").await.unwrap().0, 500);
    // A client that goes away takes its guest with it, even one that never calls the host.
    let mut gone = TcpStream::connect(address).await.unwrap();
    gone.write_all(b"GET /spin HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let busy = || async { setup.stats().await.containers["web"] };
    let before = busy().await.cpu_nanoseconds;
    let spins = async {
        while busy().await.cpu_nanoseconds < before + 20_000_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, spins).await.expect("the guest computes");
    drop(gone);
    assert_eq!(slow.await.unwrap().unwrap().0, 200);
    let wait = async {
        while busy().await.memory.working_set_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the spinning instance ends with its client");
    let log = setup.log(&spec).join("\n");
    assert!(log.contains("GET /trap: ") && log.contains("GET /allocate: OOMKilled: memory limit of"), "{log}");
}

#[tokio::test]
async fn requests_under_way_are_finished_before_the_end_and_cut_at_the_deadline() {
    let mut setup = Setup::new().await;
    let spec = setup.spec(SERVER, "web", &[]);
    let address = SocketAddr::new(setup.ip, 8080);
    for (attempt, (milliseconds, grace, code)) in [(400, 30_000, 143), (60_000, 200, 137)].into_iter().enumerate() {
        let mut spec = spec.clone();
        spec.key.attempt = attempt as u32;
        setup.start(&spec).await;
        let slow = tokio::spawn(async move { get(address, &format!("/slow?{milliseconds}")).await });
        let wait = async {
            while setup.stats().await.containers["web"].memory.working_set_bytes == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap();
        setup.stop(&spec, Duration::from_millis(grace));
        assert_eq!(setup.exit(&spec).await.code, code);
        let answer = slow.await.unwrap();
        assert_eq!(answer.is_ok_and(|(status, _)| status == 200), code == 143);
        setup.workload.submit(Command::RemoveContainer { key: spec.key });
    }
}

#[tokio::test]
async fn commands_end_as_kubernetes_shows_it() {
    let mut setup = Setup::new().await;
    let limit = Some(32 << 20);
    for (number, (args, limit, code, reason)) in [
        (&["print", "2"][..], None, 0, ExitReason::Completed),
        (&["exit", "3"][..], None, 3, ExitReason::Error),
        (&["trap"][..], None, 134, ExitReason::Error),
        (&["crash-after", "0"][..], None, 1, ExitReason::Error),
        (&["allocate"][..], limit, 137, ExitReason::OomKilled),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = setup.spec(MISBEHAVE, &format!("app-{number}"), args);
        spec.resources.memory_limit_bytes = limit;
        let exit = setup.run(&spec).await;
        assert_eq!((exit.code, exit.reason), (code, reason), "{args:?}");
        let log = setup.log(&spec);
        match number {
            0 => assert_eq!(log, ["stdout F line 1", "stdout F line 2"]),
            2 => assert!(log[0].contains("unreachable") && exit.message.contains("unreachable"), "{log:?}"),
            4 => assert!(log.last().unwrap().contains("memory limit of 33554432 bytes exceeded"), "{log:?}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_memory_limit_below_the_component_s_own_is_a_kill_too() {
    let mut setup = Setup::new().await;
    let mut spec = setup.spec(MISBEHAVE, "app", &["sleep"]);
    spec.resources.memory_limit_bytes = Some(1024);
    assert_eq!(setup.run(&spec).await.reason, ExitReason::OomKilled);
    let mut spec = setup.spec(HELLO, "web", &[]);
    spec.resources.memory_limit_bytes = Some(1024);
    assert_eq!(setup.run(&spec).await.reason, ExitReason::OomKilled);
}

#[tokio::test]
async fn a_command_is_ended_by_its_stop_signal_or_by_force() {
    let mut setup = Setup::new().await;
    for (number, (args, grace, code)) in [
        (&["sleep"][..], Duration::from_secs(30), 143),
        (&["sleep"][..], Duration::ZERO, 137),
        (&["spin"][..], Duration::from_secs(30), 143),
        (&["spin"][..], Duration::ZERO, 137),
    ]
    .into_iter()
    .enumerate()
    {
        let spec = setup.spec(MISBEHAVE, &format!("app-{number}"), args);
        setup.start(&spec).await;
        let asked = std::time::Instant::now();
        setup.stop(&spec, grace);
        assert_eq!(setup.exit(&spec).await.code, code, "{args:?} {grace:?}");
        assert!(asked.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_guest_that_listens_for_the_end_has_its_grace() {
    let mut setup = Setup::new().await;
    let spec = setup.spec("examples/worker/worker.wasm", "worker", &[]);
    setup.start(&spec).await;
    setup.stop(&spec, Duration::from_secs(30));
    let exit = setup.exit(&spec).await;
    assert_eq!((exit.code, exit.reason), (0, ExitReason::Completed), "{:?}", setup.log(&spec));
}

#[tokio::test]
async fn spinning_guests_leave_time_for_others() {
    let mut setup = Setup::new().await;
    for number in 0..4 {
        let spec = setup.spec(MISBEHAVE, &format!("spin-{number}"), &["spin"]);
        setup.start(&spec).await;
    }
    let spec = setup.spec(HELLO, "web", &[]);
    setup.start(&spec).await;
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(get(SocketAddr::new(setup.ip, 8080), "/health").await.unwrap().0, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_container_sees_its_environment_files_and_arguments() {
    let mut setup = Setup::new().await;
    let root = setup.folder.path().to_owned();
    for name in ["config", "volume"] {
        std::fs::create_dir(root.join(name)).unwrap();
    }
    std::fs::write(root.join("config/key"), "value").unwrap();
    let orders = [
        "env",
        "args",
        "cat=/etc/config/key",
        "write=/data/out:text",
        "write=/dev/termination-log:done",
        "write=/etc/config/x:no",
    ];
    let mut spec = setup.spec("tests/guests/inspect/inspect.wasm", "app", &orders);
    spec.env = vec![("A".into(), "b".into())];
    let mount = |name: &str, path: &str, access| Mount::new(root.join(name), path, access);
    spec.mounts = vec![mount("config", "/etc/config", Access::ReadOnly), mount("volume", "/data", Access::ReadWrite)];
    spec.termination_message.path = "/dev/termination-log".into();
    spec.termination_message.host_path = Some(root.join("message"));
    let exit = setup.run(&spec).await;
    let log = setup.log(&spec);
    assert_eq!((exit.code, exit.message.as_str()), (1, "done"), "{log:?}");
    for line in ["stdout F A=b", "stdout F HOSTNAME=pod", "stdout F inspect", "stdout F value"] {
        assert!(log.iter().any(|found| found == line), "{line} in {log:?}");
    }
    assert_eq!(std::fs::read_to_string(root.join("volume/out")).unwrap(), "text");
    assert!(log.last().unwrap().contains("/etc/config/x"), "{log:?}");
    assert!(!root.join("config/x").exists());
}

#[tokio::test]
async fn containers_of_a_pod_meet_on_localhost_and_pods_on_their_addresses() {
    const ECHO: &str = "tests/guests/tcp-echo/tcp-echo.wasm";
    let mut setup = Setup::new().await;
    let listener = setup.spec(ECHO, "listener", &["listen", "7000"]);
    setup.start(&listener).await;
    setup.until_logged(&listener, "listening").await;
    for (name, target) in [("local", "127.0.0.1"), ("named", "localhost"), ("aliased", "alias"), ("self", "pod")] {
        let client = setup.spec(ECHO, name, &["connect", &format!("{target}:7000"), "hi"]);
        assert_eq!(setup.run(&client).await.code, 0, "{target}: {:?}", setup.log(&client));
    }
    // Another pod reaches it by address, and has a localhost of its own.
    let IpAddr::V4(ip) = setup.ip else { panic!("tests use IPv4") };
    let [a, b, c, d] = ip.octets();
    let other = Ipv4Addr::new(a, b, c, d | 128).into();
    setup.create_sandbox("other", other).await;
    let target = setup.ip;
    for (name, target, code) in [("far", target.to_string(), 0), ("near", "127.0.0.1".to_owned(), 1)] {
        let mut client = setup.spec(ECHO, name, &["connect", &format!("{target}:7000"), "hi"]);
        client.key.pod = PodUid::new("other");
        assert_eq!(setup.run(&client).await.code, code, "{target}: {:?}", setup.log(&client));
    }
}

#[tokio::test]
async fn outgoing_requests_come_from_the_pod_and_stay_off_the_host() {
    let mut setup = Setup::new().await;
    let hello = setup.spec(HELLO, "hello", &[]);
    setup.start(&hello).await;
    let mut spec = setup.spec(SERVER, "web", &[]);
    spec.ports = vec![port(9090)];
    setup.start(&spec).await;
    let address = SocketAddr::new(setup.ip, 9090);
    let fetch = |url: String| async move { get(address, &format!("/fetch?{url}")).await.unwrap() };
    let (status, body) = fetch(format!("http://{}:8080/version", setup.ip)).await;
    assert!(status == 200 && body.contains("v1"), "{status} {body}");
    let (status, body) = fetch("http://localhost:8080/version".into()).await;
    assert!(status == 200 && body.contains("v1"), "{status} {body}");
    // A listener of the host's is not the pod's.
    let host = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (status, body) = fetch(format!("http://127.0.0.1:{}/", host.local_addr().unwrap().port())).await;
    assert_eq!(status, 502, "{body}");
}

#[tokio::test]
async fn starts_that_cannot_be_say_why() {
    let mut setup = Setup::new().await;
    let store = setup.workload.image_store().clone();
    let import = |name: &str, wat: &str| {
        let path = setup.folder.path().join("x.wasm");
        std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
        store.import(&contents(&path, name)).unwrap()[0].id.to_string()
    };
    let foreign = import("foreign", r#"(component (import "a:b/c@1.0.0" (instance)) (import "a:b/f" (func)))"#);
    let nothing = import("nothing", "(component)");
    let damaged = import("damaged", r#"(component (core module (func (export "f"))))"#);
    let stored = store.component_path(&store.get(&damaged).unwrap());
    std::fs::write(stored, b"\0asm\x0d\0\x01\0\xff\xff\xff").unwrap();
    let mut missing_mount = setup.spec(HELLO, "mount", &[]);
    missing_mount.mounts = vec![Mount::new("/nowhere", "/x", Access::ReadOnly)];
    let mut bad_port = setup.spec(HELLO, "port", &[]);
    bad_port.env = vec![("PORT".into(), "x".into())];
    let by_id = |id: &str| ContainerSpec { image_id: id.into(), ..setup.spec(HELLO, "app", &[]) };
    let running = setup.spec(HELLO, "running", &[]);
    let twice = setup.spec(HELLO, "twice", &[]);
    let cases = [
        (by_id(&foreign), StartStage::Create, "a:b/f"),
        (by_id(&nothing), StartStage::Create, "the component has no entry point: it exports nothing"),
        (by_id("sha256:unknown"), StartStage::Create, "not found"),
        (by_id(&damaged), StartStage::Create, "is damaged: remove it"),
        (missing_mount, StartStage::Create, "failed to mount /nowhere at /x"),
        (bad_port, StartStage::Create, "which is no port"),
        (twice, StartStage::Start, "cannot listen on"),
    ];
    setup.start(&running).await;
    for (spec, expected, words) in cases {
        setup.submit(&spec);
        let report = loop {
            match setup.report().await {
                Report::Created { .. } => {}
                other => break other,
            }
        };
        let Report::StartFailed { stage, message, .. } = report else { panic!("{report:?}") };
        assert!(stage == expected && message.contains(words), "{stage:?} {message}");
    }
}

#[tokio::test]
async fn images_are_found_by_policy() {
    let mut setup = Setup::new().await;
    let id = setup.import(HELLO);
    let key = ContainerKey { pod: setup.pod.clone(), name: "app".into(), attempt: 0 };
    let pull = |image: &str, policy| {
        let request = PullRequest { key: key.clone(), image: image.into(), policy, keyring: Keyring::default() };
        Command::Pull(Box::new(request))
    };
    setup.workload.submit(pull("hello", PullPolicy::IfNotPresent));
    let Report::Pulled { image, transfer: None, .. } = setup.report().await else { panic!("it is on the node") };
    assert_eq!((image.name.as_str(), image.image_id.as_str()), ("docker.io/library/hello:latest", id.as_str()));
    for (image, policy, expected, words) in [
        ("nothere", PullPolicy::Never, PullFailure::NeverPull, "is not present with pull policy of Never"),
        ("Bad Name", PullPolicy::Always, PullFailure::InvalidName, "couldn't parse image name"),
        ("127.0.0.1:1/x", PullPolicy::IfNotPresent, PullFailure::RegistryUnavailable, "127.0.0.1:1/x:latest"),
    ] {
        setup.workload.submit(pull(image, policy));
        let report = loop {
            match setup.report().await {
                Report::Pulling { .. } => {}
                other => break other,
            }
        };
        let Report::PullFailed { failure, message, .. } = report else { panic!("{report:?}") };
        assert!(failure == expected && message.contains(words), "{failure:?} {message}");
    }
}

#[tokio::test]
async fn an_image_in_use_stays_and_a_pod_goes_with_its_containers() {
    let mut setup = Setup::new().await;
    let spec = setup.spec(HELLO, "web", &[]);
    setup.start(&spec).await;
    let used = setup.workload.remove_image(&spec.image_id).await;
    assert_eq!(used, Err(WorkloadError::ImageInUse(spec.image_id.clone())));
    setup.workload.submit(Command::RemoveSandbox { pod: setup.pod.clone() });
    assert_eq!(setup.exit(&spec).await.code, 137);
    assert_eq!(setup.report().await, Report::SandboxRemoved { pod: setup.pod.clone() });
    assert!(setup.workload.stats().await.pods.is_empty());
    assert!(setup.workload.remove_image(&spec.image_id).await.unwrap() > 40_000);
    assert!(setup.workload.images().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_command_of_wasi_0_3_runs_too() {
    let mut setup = Setup::new().await;
    for (number, (result, code)) in [(0, 0), (1, 1)].into_iter().enumerate() {
        let wat = format!(
            r#"(component
                (core module $m (func (export "run") (result i32) i32.const {result}))
                (core instance $i (instantiate $m))
                (func $run async (result (result)) (canon lift (core func $i "run")))
                (instance $export (export "run" (func $run)))
                (export "wasi:cli/run@0.3.0" (instance $export)))"#
        );
        let path = setup.folder.path().join("p3.wasm");
        std::fs::write(&path, wat::parse_str(wat).unwrap()).unwrap();
        let images = setup.workload.image_store().import(&contents(&path, "p3")).unwrap();
        let mut spec = setup.spec(HELLO, &format!("app-{number}"), &[]);
        spec.image_id = images[0].id.to_string();
        assert_eq!(setup.run(&spec).await.code, code);
    }
}

#[tokio::test]
async fn exec_is_refused_with_the_reason() {
    let mut setup = Setup::new().await;
    let key = ContainerKey { pod: setup.pod.clone(), name: "app".into(), attempt: 0 };
    let request = ExecRequest { ticket: Ticket(7), key, command: vec!["ls".into()], timeout: Duration::from_secs(1) };
    setup.workload.submit(Command::Exec(request));
    let Report::ExecDone { ticket: Ticket(7), outcome: ExecOutcome::Failed { message }, .. } = setup.report().await
    else {
        panic!("it is refused")
    };
    assert!(message.contains("a WebAssembly component is one program without a shell"), "{message}");
}
