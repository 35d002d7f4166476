//! Figures of the Wasm runtime by itself, with the program's own allocator. Each line is one figure.
//!
//! ```text
//! cargo run --profile fast -p coracle-host --example measure -- instances [COMPONENT]
//! cargo run --profile fast -p coracle-host --example measure -- requests [SECONDS [CONNECTIONS [reuse]]]
//! cargo run --profile fast -p coracle-host --example measure -- density [INSTANCES]
//! cargo run --profile fast -p coracle-host --example measure -- servers [SERVERS]
//! cargo run --profile fast -p coracle-host --example measure -- fairness [SPINNING]
//! ```

mod client;
mod density;
mod fairness;
mod process;
mod requests;
mod setup;

use std::{env, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let words: Vec<String> = env::args().skip(1).collect();
    let word = |at: usize| words.get(at).map(String::as_str);
    let number = |at: usize, otherwise: usize| word(at).map_or(otherwise, |word| word.parse().expect("a number"));
    match word(0) {
        Some("instances") => requests::instances(word(1).unwrap_or(setup::HELLO)),
        Some("requests") => {
            let seconds = Duration::from_secs(number(1, 5) as u64);
            requests::requests(seconds, number(2, 32), setup::policy(word(3)));
        }
        Some("density") => density::density(number(1, 10_000)),
        Some("servers") => density::servers(number(1, 1000)),
        Some("fairness") => fairness::fairness(number(1, 4)),
        // What `requests` starts as a process of its own, so that its CPU time is not the server's.
        Some("client") => client::run(word(1).expect("an address"), number(2, 32), number(3, 5) as u64),
        _ => panic!("say what to measure: instances, requests, density, servers or fairness"),
    }
}
