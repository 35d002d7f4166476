//! CPU time of an instance, and of a request through the whole server.

use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_host::{HttpServer, InstancePolicy, ServerLimits, check_server};

use crate::{
    process,
    setup::{HELLO, Setup},
};

/// How long instances are made.
const MEASURE: Duration = Duration::from_secs(3);

/// Where the server listens: any port of the host.
const ANY_PORT: u16 = 0;

/// Makes and drops instances of a server on one thread.
pub(crate) fn instances(component: &str) {
    let setup = Setup::new(component);
    let (program, config) = (setup.program.current(), Arc::new(setup.config(&["app"])));
    let make = async move {
        let mut done = 0_u32;
        let (started, cpu) = (Instant::now(), process::cpu());
        while started.elapsed() < MEASURE {
            for _ in 0..100 {
                check_server(program.clone(), config.clone()).await.expect("an instance");
            }
            done += 100;
        }
        (done, process::cpu() - cpu)
    };
    let (done, cpu) = setup.runtime.handle().block_on(setup.runtime.spawn(make)).expect("it runs");
    println!("instances: {done}, {:.1} us of CPU each", cpu.as_secs_f64() * 1e6 / f64::from(done));
}

/// Serves requests of a client in a process of its own.
pub(crate) fn requests(time: Duration, connections: usize, policy: InstancePolicy) {
    let setup = Setup::new(HELLO);
    let config = Arc::new(setup.config(&["hello"]));
    let start = HttpServer::start(
        &setup.runtime,
        setup.program.clone(),
        config.clone(),
        ANY_PORT,
        policy,
        ServerLimits::default(),
    );
    let server = start.expect("a server");
    let address = server.addresses().iter().find(|address| address.is_ipv4()).expect("IPv4");
    let cpu = process::cpu();
    let client = Command::new(std::env::current_exe().expect("this program"))
        .args(["client", &format!("127.0.0.1:{}", address.port())])
        .args([connections.to_string(), time.as_secs().to_string()])
        .stdout(Stdio::inherit())
        .status();
    assert!(client.expect("a client").success(), "the client failed");
    let (cpu, requests) = (process::cpu() - cpu, server.stats().requests);
    let each = cpu.as_secs_f64() * 1e6 / requests as f64;
    println!("server: {requests} requests, {each:.1} us of CPU each, {:.0} requests/s per core", 1e6 / each);
    println!("guests: {:.1} us of it", config.cpu.used_nanos() as f64 / 1e3 / requests as f64);
    println!("resident: {:.1} MB", process::resident_bytes() as f64 / 1e6);
    println!("failures: {}", server.stats().failures);
}
