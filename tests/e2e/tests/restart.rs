//! The server is killed with SIGKILL and started again: everything that was answered is there, and every pod comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(30);

fn uids(cluster: &Cluster, kinds: &str) -> Result<Vec<String>> {
    let text = cluster.field(&format!("{kinds} -A"), "{.items[*].metadata.uid}")?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

#[test]
fn a_killed_server_comes_back_with_everything() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/"), "-f", &Cluster::file("examples/worker/")])?;
    cluster.k("wait --for=condition=Available deploy/hello deploy/worker --timeout=30s")?;
    for i in 0..20 {
        cluster.k(&format!("create configmap kept-{i} --from-literal=a=b"))?;
    }
    let ip = cluster.field("svc hello", "{.spec.clusterIP}")?;
    let before = uids(&cluster, "pods,cm,secrets,deploy,rs,svc,sa,ns,nodes")?;
    for _ in 0..2 {
        cluster.kill()?;
        cluster.launch(&[])?;
        let after = uids(&cluster, "pods,cm,secrets,deploy,rs,svc,sa,ns,nodes")?;
        ensure!(after == before, "objects changed:\n{before:?}\n{after:?}");
        eventually(SOON, || cluster.curl(&format!("http://{ip}/")))?;
        eventually(SOON, || cluster.curl("http://127.0.0.1:30080/"))?;
        cluster.k("wait --for=condition=Available deploy/hello deploy/worker --timeout=30s")?;
        cluster.k("wait --for=condition=Ready pod --all --timeout=30s")?;
    }
    // An orderly end is one too.
    cluster.stop()?;
    cluster.launch(&[])?;
    ensure!(uids(&cluster, "pods,cm")? == before[..uids(&cluster, "pods,cm")?.len()], "objects changed");
    cluster.stop()
}

#[test]
fn a_rollout_goes_on_after_the_server_was_killed() -> Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.k("scale deploy/hello --replicas=6")?;
    cluster.k("rollout status deploy/hello --timeout=60s")?;
    cluster.k("set image deploy/hello hello=hello:v2")?;
    // In the middle of it: some are new, some are not.
    eventually(SOON, || {
        let updated = cluster.field("deploy hello", "{.status.updatedReplicas}")?;
        ensure!(updated.parse::<u32>().is_ok_and(|count| count >= 1), "{updated} are new");
        Ok(())
    })?;
    cluster.kill()?;
    cluster.launch(&[])?;
    cluster.k("rollout status deploy/hello --timeout=60s")?;
    // A rollout is over when the old pods are asked to go; a moment later they are gone.
    eventually(SOON, || {
        let images = cluster.field("pods -l app=hello", "{.items[*].spec.containers[0].image}")?;
        ensure!(images == ["hello:v2"; 6].join(" "), "{images}");
        Ok(())
    })?;
    let ip = cluster.field("svc hello", "{.spec.clusterIP}")?;
    eventually(SOON, || {
        let answer = cluster.curl(&format!("http://{ip}/version"))?;
        ensure!(answer == "v2\n", "{answer}");
        Ok(())
    })
}
