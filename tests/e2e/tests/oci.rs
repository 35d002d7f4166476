//! Pods of OCI containers, run by containerd: their network, what outlives whom, what is left behind.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::{BUSYBOX, Cluster, Machine, PATIENCE, eventually};

/// A pod that serves its name over HTTP.
fn server(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: web\n    image: {BUSYBOX}\n    \
         command: [sh, -c, 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 80 -h /www']\n    \
         readinessProbe: {{httpGet: {{port: 80, path: /index.html}}, periodSeconds: 1}}\n---\n"
    )
}

/// Runs a command in a pod's container, past the cluster.
fn inside(machine: &Machine, cluster: &Cluster, pod: &str, command: &str) -> Result<String> {
    let id = cluster.field(&format!("pod {pod}"), "{.status.containerStatuses[0].containerID}")?;
    let id = id.strip_prefix("containerd://").with_context(|| format!("{id:?} is not containerd's"))?;
    machine.exec("ctr", &["-n", "k8s.io", "tasks", "exec", "--exec-id", "test", id, "sh", "-c", command])
}

/// What answers a GET at an address, asked from a container. A static wget looks up names of services, and falls over.
fn get(machine: &Machine, cluster: &Cluster, pod: &str, address: &str, path: &str) -> Result<String> {
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let ask = format!("printf 'GET {path} HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n' | nc -w 3 {host} {port}");
    let answer = inside(machine, cluster, pod, &ask)?;
    ensure!(answer.starts_with("HTTP/1.") && answer.contains(" 200 "), "{answer:?}");
    Ok(answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned())
}

#[test]
fn pods_have_addresses_and_reach_services_and_components() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    ensure!(cluster.field("node box", "{.status.nodeInfo.containerRuntimeVersion}")?.starts_with("containerd://"));
    cluster.apply(&(server("one") + &server("two")))?;
    cluster.k("create service clusterip one --tcp=80:80")?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.ready("one")?;
    cluster.ready("two")?;
    let own = cluster.field("pod one", "{.status.podIP}")?;
    let answer = cluster.curl(&format!("http://{own}/index.html"))?;
    ensure!(answer.trim() == "one", "{answer}");
    ensure!(inside(&machine, &cluster, "one", "ip -4 addr show dev eth0")?.contains(&format!("{own}/32")));
    let address = cluster.field("service one", "{.spec.clusterIP}")?;
    let answer = eventually(PATIENCE, || get(&machine, &cluster, "two", &format!("{address}:80"), "/index.html"))?;
    ensure!(answer.trim() == "one", "from a pod over the Service: {answer}");
    let hello = cluster.field("service hello", "{.spec.clusterIP}:{.spec.ports[0].port}")?;
    eventually(PATIENCE, || get(&machine, &cluster, "two", &hello, "/")).context("from a container to a component")?;
    Ok(())
}

#[test]
fn a_pod_in_the_node_s_network_has_its_address() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    let manifest = server("host").replace("spec:\n  ", "spec:\n  hostNetwork: true\n  ").replace("80", "8080");
    cluster.apply(&manifest)?;
    cluster.ready("host")?;
    let node = cluster.field("node box", "{.status.addresses[?(@.type==\"InternalIP\")].address}")?;
    ensure!(cluster.field("pod host", "{.status.podIP}")? == node);
    cluster.curl("http://127.0.0.1:8080/index.html")?;
    let links = machine.namespace().exec("ip", &["-o", "link"])?;
    ensure!(inside(&machine, &cluster, "host", "ip -o link")?.lines().count() == links.lines().count(), "{links}");
    Ok(())
}

#[test]
fn neither_the_agent_s_end_nor_containerd_s_restarts_a_container() -> Result<()> {
    let machine = Arc::new(Machine::start()?);
    let mut cluster = Cluster::start_on(&machine)?;
    cluster.apply(&(server("stays") + &server("falls")))?;
    cluster.ready("stays")?;
    cluster.ready("falls")?;
    let id = |cluster: &Cluster, pod: &str| {
        cluster.field(
            &format!("pod {pod}"),
            "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}",
        )
    };
    let (stays, falls) = (id(&cluster, "stays")?, id(&cluster, "falls")?);
    let address = cluster.field("pod stays", "{.status.podIP}")?;
    cluster.kill()?;
    ensure!(cluster.curl(&format!("http://{address}/index.html"))?.trim() == "stays", "it serves with no agent");
    let container = falls.trim_start_matches("containerd://").split(' ').next().unwrap_or_default().to_owned();
    machine.ctr(&format!("tasks kill -s SIGKILL {container}"))?;
    cluster.launch(&[])?;
    eventually(PATIENCE, || {
        let now = id(&cluster, "falls")?;
        ensure!(now.ends_with(" 1"), "what died meanwhile is restarted: {now}");
        Ok(())
    })?;
    ensure!(id(&cluster, "stays")? == stays, "what lived is the same: {stays}, {}", id(&cluster, "stays")?);
    cluster.ready("falls").map(drop)
}

#[test]
fn a_runtime_that_comes_later_or_goes_away_is_no_obstacle() -> Result<()> {
    let machine = Arc::new(Machine::without_runtime()?);
    let cluster = Cluster::start_on(&machine)?;
    cluster.kubectl(&["apply", "-f", &Cluster::file("examples/hello/")])?;
    cluster.k("wait --for=condition=Available deploy/hello --timeout=30s")?;
    cluster.apply(&server("early"))?;
    eventually(PATIENCE, || {
        let reason = cluster.field("pod early", "{.status.containerStatuses[0].state.waiting.reason}")?;
        ensure!(["ErrImagePull", "ImagePullBackOff"].contains(&reason.as_str()), "{reason}");
        Ok(())
    })?;
    machine.start_runtime()?;
    cluster.ready("early")?;
    let ids = "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    let before = cluster.field("pod early", ids)?;
    machine.kill_runtime()?;
    let address = cluster.field("pod early", "{.status.podIP}")?;
    ensure!(cluster.curl(&format!("http://{address}/index.html"))?.trim() == "early", "it serves with no containerd");
    cluster.apply(&server("late"))?;
    eventually(PATIENCE, || {
        let events = cluster.k("get events --field-selector involvedObject.name=late")?;
        ensure!(events.contains("FailedCreatePodSandBox"), "{events}");
        Ok(())
    })?;
    machine.start_runtime()?;
    cluster.ready("late")?;
    cluster.ready("early")?;
    ensure!(cluster.field("pod early", ids)? == before, "what ran through it is the same");
    Ok(())
}

#[test]
fn pods_leave_nothing_behind() -> Result<()> {
    const PODS: usize = 12;
    let (machine, cluster) = Cluster::with_runtime()?;
    let names: Vec<String> = (0..PODS).map(|n| format!("many-{n}")).collect();
    let count = || -> Result<[BTreeSet<String>; 4]> {
        let links = machine.namespace().exec("ip", &["-o", "link"])?;
        let links = links.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect();
        let routes = machine.namespace().exec("ip", &["route", "show", "table", "all"])?;
        let routes = routes.lines().filter(|line| line.contains("10.42.")).map(str::to_owned).collect();
        let mounts =
            machine.mounts()?.into_iter().filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect();
        let processes = machine.processes()?.into_iter().map(|(_, line)| line).collect();
        Ok([links, routes, mounts, processes])
    };
    // The first pod makes what stays: the network plugin, the image.
    cluster.apply(&server("first"))?;
    cluster.ready("first")?;
    cluster.k("delete pod first")?;
    let before = eventually(PATIENCE, || {
        let now = count()?;
        ensure!(!now[0].iter().any(|link| link.starts_with("cor")), "{:?}", now[0]);
        Ok(now)
    })?;
    let begun = Instant::now();
    cluster.apply(&names.iter().map(|name| server(name)).collect::<String>())?;
    for name in &names {
        cluster.ready(name)?;
    }
    println!("{PODS} pods at once, all Ready: {:?}", begun.elapsed());
    cluster.kubectl(&[&["delete", "pod"], &names.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())?;
    eventually(PATIENCE, || {
        let after = count()?;
        for (before, after) in before.iter().zip(&after) {
            let more: Vec<&String> = after.difference(before).collect();
            ensure!(more.is_empty(), "left behind: {more:#?}");
        }
        let left = machine.ctr("containers ls -q")?;
        ensure!(left.trim().is_empty(), "containers: {left}");
        Ok(())
    })?;
    Ok(())
}

/// Prints how long pods take; a bound would measure the machine's other work.
#[test]
fn a_pod_is_ready_soon() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    let mut took = Vec::new();
    for n in 0..6 {
        let name = format!("quick-{n}");
        let pod = server(&name);
        // No probe: it is Ready as soon as it runs.
        let pod = pod.lines().filter(|line| !line.contains("readinessProbe")).collect::<Vec<_>>().join("\n");
        let begun = Instant::now();
        cluster.apply(&pod)?;
        let applied = begun.elapsed();
        cluster.ready(&name)?;
        took.push((applied, begun.elapsed()));
    }
    println!("kubectl apply, and until Ready, one after another: {took:?}");
    ensure!(took.iter().all(|(_, took)| *took < PATIENCE));
    Ok(())
}
