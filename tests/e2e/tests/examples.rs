//! Everything under `examples/` is run as its README says.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(30);

/// Which test runs a manifest of which folder.
const TESTED: &[&str] = &["hello", "worker"];

#[test]
fn every_example_has_a_test() -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(Cluster::file("examples"))? {
        let path = entry?.path();
        let holds_manifests = path.is_dir() && manifests(&path)? > 0;
        if holds_manifests {
            found.insert(path.file_name().context("a name")?.to_string_lossy().into_owned());
        }
    }
    let tested: BTreeSet<String> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    ensure!(found == tested, "there are {found:?}");
    Ok(())
}

fn manifests(folder: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        count += usize::from(entry?.path().extension().is_some_and(|end| end == "yaml"));
    }
    Ok(count)
}

/// Starts an example with the program alone, and takes it away again.
fn run(cluster: &Cluster, name: &str, check: impl FnOnce() -> Result<()>) -> Result<()> {
    let folder = Cluster::file(&format!("examples/{name}/"));
    let component = Cluster::file(&format!("examples/{name}/{name}.wasm"));
    let imported = cluster.coracle_run(&["image", "import", &component, "--name", &format!("{name}:v1")])?.ok()?;
    ensure!(imported.starts_with("imported ") && imported.contains(&format!("{name}:v1")), "{imported}");
    let applied = cluster.coracle_run(&["apply", "-f", &folder])?.ok()?;
    ensure!(applied.contains(&format!("deployment.apps/{name} created")), "{applied}");
    let again = cluster.coracle_run(&["apply", "-f", &folder])?.ok()?;
    ensure!(again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    cluster.coracle_run(&["rollout", "status", &format!("deploy/{name}")])?.ok()?;
    check()?;
    cluster.coracle_run(&["delete", "-f", &folder])?.ok()?;
    eventually(SOON, || {
        let left = cluster.k(&format!("get pods,rs,svc,endpointslices -l app={name} -o name"))?;
        ensure!(left.is_empty(), "still there: {left}");
        Ok(())
    })
}

#[test]
fn hello_answers_on_every_route() -> Result<()> {
    let cluster = Cluster::start()?;
    run(&cluster, "hello", || {
        let ip = cluster.field("svc hello", "{.spec.clusterIP}")?;
        for base in [format!("http://{ip}"), "http://127.0.0.1:30080".to_owned()] {
            let hello = eventually(SOON, || cluster.curl(&format!("{base}/")))?;
            ensure!(hello.starts_with("Hello from hello-") && hello.contains("node: box"), "{hello}");
            ensure!(cluster.curl(&format!("{base}/version"))? == "v1\n");
            ensure!(cluster.curl(&format!("{base}/health"))? == "ok\n");
            let environment = cluster.curl(&format!("{base}/env"))?;
            ensure!(environment.contains("KUBERNETES_SERVICE_HOST=10.43.0.1\n"), "{environment}");
            ensure!(
                environment.contains(&format!("HELLO_SERVICE_HOST={ip}\n")) || environment.contains("POD_NAME=hello-"),
                "{environment}"
            );
            let mut echo = cluster.namespace().command("curl");
            echo.args(["-sS", "--fail", "--max-time", "5", "--data-binary", "a body", &format!("{base}/echo")]);
            ensure!(coracle_e2e::run(echo, None)?.ok()? == "a body");
            let lost = cluster.curl(&format!("{base}/nowhere"));
            ensure!(lost.is_err_and(|error| error.to_string().contains("404")), "/nowhere is somewhere");
        }
        // Both copies take their part.
        let mut names = BTreeSet::new();
        eventually(SOON, || {
            names.insert(cluster.curl(&format!("http://{ip}/"))?.lines().next().unwrap_or_default().to_owned());
            ensure!(names.len() == 2, "{names:?}");
            Ok(())
        })
    })
}

#[test]
fn worker_reads_counts_and_ends_cleanly() -> Result<()> {
    let cluster = Cluster::start()?;
    run(&cluster, "worker", || {
        let log = eventually(SOON, || {
            let log = cluster.k("logs deploy/worker")?;
            ensure!(log.contains("tick 2"), "{log}");
            Ok(log)
        })?;
        for line in [
            "worker: starting, greeting \"tick\"",
            "worker: token of 16 bytes",
            "worker: config file worker.conf of ",
            "worker: secret file token of 16 bytes",
            "tick 1",
        ] {
            ensure!(log.contains(line), "no {line:?} in\n{log}");
        }
        ensure!(!log.contains("not-a-real-token"), "the secret is in the log");
        // It is asked to end, says so, and goes by itself: it is given far longer than anybody waits here.
        let name = cluster.field("pods -l app=worker", "{.items[0].metadata.name}")?;
        let follow = cluster.k_runs(&format!("logs -f {name}"))?;
        follow.line(SOON, |line| line.starts_with("tick "))?;
        cluster.k(&format!("delete pod {name} --grace-period=3600 --timeout=60s"))?;
        follow.line(SOON, |line| line.starts_with("worker: asked to end at "))?;
        cluster.k("rollout status deploy/worker --timeout=30s")?;
        Ok(())
    })
}

#[test]
fn the_first_command_says_where_everything_is() -> Result<()> {
    let mut cluster = Cluster::prepare()?;
    cluster.launch(&["--apply", &Cluster::file("examples/hello/")])?;
    // The lines that the README promises.
    let log = eventually(SOON, || {
        let log = cluster.log();
        ensure!(log.contains("service hello: http://127.0.0.1:30080/"), "{log}");
        Ok(log)
    })?;
    let kubeconfig = cluster.kubeconfig().display().to_string();
    for words in ["API ready at https://127.0.0.1:6443", "image hello:v1 imported", "node box Ready", &kubeconfig] {
        ensure!(log.contains(words), "no {words:?} in\n{log}");
    }
    let addresses: Vec<&str> =
        log.lines().filter_map(|line| line.split_once("service hello: ")).map(|(_, url)| url).collect();
    ensure!(addresses.len() == 2, "{log}");
    for url in addresses {
        let answer = eventually(SOON, || cluster.curl(url))?;
        ensure!(answer.starts_with("Hello from hello-"), "{url}: {answer}");
    }
    // A second start with the same words finds everything there.
    cluster.stop()?;
    cluster.launch(&["--apply", &Cluster::file("examples/hello/")])?;
    eventually(SOON, || cluster.curl("http://127.0.0.1:30080/"))?;
    ensure!(cluster.k("get deploy hello -o jsonpath={.metadata.generation}")? == "1");
    cluster.stop()
}
