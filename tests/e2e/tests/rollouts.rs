//! A Deployment goes from one version to the next and back, under load, and loses no request.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use coracle_e2e::{Cluster, eventually, run};

/// The names of pods whose first container is ready.
const READY: &str = "{range .items[?(@.status.containerStatuses[0].ready==true)]}{.metadata.name} {end}";
const SOON: Duration = Duration::from_secs(30);

fn hello(cluster: &Cluster) -> Result<String> {
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.k("wait --for=condition=Available deploy/hello --timeout=30s")?;
    cluster.field("svc hello", "{.spec.clusterIP}")
}

fn rolled(cluster: &Cluster) -> Result<()> {
    let status = cluster.k("rollout status deploy/hello --timeout=60s")?;
    ensure!(status.contains("deployment \"hello\" successfully rolled out"), "{status}");
    Ok(())
}

fn serves(cluster: &Cluster, ip: &str, version: &str) -> Result<()> {
    eventually(SOON, || {
        let answer = cluster.curl(&format!("http://{ip}/version"))?;
        ensure!(answer.trim() == version, "{answer}");
        Ok(())
    })
}

/// How many requests are answered before a change begins, and at least while it goes on.
const SOME: usize = 3;

/// Asks one request after the other before `work`, while it goes on and after it; none may fail.
fn under_load(cluster: &Cluster, url: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let done = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let some_more = || {
        let before = answered.load(Ordering::Relaxed);
        eventually(SOON, || {
            let now = answered.load(Ordering::Relaxed);
            ensure!(now >= before + SOME, "only {} requests were answered", now - before);
            Ok(now)
        })
    };
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut failed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                match cluster.curl(url) {
                    Ok(_) => _ = answered.fetch_add(1, Ordering::Relaxed),
                    Err(error) => failed.push(format!("{error:#}")),
                }
            }
            failed
        });
        let worked: Result<usize> = (|| {
            let before = some_more()?;
            work()?;
            let during = answered.load(Ordering::Relaxed) - before;
            some_more()?;
            Ok(during)
        })();
        done.store(true, Ordering::Relaxed);
        let failed = load.join().map_err(|_| anyhow!("the load panicked"))?;
        let count = failed.len() + answered.load(Ordering::Relaxed);
        ensure!(failed.is_empty(), "{} of {count} requests failed: {failed:?}", failed.len());
        let during = worked?;
        ensure!(during >= SOME, "only {during} requests were answered while it went on");
        Ok(())
    })
}

#[test]
fn hello_is_served_rolled_and_scaled() -> Result<()> {
    let cluster = Cluster::start()?;
    let ip = hello(&cluster)?;
    eventually(SOON, || cluster.curl(&format!("http://{ip}/")))?;
    eventually(SOON, || cluster.curl("http://127.0.0.1:30080/"))?;
    serves(&cluster, &ip, "v1")?;
    // Nothing to change.
    let again = cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    ensure!(again.lines().all(|l| l.ends_with("unchanged")), "{again}");

    cluster.k("scale deploy/hello --replicas=20")?;
    rolled(&cluster)?;
    cluster.k("scale deploy/hello --replicas=4")?;
    for url in [format!("http://{ip}/version"), "http://127.0.0.1:30080/version".to_owned()] {
        let to = if url.contains("30080") { "v1" } else { "v2" };
        under_load(&cluster, &url, || {
            cluster.k(&format!("set image deploy/hello hello=hello:{to}"))?;
            rolled(&cluster)
        })?;
        serves(&cluster, &ip, to)?;
    }
    under_load(&cluster, &format!("http://{ip}/"), || {
        cluster.k("rollout restart deploy/hello")?;
        rolled(&cluster)
    })?;
    Ok(())
}

#[test]
fn history_is_kept_and_gone_back_to() -> Result<()> {
    let cluster = Cluster::start()?;
    let ip = hello(&cluster)?;
    cluster.k("annotate deploy/hello kubernetes.io/change-cause=first")?;
    cluster.k("set image deploy/hello hello=hello:v2")?;
    cluster.k("annotate deploy/hello kubernetes.io/change-cause=second --overwrite")?;
    rolled(&cluster)?;
    serves(&cluster, &ip, "v2")?;
    eventually(SOON, || {
        let history = cluster.k("rollout history deploy/hello")?;
        let rows: Vec<Vec<&str>> = history.lines().map(|l| l.split_whitespace().collect()).collect();
        ensure!(rows.contains(&vec!["1", "first"]) && rows.contains(&vec!["2", "second"]), "{history}");
        Ok(())
    })?;
    let first = cluster.k("rollout history deploy/hello --revision=1")?;
    ensure!(first.contains("hello:v1") && first.contains("pod-template-hash="), "{first}");
    let none = cluster.k_fails("rollout undo deploy/hello --to-revision=9")?;
    ensure!(none.contains("unable to find specified revision 9 in history"), "{none}");

    let undone = cluster.k("rollout undo deploy/hello")?;
    ensure!(undone == "deployment.apps/hello rolled back\n", "{undone}");
    rolled(&cluster)?;
    serves(&cluster, &ip, "v1")?;
    // Going back makes the old revision the newest.
    eventually(SOON, || {
        let history = cluster.k("rollout history deploy/hello")?;
        let revisions: Vec<&str> = history.lines().skip(2).filter_map(|l| l.split_whitespace().next()).collect();
        ensure!(revisions == ["2", "3"], "{history}");
        Ok(())
    })?;
    cluster.k("rollout undo deploy/hello --to-revision=2")?;
    rolled(&cluster)?;
    serves(&cluster, &ip, "v2")
}

#[test]
fn a_paused_rollout_waits_until_it_is_resumed() -> Result<()> {
    let cluster = Cluster::start()?;
    let ip = hello(&cluster)?;
    ensure!(cluster.k("rollout pause deploy/hello")? == "deployment.apps/hello paused\n");
    ensure!(cluster.k_fails("rollout pause deploy/hello")?.contains("is already paused"));
    cluster.k("set image deploy/hello hello=hello:v2")?;
    cluster.k("set env deploy/hello EXTRA=yes")?;
    eventually(SOON, || {
        let condition = cluster.field("deploy hello", "{.status.conditions[?(@.type==\"Progressing\")].reason}")?;
        ensure!(condition == "DeploymentPaused", "{condition}");
        let seen = cluster.field("deploy hello", "{.metadata.generation} {.status.observedGeneration}")?;
        let (wanted, observed) = seen.split_once(' ').context("two numbers")?;
        ensure!(wanted == observed, "{seen}");
        Ok(())
    })?;
    // The controller has seen both changes and made nothing of them.
    ensure!(cluster.k("get rs -l app=hello -o name")?.lines().count() == 1);
    serves(&cluster, &ip, "v1")?;
    cluster.k("scale deploy/hello --replicas=3")?;
    cluster.k("wait --for=jsonpath={.status.readyReplicas}=3 deploy/hello --timeout=30s")?;
    ensure!(cluster.k("rollout resume deploy/hello")? == "deployment.apps/hello resumed\n");
    rolled(&cluster)?;
    serves(&cluster, &ip, "v2")?;
    // The Service may lead to an ending pod of the old version for a moment yet.
    eventually(SOON, || {
        let environment = cluster.curl(&format!("http://{ip}/env"))?;
        ensure!(environment.contains("EXTRA=yes"), "{environment}");
        Ok(())
    })?;
    // Both changes were one rollout.
    ensure!(cluster.k("get rs -l app=hello -o name")?.lines().count() == 2);
    Ok(())
}

#[test]
fn a_rollout_that_goes_nowhere_says_so_and_serves_on() -> Result<()> {
    let cluster = Cluster::start()?;
    let ip = hello(&cluster)?;
    cluster.kubectl(&[
        "patch",
        "deploy",
        "hello",
        "-p",
        "{\"spec\":{\"progressDeadlineSeconds\":2,\"minReadySeconds\":1}}",
    ])?;
    rolled(&cluster)?;
    under_load(&cluster, &format!("http://{ip}/version"), || {
        cluster.k("set image deploy/hello hello=127.0.0.1:1/none:v1")?;
        let failed = cluster.k_fails("rollout status deploy/hello --timeout=60s")?;
        ensure!(failed.contains("deployment \"hello\" exceeded its progress deadline"), "{failed}");
        Ok(())
    })?;
    serves(&cluster, &ip, "v1")?;
    cluster.k("rollout undo deploy/hello")?;
    rolled(&cluster)
}

#[test]
fn a_deleted_pod_is_replaced_at_once() -> Result<()> {
    let cluster = Cluster::start()?;
    hello(&cluster)?;
    let pods = cluster.k("get pods -l app=hello -o name")?;
    let first = pods.lines().next().context("no pod")?.to_owned();
    // Looked at by the server's clock: how quickly this test sees it is a matter of what else the machine does.
    let second = |stamp: &str| -> Result<i64> {
        let mut date = std::process::Command::new("date");
        date.args(["-u", "-d", stamp, "+%s"]);
        Ok(run(date, None)?.ok()?.trim().parse()?)
    };
    let before = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
    cluster.k(&format!("delete {first} --wait=false"))?;
    let newest = eventually(SOON, || {
        let names = cluster.field("pods -l app=hello", READY)?;
        let others = names.split_whitespace().filter(|n| !first.ends_with(*n)).count();
        ensure!(others >= 2, "{names}");
        let stamps = cluster.field("pods -l app=hello", "{range .items[*]}{.metadata.creationTimestamp} {end}")?;
        let made = stamps.split_whitespace().map(second).collect::<Result<Vec<_>>>()?;
        made.into_iter().max().context("no pod")
    })?;
    ensure!(newest - before <= 3, "it took {} s", newest - before);
    Ok(())
}
