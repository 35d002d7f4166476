//! Without root the program runs Wasm pods all the same, and says what it cannot do.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_user_without_privileges_runs_wasm_pods() -> Result<()> {
    let mut cluster = Cluster::prepare()?;
    cluster.become_nobody()?;
    cluster.launch(&["--apply", &Cluster::file("examples/hello/")])?;
    let log = eventually(SOON, || {
        let log = cluster.log();
        ensure!(log.contains("http://127.0.0.1:30080/"), "{log}");
        Ok(log)
    })?;
    ensure!(log.contains("not root") && log.contains("coracle check"), "{log}");
    cluster.k("wait --for=condition=Available deploy/hello --timeout=30s")?;
    let answer = eventually(SOON, || cluster.curl("http://127.0.0.1:30080/"))?;
    ensure!(answer.starts_with("Hello from hello-"), "{answer}");
    // Each pod by itself: they cannot share a port of one address.
    let ips = cluster.field("pods -l app=hello", "{.items[*].status.podIP}")?;
    let ips: std::collections::BTreeSet<&str> = ips.split_whitespace().collect();
    ensure!(ips.len() == 2, "{ips:?}");
    for ip in ips {
        ensure!(cluster.curl(&format!("http://{ip}:8080/version"))? == "v1\n", "{ip}");
    }
    cluster.k("set image deploy/hello hello=hello:v2")?;
    cluster.k("rollout status deploy/hello --timeout=60s")?;
    eventually(SOON, || {
        let answer = cluster.curl("http://127.0.0.1:30080/version")?;
        ensure!(answer == "v2\n", "{answer}");
        Ok(())
    })?;
    let check = cluster.coracle_run(&["check", "--port", "7443"])?;
    ensure!(check.stdout.contains("missing") && check.stdout.contains("mend:"), "{check:?}");
    // Its secrets are its own.
    for file in ["kubeconfig", "agent.sock"] {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let facts = std::fs::metadata(cluster.data_dir().join(file))?;
        ensure!(
            facts.uid() != 0 && facts.permissions().mode() & 0o077 == 0,
            "{file}: {:o}",
            facts.permissions().mode()
        );
    }
    cluster.kill()?;
    cluster.launch(&[])?;
    eventually(SOON, || cluster.curl("http://127.0.0.1:30080/"))?;
    cluster.stop()
}
