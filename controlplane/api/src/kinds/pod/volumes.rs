//! The rules for a pod's volumes (`ValidateVolumes`): one source each, with what that source needs.

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaimSpec, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use super::containers::validate_pull_policy;
use super::env::{self, FILE_FIELDS, User};
use crate::kinds::fields::{list, text};
use crate::quantity::Amount;
use crate::validation::{
    Errors, Path, dns1123_label, dns1123_subdomain, json, validate_annotations, validate_label_selector,
    validate_labels,
};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The sources a volume has, by name in the order in which Kubernetes looks at them.
fn sources(v: &Volume) -> [(&'static str, bool); 30] {
    [
        ("emptyDir", v.empty_dir.is_some()),
        ("hostPath", v.host_path.is_some()),
        ("gitRepo", v.git_repo.is_some()),
        ("gcePersistentDisk", v.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", v.aws_elastic_block_store.is_some()),
        ("secret", v.secret.is_some()),
        ("nfs", v.nfs.is_some()),
        ("iscsi", v.iscsi.is_some()),
        ("glusterfs", v.glusterfs.is_some()),
        ("flocker", v.flocker.is_some()),
        ("persistentVolumeClaim", v.persistent_volume_claim.is_some()),
        ("rbd", v.rbd.is_some()),
        ("cinder", v.cinder.is_some()),
        ("cephFS", v.cephfs.is_some()),
        ("quobyte", v.quobyte.is_some()),
        ("downwarAPI", v.downward_api.is_some()),
        ("fc", v.fc.is_some()),
        ("flexVolume", v.flex_volume.is_some()),
        ("configMap", v.config_map.is_some()),
        ("azureFile", v.azure_file.is_some()),
        ("vsphereVolume", v.vsphere_volume.is_some()),
        ("photonPersistentDisk", v.photon_persistent_disk.is_some()),
        ("portworxVolume", v.portworx_volume.is_some()),
        ("azureDisk", v.azure_disk.is_some()),
        ("storageos", v.storageos.is_some()),
        ("projected", v.projected.is_some()),
        ("scaleIO", v.scale_io.is_some()),
        ("csi", v.csi.is_some()),
        ("ephemeral", v.ephemeral.is_some()),
        ("image", v.image.is_some()),
    ]
}

/// Whether a volume says where it comes from.
pub(super) fn has_source(volume: &Volume) -> bool {
    sources(volume).iter().any(|(_, set)| *set)
}

/// Reports what is wrong with the volumes and gives those with no fault, which mounts may name. `pod_name` is empty in a
/// template.
pub(super) fn validate_volumes<'a>(
    volumes: &'a [Volume],
    pod_name: &str,
    is_pod: bool,
    at: &Path<'_>,
    errors: &mut Errors,
) -> Vec<&'a Volume> {
    let mut good: Vec<&Volume> = Vec::with_capacity(volumes.len());
    for (i, volume) in volumes.iter().enumerate() {
        let at = at.index(i);
        let before = errors.len();
        validate_volume(volume, pod_name, is_pod, &at, errors);
        if volume.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.invalid_each(&at.child("name"), &volume.name, dns1123_label(&volume.name));
        }
        if good.iter().any(|v| v.name == volume.name) {
            errors.duplicate(&at.child("name"), &volume.name);
        }
        if errors.len() == before {
            good.push(volume);
        }
        if let (Some(claim), false) = (&volume.persistent_volume_claim, pod_name.is_empty()) {
            let made = |v: &Volume| v.ephemeral.is_some() && claim.claim_name == format!("{pod_name}-{}", v.name);
            if volumes.iter().any(made) {
                let detail = "must not reference a PVC that gets created for an ephemeral volume";
                errors.invalid(&at.child("persistentVolumeClaim").child("claimName"), &claim.claim_name, detail);
            }
        }
    }
    good
}

fn validate_volume(volume: &Volume, pod_name: &str, is_pod: bool, at: &Path<'_>, errors: &mut Errors) {
    let all = sources(volume);
    let mut set = all.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
    let Some(first) = set.next() else {
        errors.required(at, "must specify a volume type");
        return;
    };
    if !validate_usual(volume, first, pod_name, is_pod, at, errors) {
        validate_rare(volume, first, at, errors);
    }
    for other in set {
        errors.forbidden(&at.child(other), "may not specify more than 1 volume type");
    }
}

/// The sources this cluster mounts. False if the source is none of them.
fn validate_usual(
    volume: &Volume,
    first: &str,
    pod_name: &str,
    is_pod: bool,
    at: &Path<'_>,
    errors: &mut Errors,
) -> bool {
    let source_at = at.child(first);
    let at_source = &source_at;
    if let Some(empty) = &volume.empty_dir {
        if empty.size_limit.as_ref().is_some_and(|l| Amount::of(l).is_ok_and(Amount::is_negative)) {
            errors.forbidden(&at_source.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
        return true;
    }
    match first {
        "hostPath" => validate_host_path(volume, at_source, errors),
        "secret" => {
            let Some(secret) = &volume.secret else { return true };
            if text(&secret.secret_name).is_empty() {
                errors.required(&at_source.child("secretName"), "");
            }
            validate_mode("defaultMode", secret.default_mode, at_source, errors);
            validate_items(list(&secret.items), at_source, errors);
        }
        "configMap" => {
            let Some(map) = &volume.config_map else { return true };
            if map.name.is_empty() {
                errors.required(&at_source.child("name"), "");
            }
            validate_mode("defaultMode", map.default_mode, at_source, errors);
            validate_items(list(&map.items), at_source, errors);
        }
        "downwarAPI" => {
            let Some(downward) = &volume.downward_api else { return true };
            let at = at.child("downwardAPI");
            validate_mode("defaultMode", downward.default_mode, &at, errors);
            for file in list(&downward.items) {
                validate_file(file, &at, errors);
            }
        }
        "projected" => {
            if let Some(projected) = &volume.projected {
                validate_projected(projected, at_source, errors);
            }
        }
        "persistentVolumeClaim" => {
            if volume.persistent_volume_claim.as_ref().is_some_and(|c| c.claim_name.is_empty()) {
                errors.required(&at_source.child("claimName"), "");
            }
        }
        "nfs" => validate_nfs(volume, at_source, errors),
        "csi" => validate_csi(volume, at_source, errors),
        "ephemeral" => validate_ephemeral(volume, pod_name, at, errors),
        "image" => {
            let Some(image) = &volume.image else { return true };
            if is_pod && text(&image.reference).is_empty() {
                errors.required(&at_source.child("reference"), "");
            }
            validate_pull_policy(text(&image.pull_policy), &at_source.child("pullPolicy"), errors);
        }
        _ => return false,
    }
    true
}

fn validate_host_path(volume: &Volume, at: &Path<'_>, errors: &mut Errors) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let Some(host) = &volume.host_path else { return };
    if host.path.is_empty() {
        return errors.required(&at.child("path"), "");
    }
    validate_no_backsteps(&host.path, &at.child("path"), errors);
    let kind = text(&host.type_);
    if !TYPES.contains(&kind) {
        errors.not_supported(&at.child("type"), kind, &TYPES);
    }
}

fn validate_nfs(volume: &Volume, at: &Path<'_>, errors: &mut Errors) {
    let Some(nfs) = &volume.nfs else { return };
    if nfs.server.is_empty() {
        errors.required(&at.child("server"), "");
    }
    if nfs.path.is_empty() {
        errors.required(&at.child("path"), "");
    }
    if !nfs.path.starts_with('/') {
        errors.invalid(&at.child("path"), &nfs.path, "must be an absolute path");
    }
}

fn validate_csi(volume: &Volume, at: &Path<'_>, errors: &mut Errors) {
    let Some(csi) = &volume.csi else { return };
    let driver = &at.child("driver");
    if csi.driver.is_empty() {
        errors.required(driver, "");
    }
    if csi.driver.len() > 63 {
        errors.too_long(driver, 63);
    }
    errors.invalid_each(driver, &csi.driver, dns1123_subdomain(&csi.driver.to_lowercase()));
    if let Some(secret) = &csi.node_publish_secret_ref {
        if secret.name.is_empty() {
            errors.required(&at.child("nodePublishSecretRef").child("name"), "");
        } else {
            errors.invalid_each(&at.child("name"), &secret.name, dns1123_subdomain(&secret.name));
        }
    }
}

fn validate_ephemeral(volume: &Volume, pod_name: &str, volume_at: &Path<'_>, errors: &mut Errors) {
    let Some(ephemeral) = &volume.ephemeral else { return };
    let ephemeral_at = volume_at.child("ephemeral");
    let at = ephemeral_at.child("volumeClaimTemplate");
    let Some(template) = &ephemeral.volume_claim_template else {
        return errors.required(&at, "");
    };
    if let Some(meta) = &template.metadata {
        validate_annotations(
            &meta.annotations.clone().unwrap_or_default(),
            &at.child("metadata").child("annotations"),
            errors,
        );
        validate_labels(&meta.labels.clone().unwrap_or_default(), &at.child("metadata").child("labels"), errors);
    }
    validate_claim(&template.spec, &at.child("spec"), errors);
    if !pod_name.is_empty() && !volume.name.is_empty() {
        let claim = format!("{pod_name}-{}", volume.name);
        for detail in dns1123_subdomain(&claim) {
            errors.invalid(&volume_at.child("name"), &volume.name, format!("PVC name {claim:?}: {detail}"));
        }
    }
}

/// The claim a template makes.
fn validate_claim(spec: &PersistentVolumeClaimSpec, at: &Path<'_>, errors: &mut Errors) {
    const MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let modes = list(&spec.access_modes);
    if modes.is_empty() {
        errors.required(&at.child("accessModes"), "at least 1 access mode is required");
    }
    for mode in modes.iter().filter(|m| !MODES.contains(&m.as_str())) {
        errors.not_supported(&at.child("accessModes"), mode, &MODES);
    }
    let alone = |m: &&String| m.as_str() == "ReadWriteOncePod";
    if modes.iter().any(|m| alone(&m)) && !modes.iter().all(|m| alone(&m)) {
        errors.forbidden(&at.child("accessModes"), "may not use ReadWriteOncePod with other access modes");
    }
    if let Some(selector) = &spec.selector {
        validate_label_selector(selector, &at.child("selector"), errors);
    }
    let storage = spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage"));
    let resources = at.child("resources");
    match storage.map(|s| (s, Amount::of(s))) {
        None => errors.required(&resources.key("storage"), ""),
        Some((_, Ok(amount))) if amount > Amount::ZERO => {}
        Some((text, _)) => errors.invalid(&resources.key("storage"), &text.0, "must be greater than zero"),
    }
    let class = text(&spec.storage_class_name);
    if !class.is_empty() {
        errors.invalid_each(&at.child("storageClassName"), class, dns1123_subdomain(class));
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !matches!(*m, "Block" | "Filesystem")) {
        errors.not_supported(&at.child("volumeMode"), mode, &["Block", "Filesystem"]);
    }
}

fn validate_mode(field: &str, mode: Option<i32>, at: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.invalid(&at.child(field), mode, MODE);
    }
}

fn validate_items(items: &[KeyToPath], at: &Path<'_>, errors: &mut Errors) {
    let at = at.child("items");
    for (i, item) in items.iter().enumerate() {
        let at = at.index(i);
        if item.key.is_empty() {
            errors.required(&at.child("key"), "");
        }
        if item.path.is_empty() {
            errors.required(&at.child("path"), "");
        }
        validate_local_path(&item.path, &at.child("path"), errors);
        validate_mode("mode", item.mode, &at, errors);
    }
}

fn validate_file(file: &DownwardAPIVolumeFile, at: &Path<'_>, errors: &mut Errors) {
    if file.path.is_empty() {
        errors.required(&at.child("path"), "");
    }
    validate_local_path(&file.path, &at.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::validate_field_ref(field, &FILE_FIELDS, &at.child("fieldRef"), errors);
            if other.is_some() {
                errors.invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => {
            env::validate_resource_ref(resource, User::File, &at.child("resourceFieldRef"), errors);
        }
        (None, None) => errors.required(at, "one of fieldRef and resourceFieldRef is required"),
    }
    validate_mode("mode", file.mode, at, errors);
}

fn validate_projected(projected: &ProjectedVolumeSource, at: &Path<'_>, errors: &mut Errors) {
    validate_mode("defaultMode", projected.default_mode, at, errors);
    let mut paths: Vec<&str> = Vec::new();
    for (i, source) in list(&projected.sources).iter().enumerate() {
        validate_projection(source, &mut paths, at, &at.child("sources").index(i), errors);
    }
}

fn validate_projection<'a>(
    source: &'a VolumeProjection,
    paths: &mut Vec<&'a str>,
    at: &Path<'_>,
    source_at: &Path<'_>,
    errors: &mut Errors,
) {
    let mut take = |path: &'a str, value: &str, errors: &mut Errors| {
        if path.is_empty() {
        } else if paths.contains(&path) {
            errors.invalid(at, value, "conflicting duplicate paths");
        } else {
            paths.push(path);
        }
    };
    let mut count = 0;
    let secret = source.secret.as_ref().map(|s| ("secret", &s.name, &s.items));
    let map = source.config_map.as_ref().map(|m| ("configMap", &m.name, &m.items));
    for (field, name, items) in [secret, map].into_iter().flatten() {
        count += 1;
        if name.is_empty() {
            errors.required(&source_at.child(field).child("name"), "");
        }
        validate_items(list(items), &source_at.child(field), errors);
        for item in list(items) {
            take(&item.path, name, errors);
        }
    }
    if let Some(downward) = &source.downward_api {
        count += 1;
        for file in list(&downward.items) {
            validate_file(file, &source_at.child("downwardAPI"), errors);
            take(&file.path, &file.path, errors);
        }
    }
    if let Some(token) = &source.service_account_token {
        count += 1;
        validate_token(token, at, &source_at.child("serviceAccountToken"), errors);
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        count += 1;
        validate_bundle(bundle, &source_at.child("clusterTrustBundle"), errors);
        take(&bundle.path, &bundle.path, errors);
    }
    if let Some(certificate) = &source.pod_certificate {
        count += 1;
        let at = source_at.child("podCertificate");
        for path in [&certificate.credential_bundle_path, &certificate.key_path, &certificate.certificate_chain_path] {
            let path = text(path);
            validate_local_path(path, &at, errors);
            take(path, path, errors);
        }
    }
    if count > 1 {
        errors.forbidden(source_at, "may not specify more than 1 volume type per source");
    }
}

fn validate_token(token: &ServiceAccountTokenProjection, at: &Path<'_>, token_at: &Path<'_>, errors: &mut Errors) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let seconds_at = token_at.child("expirationSeconds");
    if seconds < 600 {
        errors.invalid(&seconds_at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > 1 << 32 {
        errors.invalid(&seconds_at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    if token.path.is_empty() {
        errors.required(&at.child("path"), "");
    } else {
        validate_local_path(&token.path, &at.child("path"), errors);
    }
}

fn validate_bundle(bundle: &ClusterTrustBundleProjection, at: &Path<'_>, errors: &mut Errors) {
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => errors.invalid(at, json(bundle), "only one of name and signerName may be used"),
        (None, None) => errors.required(at, "either name or signerName must be specified"),
        (Some(name), None) if name.is_empty() => errors.required(&at.child("name"), "must be a valid object name"),
        (None, Some(name)) if name.is_empty() => {
            errors.required(&at.child("signerName"), "must be a valid signer name");
        }
        _ => {}
    }
    if bundle.path.is_empty() {
        errors.required(&at.child("path"), "");
    }
    validate_local_path(&bundle.path, &at.child("path"), errors);
}

/// Sources that other clusters mount; they are kept and checked for what they cannot be without.
fn validate_rare(v: &Volume, first: &str, at: &Path<'_>, errors: &mut Errors) {
    if let ("gitRepo", Some(git)) = (first, &v.git_repo) {
        validate_descending_path(text(&git.directory), &at.child(first).child("directory"), errors);
    }
    // Two sources are named otherwise in paths than in the object.
    let shown = match first {
        "gcePersistentDisk" => "persistentDisk",
        "cephFS" => "cephfs",
        other => other,
    };
    for (field, value) in needed_by_disks(v, first).into_iter().chain(needed_by_shares(v, first)) {
        if value.is_empty() {
            errors.required(&at.child(shown).child(field), "");
        }
    }
}

/// Fields that must not be empty, of sources that are disks.
fn needed_by_disks<'a>(v: &'a Volume, first: &str) -> Vec<(&'static str, &'a str)> {
    match first {
        "gcePersistentDisk" => v.gce_persistent_disk.iter().map(|d| ("pdName", &*d.pd_name)).collect(),
        "awsElasticBlockStore" => v.aws_elastic_block_store.iter().map(|d| ("volumeID", &*d.volume_id)).collect(),
        "cinder" => v.cinder.iter().map(|c| ("volumeID", &*c.volume_id)).collect(),
        "vsphereVolume" => v.vsphere_volume.iter().map(|d| ("volumePath", &*d.volume_path)).collect(),
        "photonPersistentDisk" => v.photon_persistent_disk.iter().map(|d| ("pdID", &*d.pd_id)).collect(),
        "portworxVolume" => v.portworx_volume.iter().map(|d| ("volumeID", &*d.volume_id)).collect(),
        "flexVolume" => v.flex_volume.iter().map(|f| ("driver", &*f.driver)).collect(),
        "azureDisk" => {
            v.azure_disk.iter().flat_map(|d| [("diskName", &*d.disk_name), ("diskURI", &*d.disk_uri)]).collect()
        }
        "iscsi" => v.iscsi.iter().flat_map(|i| [("targetPortal", &*i.target_portal), ("iqn", &*i.iqn)]).collect(),
        "scaleIO" => v
            .scale_io
            .iter()
            .flat_map(|s| [("gateway", &*s.gateway), ("system", &*s.system), ("volumeName", text(&s.volume_name))])
            .collect(),
        _ => Vec::new(),
    }
}

/// Fields that must not be empty, of sources that are shared over a network.
fn needed_by_shares<'a>(v: &'a Volume, first: &str) -> Vec<(&'static str, &'a str)> {
    let one = |list: &'a [String]| list.first().map_or("", String::as_str);
    match first {
        "gitRepo" => v.git_repo.iter().map(|g| ("repository", &*g.repository)).collect(),
        "cephFS" => v.cephfs.iter().map(|c| ("monitors", one(&c.monitors))).collect(),
        "rbd" => v.rbd.iter().flat_map(|r| [("monitors", one(&r.monitors)), ("image", &*r.image)]).collect(),
        "glusterfs" => v.glusterfs.iter().flat_map(|g| [("endpoints", &*g.endpoints), ("path", &*g.path)]).collect(),
        "azureFile" => {
            v.azure_file.iter().flat_map(|f| [("secretName", &*f.secret_name), ("shareName", &*f.share_name)]).collect()
        }
        _ => Vec::new(),
    }
}

/// A path relative to a volume, which does not leave it.
pub(super) fn validate_descending_path(path: &str, at: &Path<'_>, errors: &mut Errors) {
    if path.starts_with('/') {
        errors.invalid(at, path, "must be a relative path");
    }
    validate_no_backsteps(path, at, errors);
}

/// A path with no `..` in it.
pub(super) fn validate_no_backsteps(path: &str, at: &Path<'_>, errors: &mut Errors) {
    if path.split('/').any(|part| part == "..") {
        errors.invalid(at, path, "must not contain '..'");
    }
}

/// A relative path whose names do not begin with what the node keeps for itself.
pub(super) fn validate_local_path(path: &str, at: &Path<'_>, errors: &mut Errors) {
    validate_descending_path(path, at, errors);
    if path.starts_with("..") && path != ".." && !path.starts_with("../") {
        errors.invalid(at, path, "must not start with '..'");
    }
}
