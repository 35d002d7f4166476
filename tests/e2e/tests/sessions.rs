//! `kubectl exec`, `cp`, `attach` and `port-forward` on OCI containers, over WebSocket and over SPDY.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::streams::{Forward, WAYS, kubectl};
use coracle_e2e::{BUSYBOX, Cluster, Output, PATIENCE, eventually, run};

fn pod(cluster: &Cluster, name: &str, container: &str) -> Result<()> {
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  \
         containers:\n  - {{name: main, image: {BUSYBOX}, {container}}}\n"
    ))?;
    cluster.ready(name).map(drop)
}

fn exec(cluster: &Cluster, websockets: &str, arguments: &[&str], input: Option<&str>) -> Result<Output> {
    let mut command = kubectl(cluster, websockets);
    command.arg("exec").args(arguments);
    run(command, input)
}

/// The same in a terminal of `rows` and `columns`, which is typed into.
fn typed(cluster: &Cluster, websockets: &str, arguments: &str, keys: &str) -> Result<Output> {
    let line = format!("stty rows 33 cols 101; exec {} {arguments}", shown(&kubectl(cluster, websockets)));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
    run(command, Some(keys))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_command_has_its_streams_and_its_exit_code() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    pod(&cluster, "box", "command: [sleep, '100000']")?;
    for (way, websockets) in WAYS {
        let done = exec(&cluster, websockets, &["box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], None)?;
        ensure!(done.code == Some(7) && done.stdout == "out\n", "{way}: {done:?}");
        ensure!(done.stderr.starts_with("err\n") && done.stderr.contains("exit code 7"), "{way}: {done:?}");
        let done = exec(&cluster, websockets, &["-i", "box", "--", "sh", "-c", "cat; echo end"], Some("one\ntwo\n"))?;
        ensure!(done.code == Some(0) && done.stdout == "one\ntwo\nend\n", "{way}: stdin ends: {done:?}");
        // More than any buffer on the way, in both directions.
        let much = "0123456789abcde\n".repeat(200_000);
        let done = exec(&cluster, websockets, &["-i", "box", "--", "cat"], Some(&much));
        ensure!(done?.stdout == much, "{way}: {} bytes come back", much.len());
        let done = exec(&cluster, websockets, &["box", "-c", "none", "--", "true"], None)?.fails()?;
        ensure!(done.contains("container none is not valid for pod box"), "{way}: {done}");
        let done = exec(&cluster, websockets, &["box", "--", "no-such-program"], None)?;
        ensure!(done.code.is_some_and(|code| code != 0) && done.stderr.contains("no-such-program"), "{way}: {done:?}");
    }
    Ok(())
}

#[test]
fn a_terminal_has_the_client_s_size() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    pod(&cluster, "box", "command: [sleep, '100000']")?;
    for (way, websockets) in WAYS {
        // The size comes after the command has begun.
        let wait = r#"for n in $(seq 100); do [ "$(stty size)" = "33 101" ] && break; sleep 0.1; done"#;
        let line = format!("exec -it box -- sh -c '{wait}; stty size; tty; read word; echo got-$word; exit 3'");
        let done = typed(&cluster, websockets, &line, "hello\n")?;
        ensure!(done.stdout.contains("33 101") && done.stdout.contains("/dev/pts/"), "{way}: {done:?}");
        ensure!(done.stdout.contains("got-hello") && done.code == Some(3), "{way}: {done:?}");
    }
    Ok(())
}

#[test]
fn files_are_copied_whole() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    pod(&cluster, "box", "command: [sleep, '100000']")?;
    let (there, back) = (machine.dir().join("there"), machine.dir().join("back"));
    let mut make = Command::new("dd");
    make.args(["if=/dev/urandom", "bs=1M", "count=100", &format!("of={}", there.display())]);
    run(make, None)?.ok()?;
    let sum = |file: &str| -> Result<String> {
        let mut command = Command::new("sha256sum");
        command.arg(file);
        Ok(run(command, None)?.ok()?.split(' ').next().unwrap_or_default().to_owned())
    };
    let expected = sum(&there.display().to_string())?;
    for (way, websockets) in WAYS {
        let begun = std::time::Instant::now();
        let mut copy = kubectl(&cluster, websockets);
        copy.args(["cp", &there.display().to_string(), "box:/tmp/file"]);
        run(copy, None)?.ok()?;
        let took = begun.elapsed();
        let inside = exec(&cluster, websockets, &["box", "--", "sha256sum", "/tmp/file"], None)?.ok()?;
        ensure!(inside.starts_with(&expected), "{way}: into the container: {inside}");
        let begun = std::time::Instant::now();
        let mut copy = kubectl(&cluster, websockets);
        copy.args(["cp", "box:/tmp/file", &back.display().to_string()]);
        run(copy, None)?.ok()?;
        ensure!(sum(&back.display().to_string())? == expected, "{way}: out of the container");
        println!("{way}: 100 MiB in {took:?}, out in {:?}", begun.elapsed());
    }
    Ok(())
}

#[test]
fn attaching_joins_what_runs() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    pod(&cluster, "talks", "stdin: true, stdinOnce: false, command: [sh, -c, 'while read w; do echo heard-$w; done']")?;
    for (way, websockets) in WAYS {
        let mut command = kubectl(&cluster, websockets);
        command.args(["attach", "-i", "talks"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("stdin")?;
        let mut stdout = child.stdout.take().context("stdout")?;
        stdin.write_all(b"one\n")?;
        let mut heard = [0; 10];
        stdout.read_exact(&mut heard)?;
        ensure!(&heard == b"heard-one\n", "{way}: {:?}", String::from_utf8_lossy(&heard));
        child.kill()?;
        child.wait()?;
    }
    let restarts = cluster.field("pod talks", "{.status.containerStatuses[0].restartCount}")?;
    ensure!(restarts == "0", "it goes on when clients leave");
    let ran = cluster.kubectl_run(
        &["run", "once", "-i", "--rm", "--restart=Never", "--image", BUSYBOX, "--", "sh", "-c", "cat; exit 4"],
        Some("through\n"),
    )?;
    ensure!(ran.stdout.contains("through"), "{ran:?}");
    Ok(())
}

/// What a web server answers.
fn fetched(port: u16, path: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no head")?;
    Ok(answer.split_off(head + 4))
}

#[test]
fn ports_are_forwarded_under_load() -> Result<()> {
    let (_machine, cluster) = Cluster::with_runtime()?;
    let make = "mkdir /www; dd if=/dev/urandom of=/www/small bs=1k count=300; dd if=/dev/urandom of=/www/large bs=1M count=100";
    let serve = "exec httpd -f -p 7000 -h /www";
    let probe = "readinessProbe: {tcpSocket: {port: 7000}, periodSeconds: 1}";
    pod(&cluster, "web", &format!("{probe}, command: [sh, -c, '{make}; {serve}']"))?;
    for (way, websockets) in WAYS {
        let forward = Forward::start(&cluster, websockets, "pod/web", 7000)?;
        let port = forward.port;
        let (small, large) = cluster.namespace().inside(|| {
            let small = std::thread::scope(|scope| {
                let all: Vec<_> = (0..40).map(|_| scope.spawn(move || fetched(port, "/small"))).collect();
                let all = all.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("panic"))?);
                all.collect::<Result<Vec<Vec<u8>>>>()
            })?;
            let begun = std::time::Instant::now();
            let large = fetched(port, "/large")?;
            println!("{way}: 100 MiB through a forwarded port in {:?}", begun.elapsed());
            anyhow::Ok((small, large.len()))
        })?;
        ensure!(small.iter().all(|one| one.len() == 300 << 10 && *one == small[0]), "{way}: not all are the same");
        ensure!(large == 100 << 20, "{way}: {large} bytes");
    }
    Ok(())
}

/// What a client that is killed leaves behind: nothing.
#[test]
fn clients_that_are_killed_leave_nothing() -> Result<()> {
    let (machine, cluster) = Cluster::with_runtime()?;
    pod(&cluster, "box", "command: [sleep, '100000']")?;
    let connections = || -> Result<usize> {
        let all = machine.namespace().exec("ss", &["-tnpH", "state", "established"])?;
        Ok(all.lines().filter(|line| line.contains("\"containerd\"")).count())
    };
    let before = eventually(PATIENCE, &connections)?;
    let mut clients = Vec::new();
    for (_, websockets) in WAYS {
        for _ in 0..5 {
            let mut command = kubectl(&cluster, websockets);
            command.args(["exec", "-i", "box", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
            clients.push(command.spawn()?);
        }
    }
    let id = cluster.field("pod box", "{.status.containerStatuses[0].containerID}")?;
    let id = id.trim_start_matches("containerd://").to_owned();
    // A line for each process, and a heading.
    let cats = || -> Result<usize> { Ok(machine.ctr(&format!("tasks ps {id}"))?.lines().count().saturating_sub(2)) };
    eventually(PATIENCE, || {
        let (run, now) = (cats()?, connections()?);
        ensure!(run == clients.len() && now >= before + clients.len(), "{run} run, {now} connections");
        Ok(())
    })?;
    for client in &mut clients {
        client.kill()?;
        client.wait()?;
    }
    eventually(PATIENCE, || {
        let run = cats()?;
        ensure!(run == 0, "{run} still run");
        let now = connections()?;
        ensure!(now <= before, "{now} connections to the runtime, there were {before}");
        Ok(())
    })
}
