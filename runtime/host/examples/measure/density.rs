//! Many commands that sleep: how long they take to start, what each costs, and what they cost asleep.

use std::time::{Duration, Instant};

use coracle_host::start_command;

use crate::{
    process,
    setup::{MISBEHAVE, Setup},
};

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
        match setup.runtime.handle().block_on(start_command(&program, config)) {
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
