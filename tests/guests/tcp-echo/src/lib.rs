//! Plain TCP: `listen [PORT]` answers each connection with what it sent, `connect HOST:PORT TEXT` prints what comes back,
//! `lookup HOST` prints a name's addresses. At most so many connections at once; a further one waits in the backlog.

use wasip2::cli::environment::get_arguments;
use wasip2::cli::{stderr::get_stderr, stdout::get_stdout};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::{ShutdownType, TcpSocket};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

const DEFAULT_PORT: u16 = 7;
const MAX_CONNECTIONS: usize = 64;
const CHUNK_BYTES: u64 = 4096;

struct TcpEcho;

wasip2::cli::command::export!(TcpEcho);

impl wasip2::exports::cli::run::Guest for TcpEcho {
    fn run() -> Result<(), ()> {
        let args = get_arguments();
        let result = match args.iter().position(|arg| ["listen", "connect", "lookup"].contains(&arg.as_str())) {
            Some(at) => obey(&args[at], &args[at + 1..]),
            None => obey("listen", &[]),
        };
        result.map_err(|problem| say(&get_stderr(), &format!("tcp-echo: {problem}")))
    }
}

fn obey(mode: &str, args: &[String]) -> Result<(), String> {
    let first = args.first().map(String::as_str);
    match (mode, first) {
        ("listen", None) => listen(DEFAULT_PORT),
        ("listen", Some(port)) => listen(port.parse().map_err(|_| format!("{port} is no port"))?),
        ("connect", Some(target)) => connect(target, args.get(1).map_or("ping", String::as_str)),
        ("lookup", Some(name)) => {
            lookup(name)?.iter().for_each(|address| say(&get_stdout(), &show(*address)));
            Ok(())
        }
        _ => Err(format!("{mode} wants an argument")),
    }
}

struct Connection {
    // Streams first: they must be gone before their socket.
    input: InputStream,
    output: OutputStream,
    _socket: TcpSocket,
}

fn listen(port: u16) -> Result<(), String> {
    let listener = create_tcp_socket(IpAddressFamily::Ipv4).map_err(text)?;
    let anywhere = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (0, 0, 0, 0) });
    listener.start_bind(&instance_network(), anywhere).map_err(text)?;
    finish(&listener.subscribe(), || listener.finish_bind())?;
    listener.start_listen().map_err(text)?;
    finish(&listener.subscribe(), || listener.finish_listen())?;
    say(&get_stdout(), &format!("tcp-echo: listening on {port}"));
    let incoming = listener.subscribe();
    let mut open: Vec<Connection> = Vec::new();
    loop {
        let readable: Vec<Pollable> = open.iter().map(|connection| connection.input.subscribe()).collect();
        let mut wanted: Vec<&Pollable> = readable.iter().collect();
        if open.len() < MAX_CONNECTIONS {
            wanted.push(&incoming);
        }
        // In whatever order the host found them.
        let mut ready = poll(&wanted);
        ready.sort_unstable();
        drop(readable);
        let count = open.len();
        // From the end, so that removing one moves none that is still to come.
        for at in ready.into_iter().rev().map(|at| at as usize) {
            if at < count {
                if !echo(&open[at]) {
                    open.remove(at);
                }
            } else if let Ok((socket, input, output)) = listener.accept() {
                open.push(Connection { input, output, _socket: socket });
            }
        }
    }
}

/// Sends back what has arrived; tells whether the connection lives on.
fn echo(connection: &Connection) -> bool {
    match connection.input.read(CHUNK_BYTES) {
        Ok(chunk) => connection.output.blocking_write_and_flush(&chunk).is_ok(),
        Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => false,
    }
}

fn connect(target: &str, message: &str) -> Result<(), String> {
    let (host, port) = target.rsplit_once(':').ok_or("wanted is HOST:PORT")?;
    let port: u16 = port.parse().map_err(|_| format!("{port} is no port"))?;
    let address = *lookup(host)?.first().ok_or_else(|| format!("{host} has no address"))?;
    let (family, remote) = match address {
        IpAddress::Ipv4(address) => (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })),
        IpAddress::Ipv6(address) => {
            let remote = Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(remote))
        }
    };
    let socket = create_tcp_socket(family).map_err(text)?;
    socket.start_connect(&instance_network(), remote).map_err(text)?;
    let (input, output) = finish(&socket.subscribe(), || socket.finish_connect())?;
    output.blocking_write_and_flush(message.as_bytes()).map_err(|error| format!("cannot send: {error}"))?;
    socket.shutdown(ShutdownType::Send).map_err(text)?;
    let mut answer = Vec::new();
    while let Ok(chunk) = input.blocking_read(CHUNK_BYTES) {
        answer.extend(chunk);
    }
    say(&get_stdout(), &String::from_utf8_lossy(&answer));
    if answer == message.as_bytes() { Ok(()) } else { Err("the answer is not what was sent".to_owned()) }
}

fn lookup(name: &str) -> Result<Vec<IpAddress>, String> {
    let found = resolve_addresses(&instance_network(), name).map_err(text)?;
    let mut addresses = Vec::new();
    while let Some(address) = finish(&found.subscribe(), || found.resolve_next_address())? {
        addresses.push(address);
    }
    Ok(addresses)
}

/// Waits for the second half of an operation.
fn finish<T>(ready: &Pollable, mut step: impl FnMut() -> Result<T, ErrorCode>) -> Result<T, String> {
    loop {
        match step() {
            Err(ErrorCode::WouldBlock) => ready.block(),
            result => return result.map_err(text),
        }
    }
}

fn show(address: IpAddress) -> String {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => format!("{a}.{b}.{c}.{d}"),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h).to_string(),
    }
}

fn text(error: ErrorCode) -> String {
    error.name().to_owned()
}

fn say(stream: &OutputStream, line: &str) {
    for chunk in format!("{line}\n").as_bytes().chunks(4096) {
        let _ = stream.blocking_write_and_flush(chunk);
    }
}
