//! `exec`, `attach` and `portForward` of the node's API: requests that become SPDY connections. What a container runtime answers at an
//! address of its own is passed through; components are served here. The words of refusals are the kubelet's.

mod ports;
mod runtime;
mod session;

use std::sync::Arc;

use coracle_agent_core::workload::{ContainerKey, Opened, PodUid, SessionStreams, StreamRequest, WorkloadError};
use coracle_streaming::{
    BoxedStream, PORT_FORWARD_PROTOCOL, REMOTE_COMMAND_PROTOCOLS, choose_protocol, stream_protocols,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Handler, NodeBody, Refused, decoded, text};
use crate::views::View;

/// Streaming connections of a node at once. Each may cost some hundred kilobytes.
const MAX_SESSIONS: usize = 1024;
/// Bytes on their way between the API and a session in this process.
const PIPE_BYTES: usize = 64 * 1024;
/// The most ports that a client may name before it connects.
const MAX_PORTS: usize = 128;

/// A request that became a connection.
pub struct Upgraded {
    /// What is spoken over SPDY, if the client named anything.
    pub protocol: Option<HeaderValue>,
    /// The connection.
    pub stream: BoxedStream,
    _permit: OwnedSemaphorePermit,
}

impl Upgraded {
    /// The connection, and what has to be kept as long as it lasts.
    #[must_use]
    pub fn into_parts(self) -> (Option<HeaderValue>, BoxedStream, Box<dyn Send + Sync>) {
        (self.protocol, self.stream, Box::new(self._permit))
    }
}

/// Room for streaming connections.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_SESSIONS)))
    }
}

/// A request for a stream, as its line says it.
struct Asked<'a> {
    what: What,
    namespace: &'a str,
    pod: &'a str,
    query: Vec<(String, String)>,
}

/// What is asked for.
enum What {
    Exec(String),
    Attach(String),
    PortForward,
}

impl Handler {
    /// Makes a request a streaming connection.
    ///
    /// # Errors
    /// The answer to a request that becomes none.
    pub async fn connect(&self, request: Request<()>) -> Result<Upgraded, Response<NodeBody>> {
        self.connected(request).await.map_err(|Refused(status, message)| text(status, message))
    }

    async fn connected(&self, request: Request<()>) -> Result<Upgraded, Refused> {
        let path = request.uri().path().to_owned();
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (what, namespace, pod) = match parts.as_slice() {
            ["exec", namespace, pod, container] => (What::Exec((*container).to_owned()), *namespace, *pod),
            ["attach", namespace, pod, container] => (What::Attach((*container).to_owned()), *namespace, *pod),
            ["portForward", namespace, pod] => (What::PortForward, *namespace, *pod),
            _ => return Err(Refused::not_found("404 page not found")),
        };
        let query = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
        let permit = Arc::clone(&self.inner.room.0).try_acquire_owned().map_err(|_| {
            Refused(StatusCode::TOO_MANY_REQUESTS, "maximum number of in-flight requests exceeded".to_owned())
        })?;
        let asked = Asked { what, namespace, pod, query };
        let view = self.inner.views.get(asked.namespace, asked.pod);
        let view = view.ok_or_else(|| Refused::not_found("pod does not exist"))?;
        let (wanted, streams) = asked.request(&view)?;
        let is_command = !matches!(wanted, StreamRequest::PortForward { .. });
        let opened = self.inner.runtime.open_stream(wanted).await.map_err(|error| refused(&asked, error))?;
        let headers = request.headers();
        let (protocol, stream) = match opened {
            Opened::Endpoint(url) => runtime::connect(&url, headers).await?,
            Opened::Session(session) => {
                let protocol = agree(headers, &REMOTE_COMMAND_PROTOCOLS)?;
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                self.inner.tasks.spawn(session::serve(far, protocol, session, streams));
                (protocol.map(HeaderValue::from_static), Box::new(near) as BoxedStream)
            }
            Opened::Addresses(_) if is_command => return Err(Refused::bad("the runtime has no such session")),
            Opened::Addresses(addresses) => {
                let protocol = agree(headers, &[PORT_FORWARD_PROTOCOL])?;
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                let uid = view.pod.metadata.uid.clone().unwrap_or_default();
                let target = ports::Target { addresses, pod: format!("{}_{}", asked.pod, asked.namespace), uid };
                self.inner.tasks.spawn(ports::serve(far, target));
                (protocol.map(HeaderValue::from_static), Box::new(near) as BoxedStream)
            }
        };
        Ok(Upgraded { protocol, stream, _permit: permit })
    }
}

fn agree(headers: &HeaderMap, offered: &[&'static str]) -> Result<Option<&'static str>, Refused> {
    choose_protocol(headers, offered).map_err(|message| Refused(StatusCode::FORBIDDEN, message))
}

/// The runtime's refusal in the kubelet's words.
fn refused(asked: &Asked<'_>, error: WorkloadError) -> Refused {
    match (error, &asked.what) {
        (WorkloadError::NotRunning(_), What::Exec(container) | What::Attach(container)) => no_container(container),
        (WorkloadError::Unsupported { message }, _) => Refused::bad(message),
        (error, _) => Refused(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn no_container(name: &str) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({name:?})"))
}

impl Asked<'_> {
    fn request(&self, view: &View) -> Result<(StreamRequest, SessionStreams), Refused> {
        let uid = PodUid::new(view.pod.metadata.uid.clone().unwrap_or_default());
        match &self.what {
            What::Exec(container) => {
                let (key, streams) = (running(view, uid, container)?, self.streams()?);
                let command = self.all("command").map(str::to_owned).collect();
                Ok((StreamRequest::Exec { key, command, streams }, streams))
            }
            What::Attach(container) => {
                let (key, streams) = (running(view, uid, container)?, self.streams()?);
                Ok((StreamRequest::Attach { key, streams }, streams))
            }
            What::PortForward => {
                let ports = self.all("port").flat_map(|value| value.split(','));
                let ports = ports.take(MAX_PORTS).map(port).collect::<Result<Vec<u16>, Refused>>()?;
                Ok((StreamRequest::PortForward { pod: uid, ports }, SessionStreams::default()))
            }
        }
    }

    fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.query.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What a client wants, by the kubelet's names.
    fn streams(&self) -> Result<SessionStreams, Refused> {
        let flag = |name| self.all(name).any(|value| value == "1" || value.eq_ignore_ascii_case("true"));
        let tty = flag("tty");
        // A terminal has one output for both.
        let streams =
            SessionStreams { stdin: flag("input"), stdout: flag("output"), stderr: flag("error") && !tty, tty };
        if streams.stdin || streams.stdout || streams.stderr {
            return Ok(streams);
        }
        Err(Refused::bad("you must specify at least 1 of stdin, stdout, stderr"))
    }
}

fn port(text: &str) -> Result<u16, Refused> {
    match text.parse::<u16>() {
        Ok(0) => Err(Refused::bad(format!("port {text:?} must be > 0"))),
        Ok(port) => Ok(port),
        Err(_) => Err(Refused::bad(format!("unable to parse {text:?} as a port"))),
    }
}

/// The present run of a container, which has to run.
fn running(view: &View, pod: PodUid, name: &str) -> Result<ContainerKey, Refused> {
    let status = view.container(name).ok_or_else(|| no_container(name))?;
    if status.state.as_ref().is_none_or(|state| state.running.is_none()) {
        return Err(no_container(name));
    }
    let attempt = u32::try_from(status.restart_count).unwrap_or(0);
    Ok(ContainerKey { pod, name: name.into(), attempt })
}

/// The protocols that a client named, as they are handed on.
fn named(headers: &HeaderMap) -> impl Iterator<Item = HeaderValue> {
    stream_protocols(headers).filter_map(|name| HeaderValue::from_str(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(what: What, query: &str) -> Asked<'static> {
        let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        Asked { what, namespace: "default", pod: "p", query }
    }

    fn view(state: &str) -> View {
        let pod = serde_json::json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]}});
        let status = serde_json::json!({"ephemeralContainerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2, "state": {state: {"exitCode": 0}},
        }]});
        View {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            status: Arc::new(serde_json::from_value(status).unwrap()),
        }
    }

    #[test]
    fn requests_are_read_as_the_kubelet_reads_them() {
        let exec = || What::Exec("c".to_owned());
        let query = "command=sh&command=-c&command=a+b&input=1&output=1&error=1&tty=1";
        let (request, _) = asked(exec(), query).request(&view("running")).ok().unwrap();
        let streams = SessionStreams { stdin: true, stdout: true, stderr: false, tty: true };
        let key = ContainerKey { pod: PodUid::new("u"), name: "c".into(), attempt: 2 };
        let command = ["sh", "-c", "a b"].map(str::to_owned).to_vec();
        assert_eq!(request, StreamRequest::Exec { key, command, streams });
        let refusal = |what, query, state| asked(what, query).request(&view(state)).err().unwrap().1;
        assert_eq!(refusal(exec(), "command=a", "running"), "you must specify at least 1 of stdin, stdout, stderr");
        assert_eq!(refusal(exec(), "output=1", "terminated"), "container not found (\"c\")");
        assert_eq!(refusal(What::Attach("x".to_owned()), "output=1", "running"), "container not found (\"x\")");
        assert_eq!(refusal(What::PortForward, "port=0", "running"), "port \"0\" must be > 0");
        assert_eq!(refusal(What::PortForward, "port=80,http", "running"), "unable to parse \"http\" as a port");
        let (request, _) = asked(What::PortForward, "port=80,81&port=82").request(&view("running")).ok().unwrap();
        assert_eq!(request, StreamRequest::PortForward { pod: PodUid::new("u"), ports: vec![80, 81, 82] });
    }
}
