//! `kubectl top`, and the node's own figures below it, against what pods really do.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::{BUSYBOX, Cluster, PATIENCE, eventually, has_lines};
use serde_json::Value;

const MIB: u64 = 1 << 20;
/// The node of a pod.
const NODE: &str = "{.spec.nodeName}";

/// A row of `kubectl top`: thousandths of a core, and bytes.
#[derive(Debug, Clone, Copy)]
struct Row {
    milli_cores: u64,
    bytes: u64,
}

impl Row {
    fn parse(cpu: &str, memory: &str) -> Result<Self> {
        let milli_cores = cpu.strip_suffix('m').context("cores are in thousandths")?.parse()?;
        let mebibytes: u64 = memory.strip_suffix("Mi").context("memory is in MiB")?.parse()?;
        Ok(Self { milli_cores, bytes: mebibytes * MIB })
    }
}

/// The row of a pod.
fn pod(cluster: &Cluster, name: &str) -> Result<Row> {
    let text = cluster.k(&format!("top pod {name} --no-headers"))?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let [_, cpu, memory] = words[..] else { anyhow::bail!("{text:?}") };
    Row::parse(cpu, memory)
}

/// Waits until a pod is told to use about so much; figures over a time before it did go by.
fn uses(cluster: &Cluster, name: &str, milli_cores: (u64, u64), mebibytes: (u64, u64)) -> Result<()> {
    eventually(PATIENCE, || {
        let row = pod(cluster, name)?;
        let within = |value: u64, (least, most): (u64, u64)| (least..=most).contains(&value);
        ensure!(within(row.milli_cores, milli_cores), "{name}: {row:?}, {milli_cores:?} thousandths are right");
        ensure!(within(row.bytes / MIB, mebibytes), "{name}: {row:?}, {mebibytes:?} MiB are right");
        Ok(())
    })
}

fn raw(cluster: &Cluster, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&cluster.kubectl(&["get", "--raw", path])?)?)
}

/// What the node's agent says of a pod.
fn summary(cluster: &Cluster, pod: &str) -> Result<Value> {
    let node = cluster.field(&format!("pod {pod}"), NODE)?;
    let summary = raw(cluster, &format!("/api/v1/nodes/{node}/proxy/stats/summary"))?;
    let pods = summary["pods"].as_array().context("pods")?;
    let found = pods.iter().find(|one| one["podRef"]["name"] == pod);
    Ok(found.with_context(|| format!("{pod} is not in {summary}"))?.clone())
}

fn number(value: &Value, pointer: &str) -> Result<u64> {
    value.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("{pointer} in {value}"))
}

/// A pod of a component that goes wrong in a way.
fn component(name: &str, arguments: &str, limits: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         runtimeClassName: wasm\n  terminationGracePeriodSeconds: 0\n  containers:\n  - name: main\n    \
         image: misbehave:v1\n    args: {arguments}\n    resources: {{limits: {limits}}}\n---\n"
    )
}

#[test]
fn components_are_told_to_use_what_they_do() -> Result<()> {
    let cluster = Cluster::start()?;
    let pods = [
        component("spins", "[spin]", "{memory: 64Mi}"),
        component("throttled", "[spin]", "{cpu: 200m, memory: 64Mi}"),
        component("holds", "[allocate, '64']", "{memory: 128Mi}"),
        component("waits", "[spin]", "{}").replace("  containers", "  nodeSelector: {none: such}\n  containers"),
    ];
    cluster.apply(&pods.concat())?;
    for name in ["spins", "throttled", "holds"] {
        cluster.ready(name)?;
    }
    // Other tests may take their part of the cores: what it gets is compared with the kernel's count below.
    uses(&cluster, "spins", (300, 1050), (0, 8))?;
    uses(&cluster, "throttled", (150, 250), (0, 8))?;
    uses(&cluster, "holds", (0, 20), (64, 80))?;
    let error = cluster.k_fails("top pod waits")?;
    ensure!(error.contains("pods.metrics.k8s.io \"default/waits\" not found"), "{error}");
    let error = cluster.k_fails("top pod none")?;
    ensure!(error.contains("pods \"none\" not found"), "{error}");

    let sorted = cluster.k("top pods -A --sort-by=cpu --no-headers")?;
    let names: Vec<&str> = sorted.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    ensure!(names == ["spins", "throttled", "holds"], "{sorted}");
    let whole = cluster.k("top pods -A --containers --sum")?;
    let words: Vec<Vec<&str>> = whole.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(words[0] == ["NAMESPACE", "POD", "NAME", "CPU(cores)", "MEMORY(bytes)"], "{whole}");
    ensure!(words.iter().any(|row| row.starts_with(&["default", "holds", "main"])), "{whole}");
    let last = words.last().context("a sum")?;
    let sum = Row::parse(last[last.len() - 2], last[last.len() - 1])?;
    ensure!(sum.milli_cores >= 450 && sum.bytes >= 64 * MIB, "{whole}");
    ensure!(cluster.k("top pods -l app=holds --no-headers")?.lines().count() == 1);
    what_is_told_is_what_the_kernel_counts(&cluster)?;
    the_node_has_figures(&cluster)?;
    the_agent_tells_more(&cluster)
}

/// Components run in the server's process, and two that never stop are most of what it does.
fn what_is_told_is_what_the_kernel_counts(cluster: &Cluster) -> Result<()> {
    let told = || -> Result<Duration> {
        let of = |pod| number(&summary(cluster, pod)?, "/cpu/usageCoreNanoSeconds");
        Ok(Duration::from_nanos(of("spins")? + of("throttled")?))
    };
    let (kernel_before, told_before) = (cluster.cpu_time()?, told()?);
    let told = eventually(PATIENCE, || {
        let used = told()? - told_before;
        ensure!(used >= Duration::from_secs(3), "{used:?}");
        Ok(used)
    })?;
    let counted = cluster.cpu_time()? - kernel_before;
    ensure!(told <= counted + Duration::from_millis(20) && told > counted / 2, "told {told:?}, counted {counted:?}");
    Ok(())
}

/// The node's own figures, in every form that `kubectl` asks for.
fn the_node_has_figures(cluster: &Cluster) -> Result<()> {
    let top = cluster.k("top nodes")?;
    let rows: Vec<Vec<&str>> = top.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows[0] == ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"], "{top}");
    let node = rows[1][0];
    ensure!(Row::parse(rows[1][1], rows[1][3])?.milli_cores >= 450, "{top}");
    let list = raw(cluster, "/apis/metrics.k8s.io/v1beta1/nodes")?;
    ensure!(list["kind"] == "NodeMetricsList" && list["items"][0]["metadata"]["name"] == node, "{list}");
    ensure!(list["items"][0]["metadata"]["labels"]["kubernetes.io/hostname"] == node, "{list}");
    ensure!(list["items"][0]["window"].as_str().is_some_and(|window| window.ends_with('s')), "{list}");
    let table = cluster.k("get nodemetrics")?;
    ensure!(table.split_whitespace().take(4).eq(["NAME", "CPU", "MEMORY", "WINDOW"]), "{table}");
    let table = cluster.k("get podmetrics -A --no-headers")?;
    ensure!(table.lines().count() == 3, "{table}");
    let words = cluster.k("explain podmetrics.containers")?;
    ensure!(words.contains("Metrics for all containers are collected within the same time window."), "{words}");
    let resources = cluster.k("api-resources --api-group=metrics.k8s.io --no-headers")?;
    let resources: Vec<String> =
        resources.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    has_lines(
        &resources.join("\n"),
        &["nodes metrics.k8s.io/v1beta1 false NodeMetrics", "pods metrics.k8s.io/v1beta1 true PodMetrics"],
    )
}

/// `/stats/summary` and `/metrics/resource`.
fn the_agent_tells_more(cluster: &Cluster) -> Result<()> {
    let holds = summary(cluster, "holds")?;
    let held = number(&holds, "/containers/0/memory/workingSetBytes")?;
    ensure!((64 * MIB..80 * MIB).contains(&held), "{holds}");
    ensure!(number(&holds, "/memory/availableBytes")? == 128 * MIB - held, "{holds}");
    ensure!(number(&holds, "/containers/0/logs/usedBytes")? > 0, "{holds}");
    let before = number(&summary(cluster, "throttled")?, "/cpu/usageCoreNanoSeconds")?;
    eventually(PATIENCE, || {
        let now = summary(cluster, "throttled")?;
        ensure!(number(&now, "/cpu/usageCoreNanoSeconds")? > before + 100_000_000, "{now}");
        let rate = number(&now, "/cpu/usageNanoCores")?;
        ensure!((150_000_000..=250_000_000).contains(&rate), "{now}");
        Ok(())
    })?;
    let node = cluster.field("nodes", "{.items[0].metadata.name}")?;
    let all = raw(cluster, &format!("/api/v1/nodes/{node}/proxy/stats/summary"))?;
    for pointer in [
        "/node/cpu/usageNanoCores",
        "/node/memory/availableBytes",
        "/node/memory/workingSetBytes",
        "/node/memory/rssBytes",
        "/node/memory/pageFaults",
        "/node/fs/availableBytes",
        "/node/fs/capacityBytes",
        "/node/runtime/imageFs/usedBytes",
        "/node/runtime/containerFs/capacityBytes",
        "/node/rlimit/curproc",
        "/node/systemContainers/0/memory/rssBytes",
    ] {
        number(&all, pointer)?;
    }
    let few = raw(cluster, &format!("/api/v1/nodes/{node}/proxy/stats/summary?only_cpu_and_memory=true"))?;
    ensure!(few["node"].get("fs").is_none() && few["pods"][0].get("ephemeral-storage").is_none(), "{few}");
    let text = cluster.kubectl(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy/metrics/resource")])?;
    ensure!(text.contains("container_cpu_usage_seconds_total{container=\"main\",namespace=\"default\",pod=\"spins\"}"));
    has_lines(&text, &["resource_scrape_error 0"])
}

#[test]
fn containers_are_told_to_use_what_they_do() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    let busy = "while true; do :; done";
    let writes = "dd if=/dev/zero of=/memory/held bs=1M count=64 && dd if=/dev/zero of=/layer bs=1M count=8 && \
                  dd if=/dev/zero of=/volume/file bs=1M count=4 && mkdir /www && cp /volume/file /www/ && \
                  exec httpd -f -p 80 -h /www";
    let both = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: both}}\nspec:\n  terminationGracePeriodSeconds: 0\n  volumes:\n  \
         - {{name: memory, emptyDir: {{medium: Memory}}}}\n  - {{name: volume, emptyDir: {{}}}}\n  containers:\n  \
         - name: busy\n    image: {BUSYBOX}\n    command: [sh, -c, '{busy}']\n    \
         resources: {{limits: {{cpu: 200m, memory: 32Mi}}}}\n  \
         - name: holds\n    image: {BUSYBOX}\n    command: [sh, -c, '{writes}']\n    \
         resources: {{limits: {{memory: 128Mi}}}}\n    \
         volumeMounts: [{{name: memory, mountPath: /memory}}, {{name: volume, mountPath: /volume}}]\n    \
         readinessProbe: {{tcpSocket: {{port: 80}}, periodSeconds: 1}}\n---\n"
    );
    cluster.apply(&(both + &component("component", "[spin]", "{cpu: 100m, memory: 64Mi}")))?;
    let address = cluster.ready("both")?;
    cluster.ready("component")?;
    uses(&cluster, "both", (150, 260), (64, 100))?;
    uses(&cluster, "component", (70, 140), (0, 8))?;
    let containers = cluster.k("top pod both --containers --no-headers")?;
    let row = |name: &str| -> Result<Row> {
        let line = containers.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        let words: Vec<&str> = line.with_context(|| containers.clone())?.split_whitespace().collect();
        Row::parse(words[2], words[3])
    };
    ensure!((150..=250).contains(&row("busy")?.milli_cores) && row("busy")?.bytes < 8 * MIB, "{containers}");
    ensure!(row("holds")?.milli_cores < 50 && (64..90).contains(&(row("holds")?.bytes / MIB)), "{containers}");

    let sent = |pod: &Value| number(pod, "/network/txBytes");
    let before = sent(&summary(&cluster, "both")?)?;
    cluster.namespace().exec("curl", &["-sS", "--fail", "-o", "/dev/null", &format!("http://{address}/file")])?;
    let pod = summary(&cluster, "both")?;
    let more = sent(&pod)? - before;
    ensure!((4 * MIB..6 * MIB).contains(&more), "{more} bytes were sent, of a file of 4 MiB: {pod}");
    ensure!(pod["network"]["name"] == "eth0" && number(&pod, "/network/rxBytes")? > 0, "{pod}");
    the_disk_is_told(&cluster)?;

    // What one runtime does not tell keeps nothing of the other back.
    machine.kill_runtime()?;
    let node = cluster.field("pod both", NODE)?;
    let path = format!("/api/v1/nodes/{node}/proxy/metrics/resource");
    eventually(PATIENCE, || has_lines(&cluster.kubectl(&["get", "--raw", &path])?, &["resource_scrape_error 1"]))?;
    eventually(PATIENCE, || {
        let error = cluster.k_fails("top pod both")?;
        ensure!(error.contains("pods.metrics.k8s.io \"default/both\" not found"), "{error}");
        Ok(())
    })?;
    uses(&cluster, "component", (70, 140), (0, 8))?;
    machine.start_runtime()?;
    uses(&cluster, "both", (150, 260), (64, 100))
}

/// What the pod has written, where it has written it.
fn the_disk_is_told(cluster: &Cluster) -> Result<()> {
    let pod = summary(cluster, "both")?;
    let volumes = pod["volume"].as_array().context("volumes")?;
    let volume = |name: &str| -> Result<u64> {
        let found = volumes.iter().find(|volume| volume["name"] == name);
        number(found.with_context(|| format!("{name} in {pod}"))?, "/usedBytes")
    };
    ensure!((4 * MIB..5 * MIB).contains(&volume("volume")?), "{pod}");
    ensure!((64 * MIB..65 * MIB).contains(&volume("memory")?), "{pod}");
    // containerd looks at layers every ten seconds.
    eventually(PATIENCE + Duration::from_secs(10), || {
        let pod = summary(cluster, "both")?;
        let containers = pod["containers"].as_array().context("containers")?;
        let holds = containers.iter().find(|one| one["name"] == "holds").context("holds")?;
        let written = number(holds, "/rootfs/usedBytes")?;
        ensure!((12 * MIB..14 * MIB).contains(&written), "{written}: {holds}");
        ensure!(number(holds, "/memory/rssBytes").is_ok() && number(holds, "/memory/pageFaults")? > 0, "{holds}");
        let node = raw(cluster, &format!("/api/v1/nodes/{}/proxy/stats/summary", cluster.field("pod both", NODE)?))?;
        let images = number(&node, "/node/runtime/imageFs/usedBytes")?;
        ensure!(images >= written && number(&node, "/node/runtime/imageFs/inodesUsed")? > 0, "{images}: {node}");
        // The layer and the volume on disk count, what is in memory does not.
        let all = number(&pod, "/ephemeral-storage/usedBytes")?;
        ensure!((16 * MIB..20 * MIB).contains(&all), "{all}: {pod}");
        Ok(())
    })
}
