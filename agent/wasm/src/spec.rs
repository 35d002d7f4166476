//! What a container's spec means for a component: its command line, its environment, the port of a server and how its
//! instances are used. Pure.

use coracle_agent_core::workload::{ContainerSpec, Protocol};
use coracle_artifact::ImageReference;
use coracle_host::InstancePolicy;

/// Annotation of a pod: `per-request` (a new instance for each HTTP request, the default) or `reuse`.
pub const INSTANCES_ANNOTATION: &str = "wasm.coracle.dev/instances";

/// Where a server listens when nothing says otherwise.
const DEFAULT_PORT: u16 = 8080;

/// Requests after which a reused instance is dropped: what a guest leaks does not add up for ever.
const REUSE_MAX_REQUESTS: u32 = 10_000;

/// Idle instances that a container keeps for reuse.
const REUSE_MAX_IDLE: usize = 32;

/// The command line, the program's name first.
pub(crate) fn args(spec: &ContainerSpec) -> Vec<String> {
    let mut args = if spec.command.is_empty() { vec![program_name(&spec.image)] } else { spec.command.clone() };
    args.extend(spec.args.iter().cloned());
    args
}

/// A component has no entry point with a name: the image's last word stands for it.
fn program_name(image: &str) -> String {
    let path = image.parse::<ImageReference>().map_or_else(|_| image.to_owned(), |image| image.path().to_owned());
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The environment, with the pod's name as other runtimes add it.
pub(crate) fn env(spec: &ContainerSpec, hostname: &str) -> Vec<(String, String)> {
    let mut env = spec.env.clone();
    if !env.iter().any(|(name, _)| name == "HOSTNAME") {
        env.insert(0, ("HOSTNAME".into(), hostname.into()));
    }
    env
}

/// Where a server listens: the first TCP port that is declared, else `$PORT`, else 8080.
pub(crate) fn port(spec: &ContainerSpec) -> Result<u16, String> {
    if let Some(port) = spec.ports.iter().find(|port| port.protocol == Protocol::Tcp) {
        return Ok(port.container_port);
    }
    match spec.env.iter().find(|(name, _)| name == "PORT") {
        None => Ok(DEFAULT_PORT),
        Some((_, value)) => match value.parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!("the variable PORT is {value:?}, which is no port")),
        },
    }
}

/// How instances are used.
pub(crate) fn instances(spec: &ContainerSpec) -> Result<InstancePolicy, String> {
    match spec.annotations.get(INSTANCES_ANNOTATION).map(String::as_str) {
        None | Some("per-request") => Ok(InstancePolicy::PerRequest),
        Some("reuse") => Ok(InstancePolicy::Reuse { max_requests: REUSE_MAX_REQUESTS, max_idle: REUSE_MAX_IDLE }),
        Some(other) => {
            Err(format!("the annotation {INSTANCES_ANNOTATION} is {other:?}: it must be \"per-request\" or \"reuse\""))
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_agent_core::workload::Port;

    use super::*;
    use crate::workload::tests::container;

    #[test]
    fn the_program_s_name_comes_first() {
        let mut spec = container("ghcr.io/team/hello:v1");
        spec.args = vec!["a".into()];
        assert_eq!(args(&spec), ["hello", "a"]);
        spec.command = vec!["/bin/x".into(), "b".into()];
        assert_eq!(args(&spec), ["/bin/x", "b", "a"]);
    }

    #[test]
    fn a_server_listens_where_it_is_expected() {
        let mut spec = container("hello");
        assert_eq!(port(&spec), Ok(8080));
        spec.env = vec![("PORT".into(), "9090".into())];
        assert_eq!(port(&spec), Ok(9090));
        spec.env = vec![("PORT".into(), "http".into())];
        assert!(port(&spec).unwrap_err().contains("\"http\""));
        let declared = |container_port, protocol| Port { name: String::new(), container_port, host: None, protocol };
        spec.ports = vec![declared(53, Protocol::Udp), declared(80, Protocol::Tcp)];
        assert_eq!(port(&spec), Ok(80));
    }

    #[test]
    fn instances_are_used_as_annotated() {
        let mut spec = container("hello");
        assert_eq!(instances(&spec), Ok(InstancePolicy::PerRequest));
        spec.annotations.insert(INSTANCES_ANNOTATION.into(), "reuse".into());
        assert!(matches!(instances(&spec), Ok(InstancePolicy::Reuse { .. })));
        spec.annotations.insert(INSTANCES_ANNOTATION.into(), "never".into());
        assert!(instances(&spec).is_err());
    }

    #[test]
    fn the_pod_s_name_is_in_the_environment_once() {
        let mut spec = container("hello");
        assert_eq!(env(&spec, "pod-0"), [("HOSTNAME".to_owned(), "pod-0".to_owned())]);
        spec.env = vec![("HOSTNAME".into(), "own".into())];
        assert_eq!(env(&spec, "pod-0"), spec.env);
    }
}
