//! `kubectl attach`, `exec` and `port-forward` on components.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::streams::{Forward, WAYS, echoed, kubectl};
use coracle_e2e::{Cluster, run};

/// Longest wait for a pod.
const PATIENCE: &str = "--timeout=30s";

fn pod(cluster: &Cluster, name: &str, image: &str, words: &str) -> Result<()> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  runtimeClassName: wasm\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - {{name: main, image: {image}, imagePullPolicy: IfNotPresent, \
         args: [{words}]}}\n"
    ))?;
    cluster.k(&format!("wait --for=condition=Ready pod/{name} {PATIENCE}")).map(drop)
}

#[test]
fn attaching_shows_what_comes_from_then_on() -> Result<()> {
    let cluster = Cluster::start()?;
    pod(&cluster, "ticks", "misbehave:v1", "tick")?;
    for (way, websockets) in WAYS {
        let mut command = kubectl(&cluster, websockets);
        command.args(["attach", "ticks"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
        let numbers: Vec<u64> = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("tick ").and_then(|number| number.parse().ok()))
            .take(3)
            .collect();
        child.kill()?;
        child.wait()?;
        ensure!(numbers.len() == 3 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{way}: {numbers:?}");
    }
    Ok(())
}

#[test]
fn exec_says_why_not() -> Result<()> {
    let cluster = Cluster::start()?;
    pod(&cluster, "ticks", "misbehave:v1", "tick")?;
    for (way, websockets) in WAYS {
        let mut command = kubectl(&cluster, websockets);
        command.args(["exec", "ticks", "--", "ls"]);
        let said = run(command, None)?.fails()?;
        ensure!(said.contains("a WebAssembly component is one program without a shell"), "{way}: {said}");
    }
    Ok(())
}

#[test]
fn ports_of_a_component_are_forwarded() -> Result<()> {
    let cluster = Cluster::start()?;
    pod(&cluster, "echo", "tcp-echo:v1", "listen, '7777'")?;
    for (way, websockets) in WAYS {
        let forward = Forward::start(&cluster, websockets, "pod/echo", 7777)?;
        let port = forward.port;
        cluster.namespace().inside(|| {
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..30_u8).map(|n| scope.spawn(move || echoed(port, &vec![n; 300_000]))).collect();
                for (n, one) in all.into_iter().enumerate() {
                    let done = one.join().map_err(|_| anyhow::anyhow!("panic"))?;
                    done.with_context(|| format!("{way}: connection {n}"))?;
                }
                anyhow::Ok(())
            })
        })?;
        drop(forward);
        // A port on which nobody listens: the client is told, and its connection ends.
        let forward = Forward::start(&cluster, websockets, "pod/echo", 7778)?;
        let port = forward.port;
        let refused = cluster.namespace().inside(|| echoed(port, b"x"));
        ensure!(refused.is_err(), "{way}: nobody listens there");
    }
    Ok(())
}

/// More clients than one, none of which holds another back.
#[test]
fn a_client_that_does_not_read_holds_nobody_back() -> Result<()> {
    let cluster = Cluster::start()?;
    pod(&cluster, "ticks", "misbehave:v1", "tick")?;
    let mut deaf = kubectl(&cluster, "true");
    deaf.args(["attach", "ticks"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut deaf = deaf.spawn()?;
    let follows = cluster.k_runs("logs -f ticks")?;
    for number in 1..=20 {
        follows.line(Duration::from_secs(20), |line| line == format!("tick {number}"))?;
    }
    deaf.kill()?;
    deaf.wait()?;
    Ok(())
}
