//! Images for containers, built here of Debian's static busybox: one layer, a configuration, a manifest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{Namespace, run};

/// Where Debian's package busybox-static has it.
const BUSYBOX: &str = "/bin/busybox";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// The same of a component.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM_LAYER: &str = "application/wasm";

/// An image that can be pushed to a registry or written as an archive.
#[derive(Debug, Clone)]
pub struct OciImage {
    dir: PathBuf,
    layer: PathBuf,
    layer_digest: String,
    config: Value,
    /// Media types of configuration and layer.
    kinds: [&'static str; 2],
}

impl OciImage {
    /// Busybox with all its applets; `dir` is where files are put.
    ///
    /// # Errors
    /// The package busybox-static is not installed.
    pub fn busybox(dir: &Path) -> Result<Self> {
        let config = json!({
            "Env": ["PATH=/bin", "FROM_IMAGE=yes"],
            "Cmd": ["sh"],
            "WorkingDir": "/",
        });
        Self::build(dir, &config)
    }

    /// What a sandbox is made of: it does nothing.
    ///
    /// # Errors
    /// The package busybox-static is not installed.
    pub fn pause(dir: &Path) -> Result<Self> {
        Self::build(dir, &json!({"Env": ["PATH=/bin"], "Entrypoint": ["/bin/busybox", "sleep", "2147483647"]}))
    }

    /// A component as an image.
    ///
    /// # Errors
    /// There is no such file.
    pub fn component(dir: &Path, file: &Path) -> Result<Self> {
        let layer_digest = digest(file)?;
        let config = json!({
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [layer_digest],
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        });
        let (dir, layer) = (dir.to_owned(), file.to_owned());
        Ok(Self { dir, layer, layer_digest, config, kinds: [WASM_CONFIG, WASM_LAYER] })
    }

    /// The same files under another configuration (`User`, `Entrypoint`, …).
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn with(&self, changes: &Value) -> Result<Self> {
        let mut config = self.config["config"].clone();
        for (key, value) in changes.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        Self::build(&self.dir, &config)
    }

    fn build(dir: &Path, run_config: &Value) -> Result<Self> {
        let layer = dir.join("busybox.tar");
        if !layer.exists() {
            pack(&root(dir)?, &layer)?;
        }
        let layer_digest = digest(&layer)?;
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": run_config,
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        });
        Ok(Self { dir: dir.to_owned(), layer, layer_digest, config, kinds: [CONFIG, LAYER] })
    }

    /// Its configuration and manifest as files, with their digests.
    fn documents(&self) -> Result<[(PathBuf, String); 2]> {
        let folder = tempfile::tempdir_in(&self.dir)?.keep();
        let config = folder.join("config.json");
        fs::write(&config, self.config.to_string())?;
        let config_digest = digest(&config)?;
        let manifest = folder.join("manifest.json");
        let [config_kind, layer_kind] = self.kinds;
        let text = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": config_kind, "digest": config_digest, "size": fs::metadata(&config)?.len()},
            "layers": [{"mediaType": layer_kind, "digest": self.layer_digest, "size": fs::metadata(&self.layer)?.len()}],
        });
        fs::write(&manifest, text.to_string())?;
        let manifest_digest = digest(&manifest)?;
        Ok([(config, config_digest), (manifest, manifest_digest)])
    }

    /// Puts it into the registry of a repository's name, `HOST:PORT/PATH`.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn push(&self, namespace: &Namespace, repository: &str, tag: &str) -> Result<()> {
        let (host, path) = repository.split_once('/').context("a repository is HOST/PATH")?;
        let base = format!("http://{host}/v2/{path}");
        let [(config, config_digest), (manifest, _)] = self.documents()?;
        for (file, digest) in [(&self.layer, &self.layer_digest), (&config, &config_digest)] {
            let begun = namespace.exec("curl", &["-sSf", "-i", "-X", "POST", &format!("{base}/blobs/uploads/")])?;
            let location = begun.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
            });
            let location = location.context("an upload has no place")?;
            let mark = if location.contains('?') { '&' } else { '?' };
            let url = format!("{location}{mark}digest={digest}");
            let kind = "Content-Type: application/octet-stream";
            namespace.exec("curl", &["-sSf", "-X", "PUT", "-H", kind, "-T", &file.display().to_string(), &url])?;
        }
        let (kind, data) = (format!("Content-Type: {MANIFEST}"), format!("@{}", manifest.display()));
        let url = format!("{base}/manifests/{tag}");
        namespace.exec("curl", &["-sSf", "-X", "PUT", "-H", &kind, "--data-binary", &data, &url])?;
        Ok(())
    }

    /// An archive in the OCI layout that holds it under a name.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn archive(&self, name: &str) -> Result<PathBuf> {
        self.archive_of(&[name])
    }

    /// The same under several names.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn archive_of(&self, names: &[&str]) -> Result<PathBuf> {
        let folder = tempfile::tempdir_in(&self.dir)?.keep();
        let blobs = folder.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        let [(config, config_digest), (manifest, manifest_digest)] = self.documents()?;
        let files = [(&self.layer, &self.layer_digest), (&config, &config_digest), (&manifest, &manifest_digest)];
        for (file, digest) in files {
            fs::copy(file, blobs.join(digest.trim_start_matches("sha256:")))?;
        }
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let size = fs::metadata(&manifest)?.len();
        let entry = |name: &&str| {
            json!({
                "mediaType": MANIFEST,
                "digest": manifest_digest,
                "size": size,
                "annotations": {"io.containerd.image.name": name},
            })
        };
        let entries: Vec<Value> = names.iter().map(entry).collect();
        fs::write(folder.join("index.json"), json!({"schemaVersion": 2, "manifests": entries}).to_string())?;
        let archive = folder.with_extension("tar");
        pack(&folder, &archive)?;
        Ok(archive)
    }

    /// What `docker save` writes of it under some names, compressed.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn docker_archive(&self, names: &[&str]) -> Result<PathBuf> {
        let folder = tempfile::tempdir_in(&self.dir)?.keep();
        fs::create_dir_all(folder.join("layers"))?;
        fs::copy(&self.layer, folder.join("layers/first.tar"))?;
        // A layer that is in two images is written once, and linked.
        symlink("first.tar", folder.join("layers/again.tar"))?;
        fs::write(folder.join("config.json"), self.config.to_string())?;
        let saved = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layers/again.tar"]}]);
        fs::write(folder.join("manifest.json"), saved.to_string())?;
        let archive = folder.with_extension("tar");
        pack(&folder, &archive)?;
        let mut zip = Command::new("gzip");
        zip.arg("-1").arg(&archive);
        run(zip, None)?.ok()?;
        Ok(archive.with_extension("tar.gz"))
    }
}

/// A root file system of busybox.
fn root(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("busybox");
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "home/user"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let busybox = Path::new(BUSYBOX);
    ensure!(busybox.exists(), "{BUSYBOX} is missing: apt-get install busybox-static");
    fs::copy(busybox, root.join("bin/busybox"))?;
    let mut list = Command::new(busybox);
    list.arg("--list");
    for applet in run(list, None)?.ok()?.lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")?;
    Ok(root)
}

fn pack(folder: &Path, to: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-C"]).arg(folder).arg("-cf").arg(to).arg(".");
    run(tar, None)?.ok().map(drop)
}

fn digest(file: &Path) -> Result<String> {
    let mut sum = Command::new("sha256sum");
    sum.arg(file);
    let line = run(sum, None)?.ok()?;
    Ok(format!("sha256:{}", line.split_whitespace().next().context("sha256sum says nothing")?))
}
