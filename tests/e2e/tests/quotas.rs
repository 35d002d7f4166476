//! What a namespace may use: ResourceQuotas and LimitRanges, as `kubectl` meets them.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(60);

fn used(cluster: &Cluster) -> Result<String> {
    cluster.field("quota few -n shop", "{.status.used}")
}

fn becomes(cluster: &Cluster, expect: &str) -> Result<()> {
    eventually(SOON, || {
        let used = used(cluster)?;
        ensure!(used == expect, "used: {used}, not {expect}");
        Ok(())
    })
}

fn deployment(replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
         runtimeClassName: wasm\n      terminationGracePeriodSeconds: 1\n      containers: [{{name: c, image: \"hello:v1\"}}]\n"
    )
}

#[test]
fn a_quota_holds_and_gives_back() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.k("create namespace shop")?;
    // Every namespace gets one of these by itself.
    eventually(SOON, || cluster.k("get configmap kube-root-ca.crt -n shop"))?;
    cluster.k("create quota few --hard=pods=2,count/deployments.apps=1,configmaps=2 -n shop")?;
    becomes(&cluster, r#"{"configmaps":"1","count/deployments.apps":"0","pods":"0"}"#)?;

    cluster.apply(&deployment(3))?;
    becomes(&cluster, r#"{"configmaps":"1","count/deployments.apps":"1","pods":"2"}"#)?;
    let described = cluster.k("describe quota few -n shop")?;
    ensure!(described.contains("pods                    2     2\n"), "{described}");
    let why = "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2";
    eventually(SOON, || {
        let events = cluster.k("get events -n shop --field-selector reason=FailedCreate")?;
        ensure!(events.contains(why), "{events}");
        let failure =
            cluster.field("deploy web -n shop", "{.status.conditions[?(@.type==\"ReplicaFailure\")].status}")?;
        ensure!(failure == "True", "ReplicaFailure: {failure}");
        Ok(())
    })?;
    let second = cluster.k_fails("create deployment other --image=hello:v1 -n shop")?;
    ensure!(
        second.contains(
            "deployments.apps \"other\" is forbidden: exceeded quota: few, requested: count/deployments.apps=1, \
             used: count/deployments.apps=1, limited: count/deployments.apps=1"
        ),
        "{second}"
    );
    let rest = cluster.k("create configmap one -n shop")?;
    ensure!(rest == "configmap/one created\n", "{rest}");
    let more = cluster.k_fails("create configmap two -n shop")?;
    ensure!(more.contains("exceeded quota: few, requested: configmaps=1, used: configmaps=2"), "{more}");

    // More room is used, and what goes gives back what it took.
    cluster.k("patch quota few -n shop -p {\"spec\":{\"hard\":{\"pods\":\"3\"}}}")?;
    cluster.k("wait --for=condition=Available deploy/web -n shop --timeout=60s")?;
    becomes(&cluster, r#"{"configmaps":"2","count/deployments.apps":"1","pods":"3"}"#)?;
    cluster.k("delete deploy/web configmap/one -n shop")?;
    becomes(&cluster, r#"{"configmaps":"1","count/deployments.apps":"0","pods":"0"}"#)
}

#[test]
fn a_limit_range_fills_in_and_bounds() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.apply(
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: sizes}\nspec:\n  limits:\n  \
         - {type: Container, default: {memory: 64Mi}, defaultRequest: {cpu: 10m}, max: {memory: 128Mi}}\n",
    )?;
    cluster.k("run small --image=hello:v1")?;
    let resources = cluster.field("pod small", "{.spec.containers[0].resources}")?;
    ensure!(
        resources == r#"{"limits":{"memory":"64Mi"},"requests":{"cpu":"10m","memory":"64Mi"}}"#,
        "resources: {resources}"
    );
    let note = cluster.field("pod small", "{.metadata.annotations.kubernetes\\.io/limit-ranger}")?;
    ensure!(
        note == "LimitRanger plugin set: cpu, memory request for container small; memory limit for container small",
        "{note}"
    );
    let overrides =
        r#"{"spec":{"containers":[{"name":"big","image":"hello:v1","resources":{"limits":{"memory":"1Gi"}}}]}}"#;
    let refused = cluster.k_fails(&format!("run big --image=hello:v1 --overrides={overrides}"))?;
    ensure!(
        refused
            == "Error from server (Forbidden): pods \"big\" is forbidden: maximum memory usage per Container is 128Mi, but limit is 1Gi\n",
        "{refused}"
    );
    let described = cluster.k("describe limits sizes")?;
    ensure!(described.contains("Container   memory    -    128Mi  64Mi             64Mi           -\n"), "{described}");
    Ok(())
}
