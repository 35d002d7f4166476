//! The plugin itself (CNI specification 1.1): the container runtime runs our program, says what it wants in its environment and
//! on standard input, and reads the result from standard output. The agent is asked for the address; the rest is done here,
//! where the runtime's own namespace is at hand.

use std::{
    collections::HashSet,
    env, fs,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::Ipv4Addr,
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    LOOPBACK_TYPE, Lease, Question, VERSIONS, link,
    netlink::{Mac, Netlink, Veth},
};

/// The gateway that every pod sees: no host has it, its hardware address is written down in the pod.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of every link's end on the node. Each is alone on its wire, so that it need not be unique.
const NODE_MAC: Mac = [0xee; 6];
/// How long the agent may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest configuration that is read.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Error codes of the specification.
const INVALID_VERSION: u32 = 1;
const INVALID_ENVIRONMENT: u32 = 4;
const FAILED_IO: u32 = 5;
const FAILED_DECODE: u32 = 6;
const TRY_AGAIN: u32 = 11;
const NOT_AVAILABLE: u32 = 50;
/// Ours: the network is not as it was made.
const CHANGED: u32 = 101;

/// What the specification has for a failure.
struct Failure {
    code: u32,
    message: String,
}

impl Failure {
    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    fn io(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::new(FAILED_IO, format!("{what}: {error}"))
    }
}

/// The configuration on standard input.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    cni_version: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    socket: PathBuf,
    prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<Attachment>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// Whether the program was run as a plugin: a runtime says so in the environment.
pub fn is_plugin() -> bool {
    env::var_os("CNI_COMMAND").is_some()
}

/// Does what the runtime asks for.
pub fn run() -> ExitCode {
    let command = variable("CNI_COMMAND");
    let mut text = String::new();
    let read = io::stdin().take(MAX_CONFIG_BYTES).read_to_string(&mut text);
    let config: Result<Config, Failure> = match read {
        Err(error) => Err(Failure::new(FAILED_IO, format!("the configuration cannot be read: {error}"))),
        Ok(_) => serde_json::from_str(&text)
            .map_err(|error| Failure::new(FAILED_DECODE, format!("the configuration is not valid: {error}"))),
    };
    let version = config.as_ref().map_or_else(|_| String::new(), |config| config.cni_version.clone());
    match config.and_then(|config| answer(&command, &config)) {
        Ok(Some(result)) => said(&result),
        Ok(None) => ExitCode::SUCCESS,
        Err(failure) => {
            said(&json!({"cniVersion": version, "code": failure.code, "msg": failure.message}));
            ExitCode::FAILURE
        }
    }
}

/// Prints an answer; a runtime that does not read it takes the call as failed.
fn said(answer: &Value) -> ExitCode {
    let mut out = io::stdout().lock();
    match writeln!(out, "{answer}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(command: &str, config: &Config) -> Result<Option<Value>, Failure> {
    if command == "VERSION" {
        return Ok(Some(json!({"cniVersion": VERSIONS[VERSIONS.len() - 1], "supportedVersions": VERSIONS})));
    }
    if !VERSIONS.contains(&config.cni_version.as_str()) {
        let message = format!("version {:?} is not supported; these are: {}", config.cni_version, VERSIONS.join(", "));
        return Err(Failure::new(INVALID_VERSION, message));
    }
    let loopback = config.kind == LOOPBACK_TYPE;
    match command {
        "ADD" if loopback => add_loopback(config).map(Some),
        "ADD" => add(config).map(Some),
        "DEL" if loopback => Ok(None),
        "DEL" => remove(&link::name(&variable("CNI_CONTAINERID"), &variable("CNI_IFNAME"))).map(|()| None),
        "CHECK" if loopback => Ok(None),
        "CHECK" => check().map(|()| None),
        "STATUS" if loopback => Ok(None),
        "STATUS" => match ask(&config.socket, &Question::Status) {
            Ok(_) => Ok(None),
            Err(failure) => Err(Failure::new(NOT_AVAILABLE, failure.message)),
        },
        "GC" if loopback => Ok(None),
        "GC" => collect(config).map(|()| None),
        other => Err(Failure::new(INVALID_ENVIRONMENT, format!("CNI_COMMAND {other:?} is not known"))),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

fn needed(name: &str) -> Result<String, Failure> {
    let value = variable(name);
    if value.is_empty() {
        return Err(Failure::new(INVALID_ENVIRONMENT, format!("{name} is not set")));
    }
    Ok(value)
}

/// One of the arguments that runtimes pass beside the configuration: `K8S_POD_UID=…;…`.
fn argument(name: &str) -> Result<String, Failure> {
    let all = variable("CNI_ARGS");
    let found = all.split(';').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let missing = || Failure::new(INVALID_ENVIRONMENT, format!("CNI_ARGS has no {name}"));
    found.map(str::to_owned).filter(|value| !value.is_empty()).ok_or_else(missing)
}

fn namespace() -> Result<(String, File), Failure> {
    let path = needed("CNI_NETNS")?;
    let file = File::open(&path).map_err(Failure::io(&path))?;
    Ok((path, file))
}

/// This process does nothing else, so that its one thread may stay there.
fn enter(namespace: &File) -> Result<(), Failure> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| Failure::new(FAILED_IO, format!("the pod's namespace cannot be entered: {error}")))
}

fn netlink() -> Result<Netlink, Failure> {
    Netlink::open().map_err(Failure::io("the kernel cannot be asked"))
}

/// A hardware address made of the address, as other plugins do it: pods that get an address again are known by it at once.
fn pod_mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn add(config: &Config) -> Result<Value, Failure> {
    let (container_id, interface) = (needed("CNI_CONTAINERID")?, needed("CNI_IFNAME")?);
    let (path, namespace) = namespace()?;
    let node = File::open("/proc/self/ns/net").map_err(Failure::io("the node's namespace"))?;
    let lease = ask(&config.socket, &Question::Address { pod: argument("K8S_POD_UID")? })?;
    let lease = lease.ok_or_else(|| Failure::new(TRY_AGAIN, "the agent gave no address"))?;
    let name = link::name(&container_id, &interface);
    let mac = pod_mac(lease.ip);
    let veth = Veth { name: &name, mac: NODE_MAC, peer_name: &interface, peer_mac: mac, mtu: lease.mtu };
    // What is half made is taken away again: an address belongs to one link.
    if let Err(failure) = connect(&veth, &lease, &namespace) {
        let _ = enter(&node).and_then(|()| remove(&name));
        return Err(failure);
    }
    let version = (!config.cni_version.starts_with('1')).then_some("4");
    let mut ip = json!({"address": format!("{}/32", lease.ip), "gateway": GATEWAY, "interface": 1});
    if let Some(version) = version {
        ip["version"] = version.into();
    }
    Ok(json!({
        "cniVersion": config.cni_version,
        "interfaces": [
            {"name": name, "mac": shown(NODE_MAC)},
            {"name": interface, "mac": shown(mac), "sandbox": path},
        ],
        "ips": [ip],
        "routes": [{"dst": "0.0.0.0/0", "gw": GATEWAY}],
        "dns": {},
    }))
}

fn connect(veth: &Veth<'_>, lease: &Lease, namespace: &File) -> Result<(), Failure> {
    let failed = |what: &'static str| move |error| Failure::new(FAILED_IO, format!("{what}: {error}"));
    let mut node = netlink()?;
    // A link of this name is left from a call that was broken off.
    match node.remove_link(veth.name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("an old link stays")(error)),
        _ => {}
    }
    node.add_veth(veth, namespace).map_err(failed("the link cannot be made"))?;
    let index = node.index(veth.name).map_err(failed("the link is not there"))?;
    node.add_neighbour(index, lease.ip, veth.peer_mac).map_err(failed("the pod's hardware address"))?;
    node.add_host_route(index, lease.ip, lease.node_ip).map_err(failed("the route to the pod"))?;
    enter(namespace)?;
    let mut pod = netlink()?;
    let index = pod.index(veth.peer_name).map_err(failed("the pod's link is not there"))?;
    pod.set_up(index).map_err(failed("the pod's link"))?;
    pod.add_address(index, lease.ip).map_err(failed("the pod's address"))?;
    pod.add_neighbour(index, GATEWAY, veth.mac).map_err(failed("the gateway's hardware address"))?;
    pod.add_default_route(index, GATEWAY).map_err(failed("the pod's route"))?;
    let loopback = pod.index("lo").map_err(failed("the loopback link"))?;
    pod.set_up(loopback).map_err(failed("the loopback link"))
}

fn remove(name: &str) -> Result<(), Failure> {
    match netlink()?.remove_link(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::io("the link stays")(error)),
        _ => Ok(()),
    }
}

/// Both ends of the link are there.
fn check() -> Result<(), Failure> {
    let (container_id, interface) = (needed("CNI_CONTAINERID")?, needed("CNI_IFNAME")?);
    let (_, namespace) = namespace()?;
    let name = link::name(&container_id, &interface);
    let gone = |name: String| move |error| Failure::new(CHANGED, format!("the link {name}: {error}"));
    netlink()?.index(&name).map_err(gone(name))?;
    enter(&namespace)?;
    netlink()?.index(&interface).map_err(gone(interface)).map(drop)
}

/// Takes away links of pods that the runtime does not know any more.
fn collect(config: &Config) -> Result<(), Failure> {
    let valid: HashSet<String> =
        config.valid_attachments.iter().map(|known| link::name(&known.container_id, &known.ifname)).collect();
    // This namespace's links, whatever is mounted at /sys.
    let path = "/proc/self/net/dev";
    let links = fs::read_to_string(path).map_err(Failure::io(path))?;
    for name in links.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim()) {
        if link::is_one(name) && !valid.contains(name) {
            remove(name)?;
        }
    }
    Ok(())
}

/// The plugin `loopback` that runtimes call for every pod.
fn add_loopback(config: &Config) -> Result<Value, Failure> {
    let (path, namespace) = namespace()?;
    enter(&namespace)?;
    let mut pod = netlink()?;
    let index = pod.index("lo").map_err(Failure::io("the loopback link"))?;
    pod.set_up(index).map_err(Failure::io("the loopback link"))?;
    if let Some(result) = &config.prev_result {
        return Ok(result.clone());
    }
    let mut ip = json!({"address": "127.0.0.1/8", "interface": 0});
    if !config.cni_version.starts_with('1') {
        ip["version"] = "4".into();
    }
    Ok(json!({
        "cniVersion": config.cni_version,
        "interfaces": [{"name": "lo", "mac": shown([0; 6]), "sandbox": path}],
        "ips": [ip],
        "dns": {},
    }))
}

fn shown(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Asks the agent: one line there, one line back.
fn ask(socket: &Path, question: &Question) -> Result<Option<Lease>, Failure> {
    let away = |error: io::Error| {
        Failure::new(TRY_AGAIN, format!("the node's agent does not answer at {}: {error}", socket.display()))
    };
    let mut stream = UnixStream::connect(socket).map_err(away)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(away)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(away)?;
    let mut line = serde_json::to_string(question).map_err(|error| Failure::new(FAILED_DECODE, error.to_string()))?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(away)?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_CONFIG_BYTES)).read_line(&mut answer).map_err(away)?;
    let answer: Result<Option<Lease>, String> = serde_json::from_str(&answer)
        .map_err(|error| Failure::new(FAILED_DECODE, format!("the agent's answer is not valid: {error}")))?;
    answer.map_err(|message| Failure::new(TRY_AGAIN, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_names_that_the_kernel_takes() {
        let name = link::name("3c1f0e", "eth0");
        assert_eq!(name.len(), 14);
        assert!(link::is_one(&name));
        assert_ne!(name, link::name("3c1f0e", "eth1"));
        assert_ne!(name, link::name("3c1f0f", "eth0"));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_specification_s_codes() {
        let config = |version: &str| Config {
            cni_version: version.into(),
            kind: "coracle".into(),
            socket: "/no/such/socket".into(),
            prev_result: None,
            valid_attachments: Vec::new(),
        };
        let code = |command: &str, version: &str| answer(command, &config(version)).err().map(|failure| failure.code);
        assert_eq!(code("ADD", "9.0.0"), Some(INVALID_VERSION));
        assert_eq!(code("JUMP", "1.0.0"), Some(INVALID_ENVIRONMENT));
        assert_eq!(code("STATUS", "1.1.0"), Some(NOT_AVAILABLE));
        assert_eq!(code("VERSION", ""), None);
    }
}
