//! The rules for security contexts, of the pod and of its containers.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
    WindowsSecurityContextOptions,
};

use super::spec::Context;
use super::volumes::validate_descending_path;
use crate::kinds::fields::{is_true, list};
use crate::validation::{Errors, Path, dns1123_subdomain, json, validate_id};

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
/// PATH_MAX less the final zero.
const APP_ARMOR_PROFILE_MAX: usize = 4095;
const SYSCTL_MAX: usize = 253;
const GMSA_SPEC_MAX_KIB: usize = 64;

pub(super) fn validate_pod(context: &Context<'_>, security: &PodSecurityContext, at: &Path<'_>, errors: &mut Errors) {
    let spec = context.spec;
    for (field, id) in
        [("fsGroup", security.fs_group), ("runAsUser", security.run_as_user), ("runAsGroup", security.run_as_group)]
    {
        if let Some(id) = id {
            validate_id(id, &at.child(field), errors);
        }
    }
    for (i, id) in list(&security.supplemental_groups).iter().enumerate() {
        validate_id(*id, &at.child("supplementalGroups").index(i), errors);
    }
    if is_true(spec.share_process_namespace) && is_true(spec.host_pid) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&at.child("shareProcessNamespace"), true, detail);
    }
    validate_sysctls(spec, list(&security.sysctls), &at.child("sysctls"), errors);
    for (field, value, known) in [
        ("fsGroupChangePolicy", &security.fs_group_change_policy, ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &security.supplemental_groups_policy, ["Merge", "Strict"]),
        ("seLinuxChangePolicy", &security.se_linux_change_policy, ["MountOption", "Recursive"]),
    ] {
        if let Some(value) = value.as_deref().filter(|v| !known.contains(v)) {
            errors.not_supported(&at.child(field), value, &known);
        }
    }
    if let Some(seccomp) = &security.seccomp_profile {
        validate_seccomp(seccomp, &at.child("seccompProfile"), errors);
    }
    if let Some(windows) = &security.windows_options {
        validate_windows_options(windows, &at.child("windowsOptions"), errors);
    }
    if let Some(profile) = &security.app_armor_profile {
        validate_app_armor(profile, &at.child("appArmorProfile"), errors);
    }
}

fn validate_sysctls(spec: &PodSpec, sysctls: &[Sysctl], at: &Path<'_>, errors: &mut Errors) {
    for (i, sysctl) in sysctls.iter().enumerate() {
        let item_at = at.index(i);
        let at = item_at.child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&at, "");
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(is_sysctl_segment) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.invalid(&at, name, detail);
        } else if sysctls[..i].iter().any(|s| s.name == name) {
            errors.duplicate(&at, name);
        }
        let dotted = name.replace('/', ".");
        if is_true(spec.host_network) && dotted.starts_with("net.") {
            errors.invalid(&at, name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = dotted.starts_with("fs.mqueue.")
            || matches!(dotted.as_str(), "kernel.sem" | "kernel.shm_rmid_forced")
            || dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg");
        if is_true(spec.host_ipc) && ipc {
            errors.invalid(&at, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl_segment(segment: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    bytes.first().is_some_and(|b| alnum(*b))
        && bytes.last().is_some_and(|b| alnum(*b))
        && bytes.iter().all(|b| alnum(*b) || matches!(b, b'-' | b'_'))
}

pub(super) fn validate_container(
    context: &Context<'_>,
    security: &SecurityContext,
    at: &Path<'_>,
    errors: &mut Errors,
) {
    for (field, id) in [("runAsUser", security.run_as_user), ("runAsGroup", security.run_as_group)] {
        if let Some(id) = id {
            validate_id(id, &at.child(field), errors);
        }
    }
    match security.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") => {
            if context.spec.host_users != Some(false) {
                errors.invalid(&at.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
            }
        }
        Some(other) => errors.not_supported(&at.child("procMount"), other, &["Default", "Unmasked"]),
    }
    if let Some(seccomp) = &security.seccomp_profile {
        validate_seccomp(seccomp, &at.child("seccompProfile"), errors);
    }
    if security.allow_privilege_escalation == Some(false) {
        if is_true(security.privileged) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(at, json(security), detail);
        }
        let added = security.capabilities.as_ref().map(|c| list(&c.add)).unwrap_or_default();
        if added.iter().any(|c| c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(at, json(security), detail);
        }
    }
    if let Some(windows) = &security.windows_options {
        validate_windows_options(windows, &at.child("windowsOptions"), errors);
    }
    if let Some(profile) = &security.app_armor_profile {
        validate_app_armor(profile, &at.child("appArmorProfile"), errors);
    }
}

fn validate_seccomp(profile: &SeccompProfile, at: &Path<'_>, errors: &mut Errors) {
    let kind = profile.type_.as_str();
    if kind.is_empty() {
        errors.required(&at.child("type"), "type is required when seccompProfile is set");
    } else if !PROFILES.contains(&kind) {
        errors.not_supported(&at.child("type"), kind, &PROFILES);
    }
    let at_profile = at.child("localhostProfile");
    match (kind, &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&at_profile, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(path)) => validate_descending_path(path, &at_profile, errors),
        (_, Some(_)) => {
            errors.invalid(&at_profile, json(profile), "can only be set when seccomp type is Localhost");
        }
        _ => {}
    }
}

fn validate_app_armor(profile: &AppArmorProfile, at: &Path<'_>, errors: &mut Errors) {
    const UNSET: &str = "must be set when AppArmor type is Localhost";
    let local_at = at.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&local_at, UNSET),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&local_at, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                errors.required(&local_at, UNSET);
            }
            if name.len() > APP_ARMOR_PROFILE_MAX {
                errors.too_long(&local_at, APP_ARMOR_PROFILE_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.invalid(&local_at, name, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&at.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errors.not_supported(&at.child("type"), other, &PROFILES),
    }
}

fn validate_windows_options(windows: &WindowsSecurityContextOptions, at: &Path<'_>, errors: &mut Errors) {
    if let Some(name) = &windows.gmsa_credential_spec_name {
        errors.invalid_each(&at.child("gmsaCredentialSpecName"), name, dns1123_subdomain(name));
    }
    if let Some(gmsa) = &windows.gmsa_credential_spec {
        let at = at.child("gmsaCredentialSpec");
        if gmsa.is_empty() {
            errors.invalid(&at, gmsa, "gmsaCredentialSpec cannot be an empty string");
        } else if gmsa.len() > GMSA_SPEC_MAX_KIB * 1024 {
            errors.invalid(&at, gmsa, format!("gmsaCredentialSpec size must be under {GMSA_SPEC_MAX_KIB} KiB"));
        }
    }
    if let Some(user) = &windows.run_as_user_name {
        let at = at.child("runAsUserName");
        if user.is_empty() {
            errors.invalid(&at, user, "runAsUserName cannot be an empty string");
        } else if user.chars().any(char::is_control) {
            errors.invalid(&at, user, "runAsUserName cannot contain control characters");
        } else if user.matches('\\').count() > 1 {
            errors.invalid(&at, user, "runAsUserName cannot contain more than one backslash");
        }
    }
}

/// What a pod for Linux, or one for Windows, cannot ask for.
pub(super) fn validate_os(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "" => errors.required(&at.child("os").child("name"), "cannot be empty"),
        "linux" => {
            let security = spec.security_context.as_ref();
            if security.is_some_and(|s| s.windows_options.is_some()) {
                let at = at.child("securityContext");
                errors.forbidden(&at.child("windowsOptions"), "windows options cannot be set for a linux pod");
            }
            for (field, containers) in
                [("initContainers", list(&spec.init_containers)), ("containers", &spec.containers)]
            {
                for (i, container) in containers.iter().enumerate() {
                    if container.security_context.as_ref().is_some_and(|s| s.windows_options.is_some()) {
                        let list_at = at.child(field);
                        let at = list_at.index(i);
                        let why = "windows options cannot be set for a linux pod";
                        errors.forbidden(&at.child("securityContext").child("windowsOptions"), why);
                    }
                }
            }
        }
        "windows" => validate_windows(spec, at, errors),
        other => errors.not_supported(&at.child("os"), other, &["linux", "windows"]),
    }
}

fn validate_windows(spec: &PodSpec, at: &Path<'_>, errors: &mut Errors) {
    const WHY: &str = "cannot be set for a windows pod";
    for (field, set) in [
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", is_true(spec.host_pid)),
        ("hostIPC", is_true(spec.host_ipc)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ] {
        if set {
            errors.forbidden(&at.child(field), WHY);
        }
    }
    if let Some(s) = &spec.security_context {
        for (field, set) in [
            ("appArmorProfile", s.app_armor_profile.is_some()),
            ("seLinuxOptions", s.se_linux_options.is_some()),
            ("seccompProfile", s.seccomp_profile.is_some()),
            ("fsGroup", s.fs_group.is_some()),
            ("fsGroupChangePolicy", s.fs_group_change_policy.is_some()),
            ("sysctls", !list(&s.sysctls).is_empty()),
            ("runAsUser", s.run_as_user.is_some()),
            ("runAsGroup", s.run_as_group.is_some()),
            ("supplementalGroups", s.supplemental_groups.is_some()),
            ("supplementalGroupsPolicy", s.supplemental_groups_policy.is_some()),
            ("seLinuxChangePolicy", s.se_linux_change_policy.is_some()),
        ] {
            if set {
                errors.forbidden(&at.child("securityContext").child(field), WHY);
            }
        }
    }
    for (list_field, containers) in [("initContainers", list(&spec.init_containers)), ("containers", &spec.containers)]
    {
        for (i, container) in containers.iter().enumerate() {
            let Some(s) = &container.security_context else { continue };
            for (field, set) in [
                ("appArmorProfile", s.app_armor_profile.is_some()),
                ("seLinuxOptions", s.se_linux_options.is_some()),
                ("seccompProfile", s.seccomp_profile.is_some()),
                ("capabilities", s.capabilities.is_some()),
                ("readOnlyRootFilesystem", s.read_only_root_filesystem.is_some()),
                ("privileged", s.privileged.is_some()),
                ("allowPrivilegeEscalation", s.allow_privilege_escalation.is_some()),
                ("procMount", s.proc_mount.is_some()),
                ("runAsUser", s.run_as_user.is_some()),
                ("runAsGroup", s.run_as_group.is_some()),
            ] {
                if set {
                    errors.forbidden(&at.child(list_field).index(i).child("securityContext").child(field), WHY);
                }
            }
        }
    }
}
