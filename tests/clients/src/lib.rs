//! shell: clients that other people wrote, against a cluster of the built program: the `kube` crate in this process and the
//! PyPI `kubernetes` package in another, both inside the cluster's network namespace. It tests nothing itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use coracle_e2e::{Cluster, run};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The longest a whole test may take: one that waits for what never comes is told apart from a slow one.
const TEST_LIMIT: Duration = Duration::from_secs(120);

/// Runs a test of the `kube` crate on a cluster of its own.
///
/// # Errors
/// The cluster does not start, or the test fails or does not end.
pub fn on_cluster(test: impl AsyncFnOnce(Client, &mut Cluster) -> Result<()> + Send) -> Result<()> {
    let mut cluster = Cluster::start()?;
    let namespace = cluster.shared_namespace();
    namespace.inside(move || {
        // Its threads are the namespace's too. Two, so that watches go on while a test waits for `kubectl`.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let client = client(&cluster.kubeconfig()).await?;
            tokio::time::timeout(TEST_LIMIT, test(client, &mut cluster)).await.context("the test does not end")?
        })
    })
}

/// A client as any program makes one from a kubeconfig.
///
/// # Errors
/// The kubeconfig is of no use.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // Left alone the client tries again for minutes what is refused for now; the tests look at each answer.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Waits until `check` gives a value, without holding a thread.
///
/// # Errors
/// The condition did not come about in time.
pub async fn eventually<T>(limit: Duration, mut check: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let began = tokio::time::Instant::now();
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(error) if began.elapsed() > limit => return Err(error.context(format!("not within {limit:?}"))),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Runs a script of `tests/clients/python` against a cluster, and gives what it printed.
///
/// # Errors
/// The script fails, or the machine lacks what it needs.
pub fn python(cluster: &Cluster, script: &str) -> Result<String> {
    let python = std::env::var("CORACLE_PYTHON")
        .context("CORACLE_PYTHON names a Python that has the kubernetes package; scripts/test end-to-end makes one")?;
    let file = Cluster::file(&format!("tests/clients/python/{script}.py"));
    let mut command = cluster.namespace().command("timeout");
    command
        .arg(TEST_LIMIT.as_secs().to_string())
        .args([&python, &file])
        // Nothing is left in the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("CHECKOUT", Cluster::file(""));
    run(command, None)?.ok().with_context(|| format!("{script}.py\n{}", cluster.log()))
}
