//! `kubectl logs` with each of its flags.

use std::time::Duration;

use anyhow::{Result, ensure};
use coracle_e2e::{Cluster, eventually};

const SOON: Duration = Duration::from_secs(30);

fn pod(name: &str, policy: &str, containers: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  runtimeClassName: wasm\n  \
         terminationGracePeriodSeconds: 1\n  restartPolicy: {policy}\n{containers}---\n"
    )
}

fn container(name: &str, words: &str) -> String {
    format!("  - {{name: {name}, image: \"misbehave:v1\", imagePullPolicy: IfNotPresent, args: {words}}}\n")
}

#[test]
fn logs_can_be_read_in_every_way() -> Result<()> {
    let cluster = Cluster::start()?;
    let talks = format!("  containers:\n{}", container("c", "[print, \"5\"]"));
    cluster.apply(&pod("talks", "Never", &talks))?;
    cluster.k("wait --for=jsonpath={.status.phase}=Succeeded pod/talks --timeout=30s")?;
    let whole = "line 1\nline 2\nline 3\nline 4\nline 5\n";
    for (line, expect) in [
        ("logs talks", whole),
        ("logs pod/talks", whole),
        ("logs talks c", whole),
        ("logs talks -f -c c", whole),
        ("logs talks --since=1h", whole),
        ("logs talks --since-time=2020-01-01T00:00:00Z", whole),
        ("logs talks --since-time=2100-01-01T00:00:00Z", ""),
        ("logs talks --tail=2", "line 4\nline 5\n"),
        ("logs talks --tail=0", ""),
        ("logs talks --tail=-1", whole),
        ("logs talks --limit-bytes=6", "line 1"),
        ("logs talks --prefix --tail=1", "[pod/talks/c] line 5\n"),
    ] {
        let actual = cluster.k(line)?;
        ensure!(actual == expect, "{line}: {actual}");
    }
    let stamped = cluster.k("logs talks --timestamps")?;
    ensure!(stamped.lines().count() == 5, "{stamped}");
    ensure!(
        stamped.lines().all(|l| l.split(' ').next().is_some_and(|t| t.contains('T') && t.ends_with('Z'))),
        "{stamped}"
    );
    let wrong = cluster.k_fails("logs talks -c other")?;
    ensure!(wrong.contains("container other is not valid for pod talks"), "{wrong}");
    let none = cluster.k_fails("logs nobody")?;
    ensure!(none.contains("(NotFound): pods \"nobody\" not found"), "{none}");
    let previous = cluster.k_fails("logs talks --previous")?;
    ensure!(previous.contains("previous terminated container \"c\" in pod \"talks\" not found"), "{previous}");
    Ok(())
}

#[test]
fn logs_of_several_containers_and_of_earlier_ones() -> Result<()> {
    let cluster = Cluster::start()?;
    let several = format!(
        "  initContainers:\n{}  containers:\n{}{}",
        container("before", "[print, \"1\"]"),
        container("one", "[print, \"2\"]"),
        container("two", "[partial, unfinished]")
    );
    let again = format!("  containers:\n{}", container("c", "[crash-after, \"1\"]"));
    cluster.apply(&(pod("many", "Never", &several) + &pod("again", "Always", &again)))?;
    cluster.k("wait --for=jsonpath={.status.phase}=Succeeded pod/many --timeout=30s")?;
    ensure!(cluster.k("logs many -c before")? == "line 1\n");
    ensure!(cluster.k("logs many -c two")? == "unfinished");
    let all = cluster.k("logs many --all-containers --prefix")?;
    for line in ["[pod/many/before] line 1", "[pod/many/one] line 2", "[pod/many/two] unfinished"] {
        ensure!(all.contains(line), "{all}");
    }
    let default = cluster.kubectl_run(&["logs", "many"], None)?;
    ensure!(default.stdout == "line 1\nline 2\n", "{default:?}");
    ensure!(default.stderr.contains("Defaulted container \"one\" out of: one, two, before (init)"), "{default:?}");
    ensure!(cluster.k("logs -l app=many -c one --tail=1")? == "line 2\n");

    // The run before the last is readable while the next one goes on, or waits to.
    cluster.k("wait --for=jsonpath={.status.containerStatuses[0].restartCount}=1 pod/again --timeout=30s")?;
    eventually(SOON, || {
        let previous = cluster.k("logs again --previous")?;
        ensure!(previous == "misbehave: up\nmisbehave: going down\n", "{previous}");
        Ok(())
    })
}

#[test]
fn a_log_is_followed_to_its_end() -> Result<()> {
    let cluster = Cluster::start()?;
    let ticks = format!("  containers:\n{}", container("c", "[tick, \"3\"]"));
    let on = format!("  containers:\n{}", container("c", "[tick]"));
    cluster.apply(&(pod("ticks", "Never", &ticks) + &pod("goes-on", "Never", &on)))?;
    cluster.k("wait --for=condition=Ready pod/goes-on --timeout=30s")?;
    // One that ends by itself, and two that are ended by the pod's.
    let follow = cluster.k_runs("logs -f ticks")?;
    let mut other = cluster.k_runs("logs -f goes-on --tail=1 --timestamps")?;
    let labelled = cluster.k_runs("logs -f -l app=goes-on --prefix")?;
    ensure!(follow.ended(SOON)? == ["tick 1", "tick 2", "tick 3"]);
    let from = other.line(SOON, |line| line.ends_with("tick 3"))?;
    ensure!(from.split_once(' ').is_some_and(|(time, _)| time.ends_with('Z')), "{from}");
    labelled.line(SOON, |line| line == "[pod/goes-on/c] tick 3")?;
    ensure!(other.is_alive()?, "it left before the container");
    cluster.k("delete pod goes-on --wait=false")?;
    other.ended(SOON)?;
    labelled.ended(SOON)?;
    Ok(())
}
