//! A program that works in the background: it reads its settings from a ConfigMap and a Secret, counts in a volume, says each
//! second how far it is, and ends cleanly when it is asked to.

mod files;

use wasip2::cli::environment::get_environment;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll::poll;

use bindings::coracle::runtime::shutdown;

/// What the shutdown interface looks like from here; the rest is WASI.
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "graceful",
        with: { "wasi:io/poll@0.2.12": wasip2::io::poll },
    });
}

/// Where the Deployment mounts things.
const CONFIG: &str = "/etc/worker/config";
const SECRET: &str = "/etc/worker/secret";
const COUNT: &str = "/data/count";

const DEFAULT_INTERVAL_MS: u64 = 1000;

struct Worker;

wasip2::cli::command::export!(Worker);

impl wasip2::exports::cli::run::Guest for Worker {
    fn run() -> Result<(), ()> {
        work().map_err(|problem| files::say_error(&format!("worker: {problem}")))
    }
}

fn work() -> Result<(), String> {
    let env = get_environment();
    let find = |wanted: &str| env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let greeting = find("GREETING").unwrap_or("no greeting");
    let interval_ms = match find("INTERVAL_MS") {
        None => DEFAULT_INTERVAL_MS,
        Some(text) => text.parse().map_err(|_| format!("INTERVAL_MS is {text:?}, not a number"))?,
    };
    files::say(&format!("worker: starting, greeting {greeting:?}"));
    // A secret's length proves that it is here; its value belongs in no log.
    let token = find("TOKEN").unwrap_or_default();
    files::say(&format!("worker: token of {} bytes", token.len()));
    for (what, directory) in [("config", CONFIG), ("secret", SECRET)] {
        for name in files::list(directory) {
            let bytes = files::read(&format!("{directory}/{name}"))?.unwrap_or_default();
            files::say(&format!("worker: {what} file {name} of {} bytes", bytes.len()));
        }
    }
    count(greeting, interval_ms)
}

/// Counts on from where the volume says, until the container is to end.
fn count(greeting: &str, interval_ms: u64) -> Result<(), String> {
    let mut count = match files::read(COUNT)? {
        None => 0,
        Some(bytes) => String::from_utf8_lossy(&bytes).trim().parse::<u64>().unwrap_or(0),
    };
    let end = shutdown::subscribe();
    loop {
        let tick = subscribe_duration(interval_ms * 1_000_000);
        poll(&[&tick, &end]);
        if shutdown::requested() {
            files::say(&format!("worker: asked to end at {count}"));
            return Ok(());
        }
        count += 1;
        files::write(COUNT, format!("{count}\n").as_bytes())?;
        files::say(&format!("{greeting} {count}"));
    }
}
