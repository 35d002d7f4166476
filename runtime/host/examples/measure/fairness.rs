//! How late a timer among guests is while others compute without ever calling the host.

use std::time::{Duration, Instant};

use coracle_host::start_command;

use crate::setup::{MISBEHAVE, Setup};

/// Timers that are measured.
const TIMERS: u32 = 300;

/// Time that each waits.
const WAIT: Duration = Duration::from_millis(10);

/// Measures beside so many computing guests.
pub(crate) fn fairness(spinning: usize) {
    let setup = Setup::new(MISBEHAVE);
    let program = setup.program.current();
    for _ in 0..spinning {
        let start = start_command(program.clone(), setup.config(&["spinner", "spin"]));
        let running = setup.runtime.handle().block_on(start).expect("an instance");
        drop(setup.runtime.spawn(running.run()));
    }
    let measure = async {
        let mut late = Vec::new();
        for _ in 0..TIMERS {
            let due = Instant::now() + WAIT;
            tokio::time::sleep_until(due.into()).await;
            late.push(due.elapsed());
        }
        late.sort_unstable();
        late
    };
    let late = setup.runtime.handle().block_on(setup.runtime.spawn(measure)).expect("it runs");
    let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
    println!("{spinning} spinning: timers late by p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0));
}
