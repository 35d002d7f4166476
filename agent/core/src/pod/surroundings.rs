//! What a pod's specification says of its sandbox, mounts and security, in the words of the port to runtimes.

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::{PodMachine, Surround, launch::sub_path};
use crate::workload::{
    Access, HostNetwork, Mount, NamespaceSpec, Processes, Profile, Propagation, SandboxSpec, SecuritySpec,
};

impl PodMachine {
    pub(super) fn sandbox_spec(&self, around: Surround<'_>) -> SandboxSpec {
        let (meta, spec) = (&self.pod.metadata, self.spec());
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        let host_network = spec.host_network == Some(true);
        let aliases = spec.host_aliases.iter().flatten();
        let (hostname, full_hostname) = self.hostname(&name, &namespace, around);
        let pod = spec.security_context.clone().unwrap_or_default();
        let processes = match (spec.host_pid, spec.share_process_namespace) {
            (Some(true), _) => Processes::Node,
            (_, Some(true)) => Processes::Pod,
            _ => Processes::Container,
        };
        SandboxSpec {
            pod: self.uid.clone(),
            attempt: self.sandbox_attempt,
            hostname,
            full_hostname,
            ips: self.ips.clone(),
            host_network: if host_network { HostNetwork::Yes } else { HostNetwork::No },
            namespaces: NamespaceSpec { processes, host_ipc: spec.host_ipc == Some(true) },
            sysctls: pod.sysctls.into_iter().flatten().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
            has_privileged: (0..self.slots.len()).any(|index| {
                let own = self.container(index).security_context.as_ref();
                own.is_some_and(|own| own.privileged == Some(true))
            }),
            dns: self.dns(&namespace, around),
            host_aliases: aliases
                .filter_map(|alias| Some((alias.ip.parse().ok()?, alias.hostnames.clone().unwrap_or_default())))
                .collect(),
            log_dir: around.node.log_dir.join(format!("{namespace}_{name}_{}", self.uid)),
            handler: spec.runtime_class_name.clone(),
            images: (0..self.slots.len()).filter_map(|index| self.container(index).image.clone()).collect(),
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            service_account: spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()),
            namespace,
            name,
        }
    }

    /// The pod's name inside, and its full name when it has a `subdomain` (`GeneratePodHostNameAndDomain` of the kubelet).
    fn hostname(&self, name: &str, namespace: &str, around: Surround<'_>) -> (String, Option<String>) {
        let spec = self.spec();
        if spec.host_network == Some(true) {
            return (around.node.name.clone(), None);
        }
        if let Some(hostname) = &spec.hostname_override {
            return (hostname.clone(), None);
        }
        // A host name has at most 63 characters and does not end in a dash or dot.
        let short = || name.chars().take(63).collect::<String>().trim_end_matches(['-', '.']).to_owned();
        let hostname = spec.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(short);
        let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
        let domain = &around.node.cluster_domain;
        let full = subdomain.map(|subdomain| format!("{hostname}.{subdomain}.{namespace}.svc.{domain}"));
        match full {
            Some(full) if spec.set_hostname_as_fqdn == Some(true) => (full.clone(), Some(full)),
            full => (hostname, full),
        }
    }

    pub(super) fn mount_of(
        &self,
        mount: &VolumeMount,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Mount, String> {
        let base = self
            .volumes
            .get(&mount.name)
            .ok_or_else(|| format!("cannot find volume {:?} to mount into container", mount.name))?;
        let host_path = match sub_path(mount, lookup)? {
            Some(path) => base.join(path),
            None => base.clone(),
        };
        let access = if mount.read_only == Some(true) || self.is_generated(&mount.name) {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::None,
        };
        let recursive_read_only = mount.recursive_read_only.as_deref() == Some("Enabled");
        let container_path = mount.mount_path.clone();
        Ok(Mount { host_path, container_path, access, propagation, recursive_read_only })
    }

    pub(super) fn security(&self, container: &Container) -> SecuritySpec {
        let pod = self.spec().security_context.clone().unwrap_or_default();
        let own = container.security_context.clone().unwrap_or_default();
        let capabilities = own.capabilities.unwrap_or_default();
        SecuritySpec {
            user: own.run_as_user.or(pod.run_as_user),
            group: own.run_as_group.or(pod.run_as_group),
            supplemental_groups: pod.supplemental_groups.into_iter().flatten().chain(pod.fs_group).collect(),
            must_not_be_root: own.run_as_non_root.or(pod.run_as_non_root) == Some(true),
            read_only_root: own.read_only_root_filesystem == Some(true),
            privileged: own.privileged == Some(true),
            no_new_privileges: own.allow_privilege_escalation == Some(false),
            add_capabilities: capabilities.add.unwrap_or_default(),
            drop_capabilities: capabilities.drop.unwrap_or_default(),
            seccomp: own
                .seccomp_profile
                .or(pod.seccomp_profile)
                .and_then(|profile| self::profile(&profile.type_, profile.localhost_profile)),
            app_armor: own
                .app_armor_profile
                .or(pod.app_armor_profile)
                .and_then(|profile| self::profile(&profile.type_, profile.localhost_profile)),
            unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        }
    }
}

fn profile(kind: &str, localhost: Option<String>) -> Option<Profile> {
    match kind {
        "RuntimeDefault" => Some(Profile::RuntimeDefault),
        "Unconfined" => Some(Profile::Unconfined),
        "Localhost" => localhost.map(Profile::Localhost),
        _ => None,
    }
}
