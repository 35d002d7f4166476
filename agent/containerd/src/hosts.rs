//! `/etc/hosts` of a pod's containers (`pkg/kubelet/kubelet_pods.go`): written when its sandbox stands, shared by all of them.

use std::{
    fmt::Write as _,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use coracle_agent_core::workload::{HostNetwork, PodUid, SandboxSpec};

/// Where containers have it.
pub(crate) const PATH: &str = "/etc/hosts";

const HEAD: &str = "# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";
const HOST_NETWORK_HEAD: &str = "# Kubernetes-managed hosts file (host network).\n";

/// Where a pod's file is on the node.
pub(crate) fn file(pods_dir: &Path, pod: &PodUid) -> PathBuf {
    pods_dir.join(pod.as_str()).join("etc-hosts")
}

/// Writes a pod's file.
pub(crate) fn write(file: &Path, spec: &SandboxSpec, ips: &[IpAddr]) -> io::Result<()> {
    let own = match spec.host_network {
        HostNetwork::Yes => Some(fs::read_to_string(PATH).unwrap_or_default()),
        HostNetwork::No => None,
    };
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, text(spec, ips, own.as_deref()))
}

/// The file's text; `node` is that of the node, for a pod in its network.
fn text(spec: &SandboxSpec, ips: &[IpAddr], node: Option<&str>) -> String {
    let mut text = match node {
        Some(node) => format!("{HOST_NETWORK_HEAD}{node}"),
        None => HEAD.to_owned(),
    };
    if node.is_none() {
        // Its short name even where `hostname` answers the full one.
        let short = spec.hostname.split('.').next().unwrap_or_default();
        for ip in ips {
            let _ = match &spec.full_hostname {
                Some(full) => writeln!(text, "{ip}\t{full}\t{short}"),
                None => writeln!(text, "{ip}\t{}", spec.hostname),
            };
        }
    }
    if !spec.host_aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for (ip, names) in &spec.host_aliases {
            let _ = writeln!(text, "{ip}\t{}", names.join("\t"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use coracle_agent_core::workload::{DnsSpec, NamespaceSpec};

    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            pod: PodUid::new("u"),
            namespace: "default".into(),
            name: "web".into(),
            attempt: 0,
            hostname: "web".into(),
            full_hostname: None,
            ips: Vec::new(),
            host_network: HostNetwork::No,
            namespaces: NamespaceSpec::default(),
            sysctls: BTreeMap::new(),
            has_privileged: false,
            dns: DnsSpec::default(),
            host_aliases: Vec::new(),
            log_dir: PathBuf::new(),
            handler: None,
            images: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            service_account: "default".into(),
        }
    }

    #[test]
    fn the_file_is_what_the_kubelet_writes() {
        let ips = ["10.42.0.7".parse().unwrap()];
        assert_eq!(text(&spec(), &ips, None), format!("{HEAD}10.42.0.7\tweb\n"));
        let mut named = spec();
        named.full_hostname = Some("web.sub.default.svc.cluster.local".into());
        named.host_aliases = vec![("1.2.3.4".parse().unwrap(), vec!["a".into(), "b".into()])];
        let expected = format!(
            "{HEAD}10.42.0.7\tweb.sub.default.svc.cluster.local\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
        );
        assert_eq!(text(&named, &ips, None), expected);
        let node = "127.0.0.1 box\n";
        assert_eq!(text(&spec(), &ips, Some(node)), format!("{HOST_NETWORK_HEAD}{node}"));
    }
}
