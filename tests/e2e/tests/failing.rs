//! Components that go wrong show what Kubernetes would show, and their neighbours notice nothing.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(30);

fn pod(name: &str, policy: &str, args: &str, memory: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  runtimeClassName: wasm\n  restartPolicy: {policy}\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: c\n    image: misbehave:v1\n    imagePullPolicy: IfNotPresent\n    \
         args: {args}\n    resources: {{limits: {{memory: {memory}}}}}\n---\n"
    )
}

/// Waits until a JSONPath of a pod gives a text.
fn becomes(cluster: &Cluster, name: &str, path: &str, expect: &str) -> Result<()> {
    eventually(SOON, || {
        let actual = cluster.field(&format!("pod {name}"), path)?;
        ensure!(actual == expect, "{name}: {path} is {actual}");
        Ok(())
    })
}

#[test]
fn an_end_has_its_reason_and_exit_code() -> Result<()> {
    let cluster = Cluster::start()?;
    // Name, arguments, memory; reason, exit code where it is the component's own, phase, status column.
    let table = [
        ("exits", "[exit, \"3\"]", "64Mi", "Error", Some("3"), "Failed", "Error"),
        ("traps", "[trap]", "64Mi", "Error", None, "Failed", "Error"),
        ("panics", "[panic]", "64Mi", "Error", None, "Failed", "Error"),
        ("grows", "[allocate]", "16Mi", "OOMKilled", Some("137"), "Failed", "OOMKilled"),
        ("ends", "[exit, \"0\"]", "64Mi", "Completed", Some("0"), "Succeeded", "Completed"),
        ("lost", "[no-such-mode]", "64Mi", "Error", Some("2"), "Failed", "Error"),
    ];
    let manifests: Vec<String> =
        table.iter().map(|(name, args, memory, ..)| pod(name, "Never", args, memory)).collect();
    cluster.apply(&manifests.concat())?;
    for (name, _, _, reason, code, phase, column) in table {
        becomes(&cluster, name, "{.status.phase}", phase)?;
        becomes(&cluster, name, "{.status.containerStatuses[0].state.terminated.reason}", reason)?;
        let actual =
            cluster.field(&format!("pod {name}"), "{.status.containerStatuses[0].state.terminated.exitCode}")?;
        ensure!(code.is_none_or(|code| code == actual), "{name}: exit code {actual}");
        ensure!((actual == "0") == (phase == "Succeeded"), "{name}: exit code {actual}");
        let row = cluster.k(&format!("get pod {name} --no-headers"))?;
        ensure!(row.split_whitespace().take(4).eq([name, "0/1", column, "0"]), "{row}");
        let times = cluster.field(
            &format!("pod {name}"),
            "{.status.containerStatuses[0].state.terminated.startedAt} {.status.containerStatuses[0].state.terminated.finishedAt}",
        )?;
        ensure!(times.split_once(' ').is_some_and(|(start, end)| start.len() == 20 && start <= end), "{name}: {times}");
    }
    // What a trap was is told where people look.
    let trap = cluster.k("logs traps")?
        + &cluster.field("pod traps", "{.status.containerStatuses[0].state.terminated.message}")?;
    ensure!(trap.contains("unreachable"), "{trap}");
    Ok(())
}

#[test]
fn what_fails_again_and_again_backs_off() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster
        .apply(&(pod("loops", "Always", "[exit, \"1\"]", "64Mi") + &pod("eats", "OnFailure", "[allocate]", "16Mi")))?;
    for (name, reason, code) in [("loops", "Error", "1"), ("eats", "OOMKilled", "137")] {
        becomes(&cluster, name, "{.status.containerStatuses[0].state.waiting.reason}", "CrashLoopBackOff")?;
        becomes(&cluster, name, "{.status.containerStatuses[0].lastState.terminated.reason}", reason)?;
        becomes(&cluster, name, "{.status.containerStatuses[0].lastState.terminated.exitCode}", code)?;
        becomes(&cluster, name, "{.status.phase}", "Running")?;
        let message = cluster.field(&format!("pod {name}"), "{.status.containerStatuses[0].state.waiting.message}")?;
        ensure!(message.starts_with("back-off 10s restarting failed container=c pod="), "{message}");
        let row = cluster.k(&format!("get pod {name} --no-headers"))?;
        ensure!(row.contains("CrashLoopBackOff"), "{row}");
    }
    eventually(SOON, || {
        let events = cluster.k("get events --field-selector reason=BackOff")?;
        ensure!(events.contains("Back-off restarting failed container c in pod loops_default"), "{events}");
        Ok(())
    })?;
    // After the first restart at once it waits: it has not tried ten times meanwhile.
    let count: u32 = cluster.field("pod loops", "{.status.containerStatuses[0].restartCount}")?.parse()?;
    ensure!((1..=3).contains(&count), "{count} restarts");
    Ok(())
}

#[test]
fn an_endless_loop_disturbs_no_neighbour() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.k("wait --for=condition=Available deploy/hello --timeout=30s")?;
    let ip = cluster.field("svc hello", "{.spec.clusterIP}")?;
    let url = format!("http://{ip}/");
    eventually(SOON, || cluster.curl(&url))?;
    // More of them than the machine has cores.
    let spinning: Vec<String> = (0..4).map(|i| pod(&format!("spins-{i}"), "Never", "[spin]", "64Mi")).collect();
    cluster.apply(&spinning.concat())?;
    for i in 0..4 {
        becomes(&cluster, &format!("spins-{i}"), "{.status.phase}", "Running")?;
    }
    // Each is answered, and mostly at once; how long one of them takes is also a matter of what else the machine does.
    let mut took = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        cluster.curl(&url)?;
        took.push(began.elapsed());
    }
    took.sort();
    ensure!(took[25] < Duration::from_secs(1), "answers took {took:?}");
    // The API, a new pod, and their own end too.
    cluster.k("run after --image=hello:v1")?;
    cluster.k("wait --for=condition=Ready pod/after --timeout=30s")?;
    cluster.k("delete pod spins-0 spins-1 spins-2 spins-3 --timeout=30s")?;
    for name in cluster.k("get pods -l app=hello -o name")?.lines() {
        let restarts = cluster.field(name, "{.status.containerStatuses[0].restartCount}")?;
        ensure!(restarts == "0", "{name} was restarted {restarts} times");
    }
    Ok(())
}

#[test]
fn what_never_becomes_ready_gets_no_requests() -> Result<()> {
    let cluster = Cluster::start()?;
    let probe =
        |path: &str| format!("{{httpGet: {{path: {path}, port: 8080}}, periodSeconds: 1, failureThreshold: 2}}");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: never, labels: {{app: never}}}}\nspec:\n  runtimeClassName: wasm\n  \
         containers:\n  - {{name: c, image: \"hello:v1\", ports: [{{containerPort: 8080}}], readinessProbe: {never}}}\n---\n\
         apiVersion: v1\nkind: Pod\nmetadata: {{name: dies}}\nspec:\n  runtimeClassName: wasm\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - {{name: c, image: \"hello:v1\", ports: [{{containerPort: 8080}}], livenessProbe: {never}}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: never}}\nspec: {{selector: {{app: never}}, ports: [{{port: 80, targetPort: 8080}}]}}\n",
        never = probe("/nowhere")
    ))?;
    becomes(&cluster, "never", "{.status.phase}", "Running")?;
    eventually(SOON, || {
        let events = cluster.k("get events --field-selector involvedObject.name=never,reason=Unhealthy")?;
        ensure!(events.contains("Readiness probe failed: HTTP probe failed with statuscode: 404"), "{events}");
        Ok(())
    })?;
    let row = cluster.k("get pod never --no-headers")?;
    ensure!(row.split_whitespace().take(4).eq(["never", "0/1", "Running", "0"]), "{row}");
    let message = cluster.field("pod never", "{.status.conditions[?(@.type==\"Ready\")].message}")?;
    ensure!(message == "containers with unready status: [c]", "{message}");
    let ready = cluster
        .field("endpointslices -l kubernetes.io/service-name=never", "{.items[*].endpoints[*].conditions.ready}")?;
    ensure!(ready == "false", "{ready}");
    let ip = cluster.field("svc never", "{.spec.clusterIP}")?;
    ensure!(cluster.curl(&format!("http://{ip}/")).is_err(), "someone answered");

    // Whom the liveness probe gives up is restarted.
    eventually(SOON, || {
        let count: u32 = cluster.field("pod dies", "{.status.containerStatuses[0].restartCount}")?.parse()?;
        ensure!(count >= 1, "{count} restarts");
        let events = cluster.k("get events --field-selector involvedObject.name=dies")?;
        ensure!(events.contains("Container c failed liveness probe, will be restarted"), "{events}");
        Ok(())
    })
}

#[test]
fn a_deleted_address_of_a_service_comes_back() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.k("create service clusterip web --tcp=80:8080")?;
    let ip = cluster.field("service web", "{.spec.clusterIP}")?;
    cluster.k(&format!("delete ipaddress {ip}"))?;
    eventually(SOON, || {
        let of = cluster.field(&format!("ipaddress {ip}"), "{.spec.parentRef.namespace}/{.spec.parentRef.name}")?;
        ensure!(of == "default/web", "{of}");
        Ok(())
    })?;
    let twice = cluster.k_fails(&format!("create service clusterip dup --tcp=80 --clusterip={ip}"))?;
    ensure!(twice.contains("provided IP is already allocated"), "{twice}");
    Ok(())
}
