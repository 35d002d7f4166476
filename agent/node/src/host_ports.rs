//! `hostPort`s of the node's pods, told to whoever forwards the node's ports. A pod has them as long as it has an address and
//! has not ended.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use coracle_services::{HostPort, HostPorts, Protocol};
use k8s_openapi::api::core::v1::{ContainerPort, Pod, PodStatus};
use tokio::sync::watch;

/// The ports of all pods. Cheap to clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published(Arc<watch::Sender<HostPorts>>);

impl Published {
    pub(crate) fn follow(&self) -> watch::Receiver<HostPorts> {
        self.0.subscribe()
    }

    /// Follows a pod.
    pub(crate) fn set(&self, pod: &Pod, status: &PodStatus) {
        let ports = declared(pod).map(|declared| ports(&declared, status)).unwrap_or_default();
        let key = key(pod);
        // Nearly every pod has none and had none.
        if ports.is_empty() && !self.0.borrow().contains_key(&key) {
            return;
        }
        self.0.send_if_modified(|all| {
            if ports.is_empty() {
                return all.remove(&key).is_some();
            }
            let same = all.get(&key) == Some(&ports);
            all.insert(key, ports);
            !same
        });
    }

    /// Forgets a pod.
    pub(crate) fn remove(&self, pod: &Pod) {
        self.0.send_if_modified(|all| all.remove(&key(pod)).is_some());
    }
}

/// The ports that a pod wants of its node; none where its network is the node's.
fn declared(pod: &Pod) -> Option<Vec<&ContainerPort>> {
    let spec = pod.spec.as_ref().filter(|spec| spec.host_network != Some(true))?;
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let wanted: Vec<_> = ports.filter(|port| port.host_port.is_some_and(|number| number > 0)).collect();
    (!wanted.is_empty()).then_some(wanted)
}

fn ports(declared: &[&ContainerPort], status: &PodStatus) -> BTreeSet<HostPort> {
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let ip = status.pod_ip.as_ref().filter(|_| !ended).and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let Some(ip) = ip else { return BTreeSet::new() };
    let port = |declared: &&ContainerPort| {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let host_ip = declared.host_ip.as_deref().filter(|ip| !ip.is_empty());
        Some(HostPort {
            host_ip: host_ip.map_or(Some(any), |ip| ip.parse().ok())?,
            port: u16::try_from(declared.host_port?).ok()?,
            protocol: match declared.protocol.as_deref() {
                None | Some("" | "TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => return None,
            },
            backend: SocketAddrV4::new(ip, u16::try_from(declared.container_port).ok()?),
        })
    };
    declared.iter().filter_map(port).collect()
}

fn key(pod: &Pod) -> (String, String) {
    let meta = &pod.metadata;
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_pod_has_its_ports_from_its_address_to_its_end() {
        let pod = |extra: Value| -> Pod {
            let mut spec = json!({"containers": [{"name": "a", "ports": [
                {"containerPort": 8080, "hostPort": 9090},
                {"containerPort": 53, "hostPort": 5353, "protocol": "UDP", "hostIP": "127.0.0.1"},
                {"containerPort": 1},
                {"containerPort": 2, "hostPort": 2, "protocol": "SCTP"}]}]});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": spec})).unwrap()
        };
        let status = |phase: &str, ip: Option<&str>| PodStatus {
            phase: Some(phase.into()),
            pod_ip: ip.map(Into::into),
            ..PodStatus::default()
        };
        let (published, here) = (Published::default(), pod(json!({})));
        let mut follow = published.follow();
        let mut check = |pod: &Pod, status: PodStatus, expect: usize, told: bool| {
            published.set(pod, &status);
            assert_eq!(follow.has_changed().unwrap(), told, "{status:?}");
            let all = follow.borrow_and_update();
            assert_eq!(all.values().map(BTreeSet::len).sum::<usize>(), expect, "{status:?}");
        };
        check(&here, status("Pending", None), 0, false);
        check(&here, status("Running", Some("10.42.0.7")), 2, true);
        check(&here, status("Running", Some("10.42.0.7")), 2, false);
        check(&here, status("Failed", Some("10.42.0.7")), 0, true);
        check(&pod(json!({"hostNetwork": true})), status("Running", Some("192.0.2.1")), 0, false);
        check(&here, status("Running", Some("10.42.0.8")), 2, true);
        published.remove(&here);
        assert!(published.follow().borrow().is_empty());
    }
}
