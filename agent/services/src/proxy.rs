//! NodePorts without privileges: a listener for each, TCP or UDP, which passes what it gets on to a backend in turn, or to
//! the one the client had before. Cluster IPs are beyond it.

mod choice;
mod idle;
mod udp;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use self::choice::Choice;
use crate::table::{Change, Frontend, Protocol, Target};

/// Connections passed on at once, over all ports: each holds two descriptors and a task.
const MAX_CONNECTIONS: usize = 4096;
/// Connections of one port: clients of one Service that do nothing leave room for those of others.
const MAX_OF_A_PORT: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes either way is ended after this. It is far over what servers allow their clients, and
/// over the two hours after which TCP itself asks whether the other side is there (RFC 9293, section 3.8.4).
const IDLE: Duration = Duration::from_secs(3 * 3600);
/// Time until a port that another process has is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

type Targets = watch::Receiver<Arc<Target>>;

/// Where to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    protocol: Protocol,
    ip: Ipv4Addr,
    port: u16,
}

impl Place {
    /// Where a process can listen for a frontend; virtual IPs are nowhere.
    fn of(frontend: Frontend, target: Option<&Target>) -> Option<Self> {
        match frontend {
            Frontend::NodePort(protocol, port) => Some(Self { protocol, ip: Ipv4Addr::UNSPECIFIED, port }),
            Frontend::Address(ip, protocol, port) => {
                target.is_some_and(|target| target.on_host).then_some(Self { protocol, ip, port })
            }
        }
    }
}

/// How many connections there may be.
#[derive(Clone)]
struct Room {
    of_port: Arc<Semaphore>,
    all: Arc<Semaphore>,
}

/// The listeners.
pub(crate) struct Proxy {
    ports: HashMap<Place, watch::Sender<Arc<Target>>>,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        Self { ports: HashMap::new(), tasks: TaskTracker::new(), room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Carries out changes.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let before = Place::of(change.frontend, change.before.as_ref());
            let after = Place::of(change.frontend, change.after.as_ref());
            if let Some(place) = before.filter(|place| change.after.is_none() || after != Some(*place)) {
                // Dropping the sender ends the listener; TCP connections that are open go on.
                self.ports.remove(&place);
            }
            let (Some(place), Some(target)) = (after, &change.after) else {
                continue;
            };
            let target = Arc::new(target.clone());
            if let Some(sender) = self.ports.get(&place) {
                sender.send_replace(target);
                continue;
            }
            let (sender, targets) = watch::channel(target);
            self.ports.insert(place, sender);
            let of_port = Arc::new(Semaphore::new(MAX_OF_A_PORT));
            let (tasks, room) = (self.tasks.clone(), Room { of_port, all: Arc::clone(&self.room) });
            match place.protocol {
                Protocol::Tcp => drop(self.tasks.spawn(listen(place, targets, tasks, room))),
                Protocol::Udp => drop(self.tasks.spawn(udp::listen(place, targets, room))),
            }
        }
    }

    pub(crate) fn close(self) {
        self.tasks.close();
    }
}

/// Opens a socket, again and again while another process has its port; `None` when the port is given up meanwhile.
async fn open<T, F: Future<Output = std::io::Result<T>>>(
    place: Place,
    targets: &mut Targets,
    again: Duration,
    bind: impl Fn(Ipv4Addr, u16) -> F,
) -> Option<T> {
    let mut told = false;
    loop {
        match bind(place.ip, place.port).await {
            Ok(socket) => return Some(socket),
            Err(error) if !told => {
                told = true;
                tracing::warn!(ip = %place.ip, port = place.port, %error, "a NodePort cannot be served yet");
            }
            Err(_) => {}
        }
        let given_up = async { while targets.changed().await.is_ok() {} };
        tokio::select! {
            () = tokio::time::sleep(again) => {}
            () = given_up => return None,
        }
    }
}

async fn listen(place: Place, mut targets: Targets, tasks: TaskTracker, room: Room) {
    let bound = open(place, &mut targets, BIND_AGAIN, |ip, port| TcpListener::bind((ip, port))).await;
    let Some(listener) = bound else { return };
    let choice = Arc::new(Choice::default());
    loop {
        // Clients for whom there is no room wait in the kernel, those of this port only.
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            changed = targets.changed() => {
                if changed.is_err() { return } else { continue }
            }
        };
        let Some((client, from, of_port)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(of_all) = Arc::clone(&room.all).try_acquire_owned() else {
            // A reset says so at once; waiting here would be waiting for other ports' clients.
            let _ = client.set_zero_linger();
            continue;
        };
        let (target, choice) = (targets.borrow().clone(), Arc::clone(&choice));
        tasks.spawn(async move {
            pass_on(client, from.ip(), &target, &choice).await;
            drop((of_port, of_all));
        });
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Room,
) -> Option<(TcpStream, std::net::SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(&room.of_port).acquire_owned().await.ok()?;
    let (client, from) = listener.accept().await.ok()?;
    Some((client, from, permit))
}

/// Tries each backend once, beginning with the one whose turn it is.
async fn pass_on(client: TcpStream, from: IpAddr, target: &Target, choice: &Choice) {
    for backend in choice.order(target, from, Instant::now()) {
        if let Ok(Ok(server)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(backend)).await {
            choice.took(target, from, backend, Instant::now());
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            return idle::pass_on(client, server, IDLE).await;
        }
    }
    // No backend: a reset says so at once, as the kernel's refusal would.
    let _ = client.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UdpSocket;

    use super::*;

    /// A port that was free a moment ago.
    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    async fn tcp_backend(name: &'static str) -> std::net::SocketAddrV4 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(name.as_bytes()).await;
            }
        });
        address
    }

    async fn ask(port: u16) -> String {
        // The listener is made by a task of its own.
        loop {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                let mut text = String::new();
                let _ = stream.read_to_string(&mut text).await;
                return text;
            }
            tokio::task::yield_now().await;
        }
    }

    fn step(protocol: Protocol, port: u16, after: Option<Target>) -> [Change; 1] {
        [Change { frontend: Frontend::NodePort(protocol, port), before: None, after }]
    }

    #[tokio::test]
    async fn connections_take_turns_unless_clients_keep_their_backend() {
        let backends = vec![tcp_backend("a").await, tcp_backend("b").await];
        let (mut proxy, port) = (Proxy::new(), free_port().await);
        let spread = Target { backends: backends.clone(), ..Target::default() };
        proxy.apply(&step(Protocol::Tcp, port, Some(spread)));
        let got = [ask(port).await, ask(port).await, ask(port).await];
        assert!(got[0] != got[1] && got[0] == got[2], "{got:?}");
        let keep = Target { backends: backends.clone(), affinity_seconds: Some(60), ..Target::default() };
        proxy.apply(&step(Protocol::Tcp, port, Some(keep.clone())));
        let first = ask(port).await;
        for _ in 0..4 {
            assert_eq!(ask(port).await, first);
        }
        // Its backend goes: it gets another one and keeps that.
        let left = backends.into_iter().skip(usize::from(first == "a")).take(1).collect();
        proxy.apply(&step(Protocol::Tcp, port, Some(Target { backends: left, ..keep })));
        let second = ask(port).await;
        assert_ne!(second, first);
        assert_eq!(ask(port).await, second);
        proxy.apply(&step(Protocol::Tcp, port, Some(Target::default())));
        assert_eq!(ask(port).await, "", "no backend: it is reset");
    }

    /// A Service whose clients hold all its connections leaves the others' alone, and takes the next client when one leaves.
    #[tokio::test]
    async fn idle_clients_of_one_port_leave_the_others_alone() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = silent.local_addr().unwrap() else { unreachable!() };
        let (mut proxy, full, other) = (Proxy::new(), free_port().await, free_port().await);
        proxy.apply(&step(Protocol::Tcp, full, Some(Target { backends: vec![address], ..Target::default() })));
        let backends = vec![tcp_backend("a").await];
        proxy.apply(&step(Protocol::Tcp, other, Some(Target { backends, ..Target::default() })));
        assert_eq!(ask(other).await, "a");
        let (mut clients, mut held) = (Vec::new(), Vec::new());
        while held.len() < MAX_OF_A_PORT {
            if let Ok(client) = TcpStream::connect(("127.0.0.1", full)).await {
                clients.push(client);
                held.push(silent.accept().await.unwrap());
            } else {
                tokio::task::yield_now().await;
            }
        }
        clients.push(TcpStream::connect(("127.0.0.1", full)).await.unwrap());
        assert_eq!(ask(other).await, "a");
        let more = tokio::time::timeout(Duration::from_millis(100), silent.accept()).await;
        assert!(more.is_err(), "the port is full");
        clients.swap_remove(0);
        held.clear();
        silent.accept().await.unwrap();
    }

    #[tokio::test]
    async fn a_port_is_served_once_whoever_had_it_is_gone() {
        let taken = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let place = Place { protocol: Protocol::Tcp, ip: Ipv4Addr::UNSPECIFIED, port };
        let (sender, targets) = watch::channel(Arc::new(Target::default()));
        let bind = |ip, port| TcpListener::bind((ip, port));
        let mut mine = targets.clone();
        let again = Duration::from_millis(20);
        let mut opening = std::pin::pin!(open(place, &mut mine, again, bind));
        assert!(tokio::time::timeout(again * 5, &mut opening).await.is_err());
        drop(taken);
        let listener = opening.await.expect("it is free now");
        let mut other = targets.clone();
        let giving_up = open(place, &mut other, again, bind);
        drop(sender);
        assert!(giving_up.await.is_none(), "nobody wants it any more");
        drop(listener);
    }

    #[test]
    fn a_process_listens_on_ports_and_on_the_machine_s_own_addresses() {
        let address = Frontend::Address(Ipv4Addr::LOCALHOST, Protocol::Tcp, 80);
        let own = Target { on_host: true, ..Target::default() };
        assert_eq!(Place::of(address, Some(&Target::default())), None);
        assert_eq!(Place::of(address, Some(&own)).map(|place| place.ip), Some(Ipv4Addr::LOCALHOST));
        let port = Place::of(Frontend::NodePort(Protocol::Udp, 53), None);
        assert_eq!(port, Some(Place { protocol: Protocol::Udp, ip: Ipv4Addr::UNSPECIFIED, port: 53 }));
    }

    #[tokio::test]
    async fn datagrams_come_back_to_the_client_that_asked() {
        let backend = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let std::net::SocketAddr::V4(address) = backend.local_addr().unwrap() else { unreachable!() };
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((size, from)) = backend.recv_from(&mut buffer).await {
                let _ = backend.send_to(&[b"re: ", &buffer[..size]].concat(), from).await;
            }
        });
        let (mut proxy, port) = (Proxy::new(), free_port().await);
        proxy.apply(&step(Protocol::Udp, port, Some(Target { backends: vec![address], ..Target::default() })));
        let clients = [UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap()];
        for (number, client) in clients.iter().enumerate() {
            let (question, mut buffer) = (format!("q{number}"), [0; 64]);
            // The listener is made by a task of its own: a datagram sent before it is lost.
            let size = loop {
                client.send_to(question.as_bytes(), ("127.0.0.1", port)).await.unwrap();
                let answer = client.recv(&mut buffer);
                if let Ok(Ok(size)) = tokio::time::timeout(Duration::from_millis(200), answer).await {
                    break size;
                }
            };
            assert_eq!(&buffer[..size], format!("re: {question}").as_bytes());
        }
    }
}
