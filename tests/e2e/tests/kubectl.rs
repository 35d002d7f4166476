//! What people type at `kubectl` does what it does against Kubernetes.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually};

#[test]
fn objects_can_be_made_read_changed_and_removed() -> Result<()> {
    let cluster = Cluster::start()?;
    let k = |line: &str| cluster.kubectl(&line.split(' ').collect::<Vec<_>>());
    let resources = k("api-resources")?;
    for kind in [
        "pods",
        "deployments",
        "endpointslices",
        "leases",
        "customresourcedefinitions",
        "horizontalpodautoscalers",
        "ingresses",
    ] {
        ensure!(resources.contains(kind), "{kind} is not in:\n{resources}");
    }
    ensure!(k("explain deployment.spec.strategy --recursive")?.contains("maxSurge"));
    ensure!(k("get nodes -o wide")?.contains("Ready"));

    k("create namespace shop")?;
    // The account is made by a controller; a pod can be made once it is there.
    eventually(Duration::from_secs(10), || k("get sa default -n shop"))?;
    k("create configmap settings --from-literal=a=b -n shop")?;
    k("create secret generic keys --from-literal=k=v -n shop")?;
    k("create quota limits --hard=pods=5 -n shop")?;
    k("create serviceaccount robot -n shop")?;
    k("create deployment web --image=hello:v1 --replicas=0 -n shop")?;
    k("expose deployment web --port=80 --target-port=8080 -n shop")?;
    k("run one --image=hello:v1 -n shop")?;
    k("label deployment web tier=front -n shop")?;
    k("annotate deployment web note=x -n shop")?;
    ensure!(k("get deploy -l tier=front -n shop -o name")? == "deployment.apps/web\n");
    ensure!(k("get cm settings -n shop -o jsonpath={.data.a}")? == "b");
    ensure!(k("describe deployment web -n shop")?.contains("tier=front"));
    ensure!(k("get events -n shop")?.contains("one"));
    let missing = cluster.kubectl_run(&["get", "cm", "nothing", "-n", "shop"], None)?.fails()?;
    ensure!(missing.contains("Error from server (NotFound): configmaps \"nothing\" not found"), "{missing}");
    let twice = cluster.kubectl_run(&["create", "cm", "settings", "-n", "shop"], None)?.fails()?;
    ensure!(twice.contains("configmaps \"settings\" already exists"), "{twice}");

    let manifest = k("get cm settings -n shop -o yaml")?.replace("a: b", "a: c");
    cluster.kubectl_run(&["replace", "-f", "-"], Some(&manifest))?.ok()?;
    ensure!(k("get cm settings -n shop -o jsonpath={.data.a}")? == "c");
    let stale = cluster.kubectl_run(&["replace", "-f", "-"], Some(&manifest))?.fails()?;
    ensure!(stale.contains("(Conflict)") && stale.contains("the object has been modified"), "{stale}");

    k("delete namespace shop --timeout=60s")?;
    let gone = cluster.kubectl_run(&["get", "namespace", "shop"], None)?.fails()?;
    ensure!(gone.contains("NotFound"), "{gone}");
    ensure!(k("get --raw /metrics")?.contains("apiserver_request_total"));
    ensure!(k("get --raw /readyz")? == "ok");
    Ok(())
}

#[test]
fn mistakes_in_manifests_are_told_as_kubernetes_tells_them() -> Result<()> {
    let cluster = Cluster::start()?;
    let refuse = |manifest: &str| cluster.kubectl_run(&["apply", "-f", "-"], Some(manifest))?.fails();
    let unknown = refuse("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatta: {a: b}\n")?;
    ensure!(unknown.contains("unknown field \"datta\""), "{unknown}");
    let empty = refuse("apiVersion: v1\nkind: Pod\nmetadata: {name: X_}\nspec: {containers: []}\n")?;
    ensure!(empty.contains("spec.containers: Required value"), "{empty}");
    ensure!(empty.contains("metadata.name: Invalid value: \"X_\""), "{empty}");
    let selector = refuse(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    spec: {containers: [{name: c, image: i}]}\n",
    )?;
    ensure!(selector.contains("`selector` does not match template `labels`"), "{selector}");
    Ok(())
}
