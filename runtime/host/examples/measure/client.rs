//! A client that keeps connections open and sends one request after the other on each.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: hello.default\r\nuser-agent: measure\r\naccept: */*\r\n\r\n";

/// How both forms of the answer end: in chunks, or with a length.
const ENDS: [&[u8]; 2] = [b"\r\n0\r\n\r\n", b"\r\n\r\nok\n"];

/// Asks for so many seconds; prints the rate and the latencies.
pub(crate) fn run(address: &str, connections: usize, seconds: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let until = Instant::now() + Duration::from_secs(seconds);
    let latencies = runtime.block_on(async {
        let tasks: Vec<_> = (0..connections).map(|_| tokio::spawn(connection(address.to_owned(), until))).collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.expect("a connection"));
        }
        latencies
    });
    let mut latencies: Vec<Duration> = latencies;
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let rate = latencies.len() as f64 / seconds as f64;
    println!("client: {rate:.0} requests/s, p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0));
}

async fn connection(address: String, until: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("an option");
    let (mut latencies, mut buffer) = (Vec::new(), Vec::with_capacity(4096));
    while Instant::now() < until {
        let begun = Instant::now();
        stream.write_all(REQUEST).await.expect("it is sent");
        buffer.clear();
        while !ENDS.iter().any(|end| buffer.ends_with(end)) {
            assert!(stream.read_buf(&mut buffer).await.expect("an answer") > 0, "the server went away");
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
        latencies.push(begun.elapsed());
    }
    latencies
}
