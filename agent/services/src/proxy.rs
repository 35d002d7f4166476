//! NodePorts without privileges: a TCP listener for each, which passes connections on to a backend in turn.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::table::{Change, Frontend, Protocol};

/// Connections passed on at once, over all ports: each holds two descriptors and a task.
const MAX_CONNECTIONS: usize = 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Backends = Arc<Vec<SocketAddrV4>>;

/// The listeners.
pub(crate) struct Proxy {
    ports: HashMap<u16, watch::Sender<Backends>>,
    tasks: TaskTracker,
    room: Arc<Semaphore>,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        Self { ports: HashMap::new(), tasks: TaskTracker::new(), room: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Carries out changes. Cluster IPs and UDP are beyond it.
    pub(crate) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            let Frontend::NodePort(Protocol::Tcp, port) = change.frontend else { continue };
            match &change.after {
                // Dropping the sender ends the listener; connections that are open go on.
                None => drop(self.ports.remove(&port)),
                Some(backends) => {
                    let backends = Arc::new(backends.clone());
                    let sender = self.ports.entry(port).or_insert_with(|| {
                        let (sender, receiver) = watch::channel(Backends::default());
                        self.tasks.spawn(listen(port, receiver, self.tasks.clone(), Arc::clone(&self.room)));
                        sender
                    });
                    sender.send_replace(backends);
                }
            }
        }
    }

    pub(crate) fn close(self) {
        self.tasks.close();
    }
}

async fn listen(port: u16, mut backends: watch::Receiver<Backends>, tasks: TaskTracker, room: Arc<Semaphore>) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(port, %error, "a NodePort cannot be served: its port is in use");
            return;
        }
    };
    let next = Arc::new(AtomicUsize::new(0));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            changed = backends.changed() => {
                if changed.is_err() { return } else { continue }
            }
        };
        let Ok((client, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let (choices, next) = (backends.borrow().clone(), Arc::clone(&next));
        tasks.spawn(async move {
            pass_on(client, &choices, &next).await;
            drop(permit);
        });
    }
}

/// Tries each backend once, beginning with the next in turn.
async fn pass_on(mut client: TcpStream, backends: &[SocketAddrV4], next: &AtomicUsize) {
    let first = next.fetch_add(1, Ordering::Relaxed);
    for i in 0..backends.len() {
        let backend = backends[(first + i) % backends.len()];
        if let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(backend)).await {
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
    // No backend: a reset says so at once, as the kernel's refusal would.
    let _ = client.set_zero_linger();
}
