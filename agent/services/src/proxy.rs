//! NodePorts without privileges: a listener for each, TCP or UDP, which passes what it gets on to a backend in turn, or to
//! the one the client had before. Cluster IPs are beyond it.

mod choice;
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
const MAX_CONNECTIONS: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Targets = watch::Receiver<Arc<Target>>;

/// The listeners.
pub(crate) struct Proxy {
    ports: HashMap<(Protocol, u16), watch::Sender<Arc<Target>>>,
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
            let Frontend::NodePort(protocol, port) = change.frontend else { continue };
            let Some(target) = &change.after else {
                // Dropping the sender ends the listener; TCP connections that are open go on.
                self.ports.remove(&(protocol, port));
                continue;
            };
            let target = Arc::new(target.clone());
            if let Some(sender) = self.ports.get(&(protocol, port)) {
                sender.send_replace(target);
                continue;
            }
            let (sender, targets) = watch::channel(target);
            self.ports.insert((protocol, port), sender);
            let (tasks, room) = (self.tasks.clone(), Arc::clone(&self.room));
            match protocol {
                Protocol::Tcp => drop(self.tasks.spawn(listen(port, targets, tasks, room))),
                Protocol::Udp => drop(self.tasks.spawn(udp::listen(port, targets, room))),
            }
        }
    }

    pub(crate) fn close(self) {
        self.tasks.close();
    }
}

async fn listen(port: u16, mut targets: Targets, tasks: TaskTracker, room: Arc<Semaphore>) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(port, %error, "a NodePort cannot be served: its port is in use"),
    };
    let choice = Arc::new(Choice::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = targets.changed() => {
                if changed.is_err() { return } else { continue }
            }
        };
        let Ok((client, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (target, choice) = (targets.borrow().clone(), Arc::clone(&choice));
        tasks.spawn(async move {
            pass_on(client, from.ip(), &target, &choice).await;
            drop(permit);
        });
    }
}

/// Tries each backend once, beginning with the one whose turn it is.
async fn pass_on(mut client: TcpStream, from: IpAddr, target: &Target, choice: &Choice) {
    for backend in choice.order(target, from, Instant::now()) {
        if let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(backend)).await {
            choice.took(target, from, backend, Instant::now());
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
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
