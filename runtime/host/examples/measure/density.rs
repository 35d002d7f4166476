//! Many commands that sleep and many servers that nobody asks: how long they take to start, what each costs, and what they
//! cost at rest.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_host::{HttpServer, ServerLimits, check_server, start_command};

use crate::{
    process,
    setup::{HELLO, MISBEHAVE, Setup, policy},
};

/// Where a server listens: any port of the host.
const ANY_PORT: u16 = 0;

/// How long they are watched asleep.
const ASLEEP: Duration = Duration::from_secs(5);

/// Starts so many instances.
pub(crate) fn density(wanted: usize) {
    let setup = Setup::new(MISBEHAVE);
    let before = (process::resident_bytes(), process::mappings(), process::cpu());
    println!("empty: {:.1} MB resident, {} mappings", before.0 as f64 / 1e6, before.1);
    let started = Instant::now();
    let program = setup.program.current();
    let mut made = 0;
    for number in 0..wanted {
        let config = setup.config(&["sleeper", "sleep"]);
        match setup.runtime.handle().block_on(start_command(program.clone(), config)) {
            Ok(running) => drop(setup.runtime.spawn(running.run())),
            Err(error) => {
                println!("instance {number} did not start: {error}");
                break;
            }
        }
        made += 1;
    }
    let each = |bytes: u64| bytes as f64 / made as f64;
    println!("made: {made} in {:?}, {:.1} us of CPU each", started.elapsed(), {
        (process::cpu() - before.2).as_secs_f64() * 1e6 / made as f64
    });
    // All of them have gone to sleep when the process takes no CPU time any more.
    let mut last = process::cpu();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = process::cpu();
        if now - last < Duration::from_millis(2) {
            break;
        }
        last = now;
    }
    let resident = process::resident_bytes();
    println!("asleep: {:.1} MB resident, {:.1} kB each", resident as f64 / 1e6, each(resident - before.0) / 1e3);
    println!("mappings: {}, {:.2} each", process::mappings(), each((process::mappings() - before.1) as u64));
    let cpu = process::cpu();
    std::thread::sleep(ASLEEP);
    println!("idle: {:.3} % of a core", (process::cpu() - cpu).as_secs_f64() / ASLEEP.as_secs_f64() * 100.0);
}

/// Starts so many servers of one component.
pub(crate) fn servers(wanted: usize) {
    let setup = Setup::new(HELLO);
    let before = process::resident_bytes();
    println!("empty: {:.1} MB resident", before as f64 / 1e6);
    let (started, cpu) = (Instant::now(), process::cpu());
    let start = |_| {
        let config = Arc::new(setup.config(&["hello"]));
        let check = check_server(setup.program.current(), config.clone());
        setup.runtime.handle().block_on(check).expect("an instance");
        let (limits, policy) = (ServerLimits::default(), policy(None));
        HttpServer::start(&setup.runtime, setup.program.clone(), config, ANY_PORT, policy, limits).expect("a server")
    };
    let servers: Vec<HttpServer> = (0..wanted).map(start).collect();
    let each = |value: f64| value / servers.len() as f64;
    println!("made: {} in {:?}, {:.1} us of CPU each", servers.len(), started.elapsed(), {
        each((process::cpu() - cpu).as_secs_f64() * 1e6)
    });
    let resident = process::resident_bytes();
    println!("idle: {:.1} MB resident, {:.1} kB each", resident as f64 / 1e6, each((resident - before) as f64 / 1e3));
}
