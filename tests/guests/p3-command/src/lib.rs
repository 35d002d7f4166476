//! A program of WASI 0.3 that does what its arguments say, one after the other: `say=TEXT`, `args`, `env`, `cwd`, `dirs`,
//! `resolve=NAME`, `connect=ADDRESS:PORT` (sends a word to an echo server), `sleep=MS`, `exit=CODE`, `fail`.

use std::net::SocketAddrV4;

use wasip3::{
    cli::{environment, exit::exit_with_code, stdout::write_via_stream},
    clocks::monotonic_clock::wait_for,
    filesystem::preopens::get_directories,
    sockets::{
        ip_name_lookup::resolve_addresses,
        types::{IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket},
    },
    wit_stream,
};

struct Program;

wasip3::cli::command::export!(Program);

impl wasip3::exports::cli::run::Guest for Program {
    async fn run() -> Result<(), ()> {
        for order in environment::get_arguments().iter().skip(1) {
            let (verb, rest) = order.split_once('=').unwrap_or((order, ""));
            if let Err(problem) = obey(verb, rest).await {
                say(&format!("{order}: {problem}")).await;
                return Err(());
            }
        }
        Ok(())
    }
}

async fn obey(verb: &str, rest: &str) -> Result<(), String> {
    match verb {
        "say" => say(rest).await,
        "args" => say(&environment::get_arguments().join(" ")).await,
        "env" => {
            for (name, value) in environment::get_environment() {
                say(&format!("{name}={value}")).await;
            }
        }
        "cwd" => say(&environment::get_initial_cwd().unwrap_or_default()).await,
        "dirs" => {
            for (_, path) in get_directories() {
                say(&path).await;
            }
        }
        "resolve" => {
            let found = resolve_addresses(rest.to_owned()).await.map_err(|error| format!("{error:?}"))?;
            for address in found {
                let IpAddress::Ipv4((a, b, c, d)) = address else { continue };
                say(&format!("{a}.{b}.{c}.{d}")).await;
            }
        }
        "connect" => connect(rest).await?,
        "sleep" => wait_for(rest.parse::<u64>().map_err(|error| error.to_string())? * 1_000_000).await,
        "exit" => exit_with_code(rest.parse().map_err(|_| "that is no exit code".to_owned())?),
        "fail" => return Err("as asked".to_owned()),
        _ => return Err("that is no order".to_owned()),
    }
    Ok(())
}

/// Sends a word and waits until it comes back.
async fn connect(target: &str) -> Result<(), String> {
    const WORD: &[u8] = b"echo of 0.3\n";
    let target: SocketAddrV4 = target.parse().map_err(|_| "that is no IPv4 address with a port".to_owned())?;
    let [a, b, c, d] = target.ip().octets();
    let remote = Ipv4SocketAddress { address: (a, b, c, d), port: target.port() };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(|error| format!("{error:?}"))?;
    socket.connect(IpSocketAddress::Ipv4(remote)).await.map_err(|error| format!("{error:?}"))?;
    let (mut writer, reader) = wit_stream::new();
    let sent = socket.send(reader);
    writer.write_all(WORD.to_vec()).await;
    let (mut incoming, _) = socket.receive();
    let mut heard = Vec::new();
    while heard.len() < WORD.len() {
        match incoming.next().await {
            Some(byte) => heard.push(byte),
            None => return Err(format!("only {} bytes came back", heard.len())),
        }
    }
    drop(writer);
    let _ = sent.await;
    say(&String::from_utf8_lossy(&heard)).await;
    Ok(())
}

async fn say(line: &str) {
    let (mut writer, reader) = wit_stream::new();
    let written = write_via_stream(reader);
    writer.write_all(format!("{}\n", line.trim_end()).into_bytes()).await;
    drop(writer);
    let _ = written.await;
}
