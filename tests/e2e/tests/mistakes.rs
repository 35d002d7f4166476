//! What goes wrong around the program is told in clear words that say what to do.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, Tmpfs, eventually};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn wrong_flags_and_taken_places_get_clear_words() -> Result<()> {
    let mut cluster = Cluster::start()?;
    // A second server on the same data directory, on another port.
    let second = cluster.coracle_run(&["server", "--port", "7443"])?.fails()?;
    ensure!(second.contains("in use by another process"), "{second}");
    // The same port, another directory.
    let dir = tempfile::tempdir()?;
    let elsewhere = |words: &[&str]| {
        let mut command = cluster.namespace().command(&Cluster::program()?.display().to_string());
        command.arg("--data-dir").arg(dir.path().join("data")).args(words);
        coracle_e2e::run(command, None)?.fails()
    };
    let other = elsewhere(&["server"])?;
    ensure!(other.contains("port 6443 is in use") && other.contains("--port"), "{other}");
    for (words, expect) in [
        (&["server", "--no-such-flag"][..], "--no-such-flag"),
        (&["server", "--port", "70000"], "70000"),
        (&["server", "--bind", "nowhere"], "nowhere"),
        (&["server", "--eviction-hard", "disk<5%"], "unsupported eviction signal disk"),
        (&["server", "--import", "hello"], "NAME=FILE"),
        (&["server", "--import", "hello:v1=/no/such/file"], "cannot open /no/such/file"),
        (&["server", "--apply", "/no/such/file"], "the path \"/no/such/file\" does not exist"),
        (&["server", "--no-node", "--node-name", "x"], "--no-node"),
        (&["nonsense"], "unrecognized subcommand 'nonsense'"),
        (&["get", "pods"], "coracle server"),
        (&["image", "list"], "no agent runs here"),
    ] {
        let said = elsewhere(words)?;
        ensure!(said.contains(expect), "{words:?}: {said}");
        ensure!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{words:?}: {said}");
    }
    // A directory that is a file.
    let file = dir.path().join("file");
    std::fs::write(&file, "")?;
    let mut command = cluster.namespace().command(&Cluster::program()?.display().to_string());
    command.arg("--data-dir").arg(&file).args(["server", "--port", "7443"]);
    let said = coracle_e2e::run(command, None)?.fails()?;
    ensure!(said.contains(&file.display().to_string()), "{said}");
    cluster.stop()
}

#[test]
fn images_that_are_none_get_clear_words() -> Result<()> {
    let cluster = Cluster::start()?;
    let wasm = "--overrides={\"spec\":{\"runtimeClassName\":\"wasm\"}}";
    cluster.kubectl(&["run", "lost", "--image=127.0.0.1:1/none:v1", wasm])?;
    cluster.kubectl(&["run", "never", "--image=nobody:v1", "--image-pull-policy=Never", wasm])?;
    // kubectl itself refuses such a name, unless a manifest holds it.
    let badly = "apiVersion: v1\nkind: Pod\nmetadata: {name: badly}\nspec:\n  runtimeClassName: wasm\n  \
                 containers: [{name: badly, image: \"Not//A::Name\"}]\n";
    cluster.apply(badly)?;
    for (name, reasons) in [
        ("lost", &["ErrImagePull", "ImagePullBackOff"][..]),
        ("never", &["ErrImageNeverPull"]),
        ("badly", &["InvalidImageName"]),
    ] {
        eventually(SOON, || {
            let reason =
                cluster.field(&format!("pod {name}"), "{.status.containerStatuses[0].state.waiting.reason}")?;
            ensure!(reasons.contains(&reason.as_str()), "{name}: {reason}");
            Ok(())
        })?;
    }
    eventually(SOON, || {
        let events = cluster.k("get events --field-selector involvedObject.name=lost")?;
        ensure!(events.contains("Failed to pull image \"127.0.0.1:1/none:v1\""), "{events}");
        ensure!(events.contains("Back-off pulling image \"127.0.0.1:1/none:v1\""), "{events}");
        Ok(())
    })?;
    let dir = tempfile::tempdir()?;
    // A core module, what is no module at all, and nothing.
    for (name, bytes, expect) in [
        ("core.wasm", &b"\0asm\x01\0\0\0"[..], "component"),
        ("text.wasm", b"hello", "text.wasm"),
        ("empty.wasm", b"", "empty.wasm"),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes)?;
        let refused =
            cluster.coracle_run(&["image", "import", &file.display().to_string(), "--name", "x:v1"])?.fails()?;
        ensure!(refused.contains(expect) && !refused.contains("panicked"), "{name}: {refused}");
    }
    let missing = cluster.coracle_run(&["image", "rm", "nobody:v1"])?.fails()?;
    ensure!(missing.contains("nobody:v1"), "{missing}");
    let images = cluster.coracle_run(&["image", "list"])?.ok()?;
    ensure!(images.contains("hello:v1") && !images.contains("x:v1"), "{images}");
    Ok(())
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() -> Result<()> {
    let mut cluster = Cluster::prepare()?;
    let disk = Tmpfs::mount(&cluster.data_dir(), 64)?;
    cluster.launch(&[])?;
    cluster.k("create deployment web --image=hello:v1")?;
    cluster.k("wait --for=condition=Available deploy/web --timeout=30s")?;
    let value = "x".repeat(100_000);
    let create = |i: usize| {
        cluster.kubectl_run(&["create", "configmap", &format!("cm-{i}"), &format!("--from-literal=a={value}")], None)
    };
    disk.fill()?;
    let mut kept = 0;
    let refused = loop {
        let output = create(kept)?;
        match output.code {
            Some(0) => kept += 1,
            _ => break output.fails()?,
        }
        ensure!(kept < 1000, "the disk never became full");
    };
    ensure!(refused.contains("disk") && refused.contains("full"), "{refused}");
    ensure!(!refused.contains("SQLITE") && !refused.contains("panicked"), "{refused}");
    // Reading goes on, and so does what runs.
    ensure!(cluster.k("get cm -o name")?.lines().filter(|l| l.contains("/cm-")).count() == kept);
    cluster.k("wait --for=condition=Ready pod -l app=web --timeout=5s")?;
    disk.free()?;
    eventually(SOON, || create(kept)?.ok())?;
    cluster.kill()?;
    cluster.launch(&[])?;
    let names = cluster.k("get cm -o name")?;
    for i in 0..=kept {
        ensure!(names.contains(&format!("configmap/cm-{i}\n")), "cm-{i} is lost:\n{names}");
    }
    cluster.stop()
}

#[test]
fn a_broken_database_is_told_and_left_alone() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.k("create configmap kept --from-literal=a=b")?;
    cluster.stop()?;
    let file = cluster.data_dir().join("store/store.db");
    let good = std::fs::read(&file)?;
    ensure!(good.windows(4).any(|bytes| bytes == b"kept"), "what was written is not in {}", file.display());
    for (what, broken) in [
        ("no database", b"this is not a database at all, it is text ".repeat(200)),
        ("damaged", {
            let mut bytes = good.clone();
            let from = bytes.len().min(4096);
            bytes[from..].fill(0xa5);
            bytes
        }),
    ] {
        std::fs::write(&file, &broken)?;
        let said = cluster.coracle_run(&["server"])?.fails()?;
        ensure!(said.contains(&file.display().to_string()), "{what}: {said}");
        ensure!(said.contains("damaged") || said.contains("not a database"), "{what}: {said}");
        ensure!(!said.contains("panicked"), "{what}: {said}");
        ensure!(std::fs::read(&file)? == broken, "{what}: the file was changed");
    }
    // With the file back, everything is.
    std::fs::write(&file, &good)?;
    cluster.launch(&[])?;
    ensure!(cluster.field("cm kept", "{.data.a}")? == "b");
    cluster.stop()
}
