//! A web server of one file: says who answered, and has a few routes that are useful to try a cluster with.

use wasip2::cli::environment::get_environment;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

/// What this build calls itself.
const VERSION: &str = if cfg!(feature = "v2") { "v2" } else { "v1" };

/// Most bytes moved in one step of an echo.
const CHUNK_BYTES: u64 = 64 * 1024;

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_else(|| "/".to_owned());
        let path = target.split('?').next().unwrap_or("/");
        match path {
            "/" => text(out, 200, &greeting(path)),
            "/version" => text(out, 200, &format!("{VERSION}\n")),
            "/health" => text(out, 200, "ok\n"),
            "/env" => text(out, 200, &environment()),
            "/echo" => echo(request, out),
            _ => text(out, 404, &format!("{path} is not here\n")),
        }
    }
}

/// Who answers: the pod's name where the Deployment passes it, else the host's.
fn greeting(path: &str) -> String {
    let env = get_environment();
    let find = |wanted: &str| env.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let who = find("POD_NAME").or_else(|| find("HOSTNAME")).unwrap_or("a component");
    let mut lines = format!("Hello from {who}!\nversion: {VERSION}\npath: {path}\n");
    if let Some(node) = find("NODE_NAME") {
        lines.push_str(&format!("node: {node}\n"));
    }
    lines
}

fn environment() -> String {
    let mut env = get_environment();
    env.sort();
    env.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// Answers with one text.
fn text(out: ResponseOutparam, status: u16, text: &str) {
    let mut reply = Reply::start(out, status, "text/plain; charset=utf-8");
    // A client that left early has no use for the rest.
    if reply.write(text.as_bytes()).is_ok() {
        reply.finish();
    }
}

/// Sends the request's body back as it arrives.
fn echo(request: IncomingRequest, out: ResponseOutparam) {
    if !matches!(request.method(), Method::Post | Method::Put) {
        return text(out, 405, "send a body with POST or PUT\n");
    }
    let kind = request.headers().get("content-type").into_iter().next();
    let kind = kind.and_then(|kind| String::from_utf8(kind).ok());
    let Ok(incoming) = request.consume() else { return text(out, 500, "the body is gone\n") };
    let Ok(stream) = incoming.stream() else { return text(out, 500, "the body is gone\n") };
    let mut reply = Reply::start(out, 200, kind.as_deref().unwrap_or("application/octet-stream"));
    loop {
        match stream.blocking_read(CHUNK_BYTES) {
            Ok(chunk) if reply.write(&chunk).is_ok() => {}
            Err(StreamError::Closed) => return reply.finish(),
            // Without a finished body the client sees that the answer is cut.
            _ => return,
        }
    }
}

/// An answer whose status and headers are sent and whose body is being written.
struct Reply {
    // Declared first: the stream must be gone before its body.
    stream: OutputStream,
    body: OutgoingBody,
}

impl Reply {
    fn start(out: ResponseOutparam, status: u16, content_type: &str) -> Self {
        let headers = Fields::new();
        // The request's own type was a valid value already; ours are.
        let _ = headers.set("content-type", &[content_type.as_bytes().to_vec()]);
        let response = OutgoingResponse::new(headers);
        response.set_status_code(status).expect("a known status");
        let body = response.body().expect("the body is taken once");
        let stream = body.write().expect("the stream is taken once");
        ResponseOutparam::set(out, Ok(response));
        Self { stream, body }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        // The host takes at most 4096 bytes in a blocking write.
        bytes.chunks(4096).try_for_each(|chunk| self.stream.blocking_write_and_flush(chunk))
    }

    fn finish(self) {
        let Self { stream, body } = self;
        drop(stream);
        // The client may be gone; nobody is left to be told.
        let _ = OutgoingBody::finish(body, None);
    }
}
