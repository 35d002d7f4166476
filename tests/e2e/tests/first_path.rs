//! From `kubectl apply` to an answer of a Wasm component behind a Service's virtual IP, and what a user does next.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(30);

fn hello(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.kubectl(&["wait", "--for=condition=Available", "deploy/hello", "--timeout=30s"])?;
    Ok(())
}

fn cluster_ip(cluster: &Cluster, service: &str) -> Result<String> {
    cluster.kubectl(&["get", "svc", service, "-o", "jsonpath={.spec.clusterIP}"])
}

#[test]
fn hello_is_served_rolled_and_scaled() -> Result<()> {
    let cluster = Cluster::start()?;
    hello(&cluster)?;
    let ip = cluster_ip(&cluster, "hello")?;
    eventually(SOON, || cluster.curl(&format!("http://{ip}/")))?;
    eventually(SOON, || cluster.curl("http://127.0.0.1:30080/"))?;
    ensure!(cluster.curl(&format!("http://{ip}/version"))?.contains("v1"));

    // Nothing to change.
    let again = cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    ensure!(again.lines().all(|l| l.ends_with("unchanged")), "{again}");
    ensure!(cluster.kubectl_run(&["diff", "-f", &Cluster::file("examples/hello/")], None)?.code == Some(0));

    cluster.kubectl(&["scale", "deploy/hello", "--replicas=20"])?;
    let status = cluster.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"])?;
    ensure!(status.contains("successfully rolled out"), "{status}");
    cluster.kubectl(&["scale", "deploy/hello", "--replicas=4"])?;

    // A rollout under load loses no request.
    let done = std::sync::atomic::AtomicBool::new(false);
    let (failed, answers) = std::thread::scope(|scope| -> Result<(Vec<String>, usize)> {
        let (cluster, done_ref, url) = (&cluster, &done, format!("http://{ip}/version"));
        let load = scope.spawn(move || {
            let (mut failed, mut count) = (Vec::new(), 0);
            while !done_ref.load(std::sync::atomic::Ordering::Relaxed) {
                count += 1;
                if let Err(error) = cluster.curl(&url) {
                    failed.push(format!("{error:#}"));
                }
            }
            (failed, count)
        });
        let rolled = cluster
            .kubectl(&["set", "image", "deploy/hello", "hello=hello:v2"])
            .and_then(|_| cluster.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"]));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let loaded = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        rolled?;
        Ok(loaded)
    })?;
    ensure!(failed.is_empty(), "{} of {answers} requests failed: {failed:?}", failed.len());
    eventually(SOON, || {
        let version = cluster.curl(&format!("http://{ip}/version"))?;
        ensure!(version.contains("v2"), "{version}");
        Ok(())
    })?;

    let history = cluster.kubectl(&["rollout", "history", "deploy/hello"])?;
    ensure!(history.contains("2"), "{history}");
    cluster.kubectl(&["rollout", "undo", "deploy/hello"])?;
    cluster.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"])?;
    eventually(SOON, || {
        let version = cluster.curl(&format!("http://{ip}/version"))?;
        ensure!(version.contains("v1"), "{version}");
        Ok(())
    })?;
    cluster.kubectl(&["rollout", "restart", "deploy/hello"])?;
    cluster.kubectl(&["rollout", "status", "deploy/hello", "--timeout=60s"])?;
    Ok(())
}

#[test]
fn a_deleted_pod_is_replaced_at_once() -> Result<()> {
    let cluster = Cluster::start()?;
    hello(&cluster)?;
    let pods = cluster.kubectl(&["get", "pods", "-l", "app=hello", "-o", "name"])?;
    let first = pods.lines().next().context("no pod")?.to_owned();
    cluster.kubectl(&["delete", &first, "--wait=false"])?;
    let started = Instant::now();
    eventually(Duration::from_secs(10), || {
        let names = cluster.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=hello",
            "-o",
            "jsonpath={range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}",
        ])?;
        let others = names.split_whitespace().filter(|n| !first.ends_with(*n)).count();
        ensure!(others >= 2, "{names}");
        Ok(())
    })?;
    ensure!(started.elapsed() < Duration::from_secs(3), "it took {:?}", started.elapsed());
    Ok(())
}

#[test]
fn a_killed_server_comes_back_with_everything() -> Result<()> {
    let mut cluster = Cluster::start()?;
    hello(&cluster)?;
    for i in 0..20 {
        cluster.kubectl(&["create", "configmap", &format!("kept-{i}"), "--from-literal=a=b"])?;
    }
    let uids = |cluster: &Cluster| cluster.kubectl(&["get", "pods,cm", "-o", "jsonpath={.items[*].metadata.uid}"]);
    let before = uids(&cluster)?;
    cluster.kill()?;
    cluster.launch(&[])?;
    ensure!(uids(&cluster)? == before, "objects changed");
    let ip = cluster_ip(&cluster, "hello")?;
    eventually(SOON, || cluster.curl(&format!("http://{ip}/")))?;
    cluster.stop()
}

#[test]
fn misbehaving_components_show_what_kubernetes_would_show() -> Result<()> {
    let cluster = Cluster::start()?;
    let pod = |name: &str, policy: &str, args: &str, limits: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  runtimeClassName: wasm\n  restartPolicy: {policy}\n  containers:\n  - name: c\n    image: misbehave:v1\n    imagePullPolicy: IfNotPresent\n    args: {args}\n    resources: {{limits: {{memory: {limits}}}}}\n---\n"
        )
    };
    let manifests = [
        pod("exits", "Never", "[exit, \"3\"]", "64Mi"),
        pod("traps", "Never", "[trap]", "64Mi"),
        pod("grows", "Never", "[allocate]", "16Mi"),
        pod("spins", "Never", "[spin]", "64Mi"),
        pod("ends", "Never", "[exit, \"0\"]", "64Mi"),
        pod("loops", "Always", "[exit, \"1\"]", "64Mi"),
    ]
    .concat();
    cluster.apply(&manifests)?;
    let terminated = |name: &str, field: &str| {
        cluster.kubectl(&[
            "get",
            "pod",
            name,
            "-o",
            &format!("jsonpath={{.status.containerStatuses[0].state.terminated.{field}}}"),
        ])
    };
    let check = |name: &str, reason: &str, code: Option<&str>, phase: &str| {
        eventually(SOON, || {
            let actual = (terminated(name, "reason")?, terminated(name, "exitCode")?);
            ensure!(actual.0 == reason, "{name}: {actual:?}");
            ensure!(code.is_none_or(|c| c == actual.1), "{name}: {actual:?}");
            let actual = cluster.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"])?;
            ensure!(actual == phase, "{name}: {actual}");
            Ok(())
        })
    };
    check("exits", "Error", Some("3"), "Failed")?;
    check("traps", "Error", None, "Failed")?;
    check("grows", "OOMKilled", Some("137"), "Failed")?;
    check("ends", "Completed", Some("0"), "Succeeded")?;
    eventually(SOON, || {
        let waiting = cluster.kubectl(&[
            "get",
            "pod",
            "loops",
            "-o",
            "jsonpath={.status.containerStatuses[0].state.waiting.reason}",
        ])?;
        ensure!(waiting == "CrashLoopBackOff", "{waiting}");
        Ok(())
    })?;
    // A neighbour of the one that spins is served all the same.
    hello(&cluster)?;
    let ip = cluster_ip(&cluster, "hello")?;
    eventually(SOON, || cluster.curl(&format!("http://{ip}/")))?;
    Ok(())
}

#[test]
fn logs_can_be_read_in_every_way() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: talks}\nspec:\n  runtimeClassName: wasm\n  restartPolicy: Never\n  containers:\n  - {name: c, image: \"misbehave:v1\", imagePullPolicy: IfNotPresent, args: [print, \"5\", lines]}\n")?;
    eventually(SOON, || {
        let log = cluster.kubectl(&["logs", "talks"])?;
        ensure!(log.lines().count() == 5, "{log}");
        Ok(())
    })?;
    ensure!(cluster.kubectl(&["logs", "talks", "--tail=2"])?.lines().count() == 2);
    ensure!(cluster.kubectl(&["logs", "talks", "-f", "-c", "c"])?.lines().count() == 5);
    ensure!(cluster.kubectl(&["logs", "talks", "--since=1h"])?.lines().count() == 5);
    let stamped = cluster.kubectl(&["logs", "talks", "--timestamps"])?;
    ensure!(
        stamped.lines().all(|l| l.split(' ').next().is_some_and(|t| t.contains('T') && t.ends_with('Z'))),
        "{stamped}"
    );
    let wrong = cluster.kubectl_run(&["logs", "talks", "-c", "other"], None)?.fails()?;
    ensure!(wrong.contains("container other is not valid for pod talks"), "{wrong}");
    Ok(())
}

#[test]
fn mistakes_get_clear_words() -> Result<()> {
    let mut cluster = Cluster::start()?;
    // A second server on the same data directory, on another port.
    let second = cluster.coracle_run(&["server", "--port", "7443"])?.fails()?;
    ensure!(second.contains("in use by another process"), "{second}");
    // The same port, another directory.
    let dir = tempfile::tempdir()?;
    let mut other = cluster.namespace().command(&Cluster::program()?.display().to_string());
    other.arg("--data-dir").arg(dir.path()).arg("server");
    let other = coracle_e2e::run(other, None)?.fails()?;
    ensure!(other.contains("--port"), "{other}");
    ensure!(cluster.coracle_run(&["server", "--no-such-flag"])?.fails()?.contains("--no-such-flag"));
    // An image that nobody has.
    cluster.kubectl(&[
        "run",
        "lost",
        "--image=127.0.0.1:1/none:v1",
        "--overrides={\"spec\":{\"runtimeClassName\":\"wasm\"}}",
    ])?;
    eventually(SOON, || {
        let reason = cluster.kubectl(&[
            "get",
            "pod",
            "lost",
            "-o",
            "jsonpath={.status.containerStatuses[0].state.waiting.reason}",
        ])?;
        ensure!(matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff"), "{reason}");
        Ok(())
    })?;
    // A module that is no component.
    let module = dir.path().join("core.wasm");
    std::fs::write(&module, b"\0asm\x01\0\0\0")?;
    let refused =
        cluster.coracle_run(&["image", "import", &module.display().to_string(), "--name", "core:v1"])?.fails()?;
    ensure!(refused.contains("component"), "{refused}");
    cluster.stop()
}
