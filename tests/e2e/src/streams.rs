//! `kubectl` by either of the two ways in which it streams, and what it forwards.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::Cluster;

/// How kubectl speaks to the server, and what its environment says of it.
pub const WAYS: [(&str, &str); 2] = [("WebSocket", "true"), ("SPDY", "false")];
/// The longest that bytes may take to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// `kubectl` that speaks one of the two ways, not yet run.
#[must_use]
pub fn kubectl(cluster: &Cluster, websockets: &str) -> Command {
    let mut command = cluster.kubectl_command();
    command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets);
    command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets);
    command
}

/// A `kubectl port-forward`, and the port it listens on. It ends with the value.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    /// In the cluster's namespace.
    pub port: u16,
}

impl Forward {
    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// It ends before.
    pub fn start(cluster: &Cluster, websockets: &str, target: &str, port: u16) -> Result<Self> {
        let mut command = kubectl(cluster, websockets);
        command.args(["port-forward", target, &format!(":{port}")]).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut child = command.spawn()?;
        let mut said = String::new();
        let stdout = child.stdout.as_mut().context("stdout")?;
        let mut byte = [0];
        while !said.ends_with('\n') && stdout.read(&mut byte)? == 1 {
            said.push(char::from(byte[0]));
        }
        let local = said.split(" -> ").next().and_then(|text| text.rsplit(':').next()).and_then(|p| p.parse().ok());
        let Some(local) = local else {
            child.kill()?;
            child.wait()?;
            bail!("kubectl port-forward said {said:?}");
        };
        Ok(Self { child, port: local })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends bytes to an echo and reads them back.
///
/// # Errors
/// Others come back, or none.
pub fn echoed(port: u16, bytes: &[u8]) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut reader, mut writer) = (stream.try_clone()?, stream);
    let mut back = vec![0; bytes.len()];
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || writer.write_all(bytes));
        reader.read_exact(&mut back)?;
        writing.join().map_err(|_| anyhow!("the writer panicked"))??;
        anyhow::Ok(())
    })?;
    ensure!(back == bytes, "other bytes came back");
    Ok(())
}
