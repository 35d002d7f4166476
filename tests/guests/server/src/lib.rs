//! A web server with the routes that tests need and users do not: `/fetch?URL` asks another server, `/slow?MS` waits,
//! `/status?CODE`, `/bytes?N`, `/headers`, `/trap`, `/spin`, `/allocate?MIB`, `/env?NAME`. Where NEVER_READY is set, `/health` answers 503.

use wasip2::cli::environment::get_environment;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};

/// Most bytes of another server's answer that are passed on.
const MAX_FETCHED_BYTES: usize = 1024 * 1024;

struct Server;

wasip2::http::proxy::export!(Server);

impl Guest for Server {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = query.parse::<u64>();
        match path {
            "/fetch" => match fetch(query) {
                Ok((status, body)) => answer(out, status, &body),
                Err(problem) => answer(out, 502, format!("{problem}\n").as_bytes()),
            },
            "/slow" => {
                subscribe_duration(number.unwrap_or(1000) * 1_000_000).block();
                answer(out, 200, b"at last\n");
            }
            "/status" => answer(out, number.unwrap_or(200) as u16, b"as asked\n"),
            "/bytes" => answer(out, 200, &vec![b'x'; number.unwrap_or(1) as usize]),
            "/headers" => answer(out, 200, headers(&request).as_bytes()),
            "/trap" => core::arch::wasm32::unreachable(),
            "/spin" => spin(),
            "/allocate" => {
                let held: Vec<Vec<u8>> = (0..number.unwrap_or(1)).map(|_| vec![1; 1024 * 1024]).collect();
                answer(out, 200, format!("{}\n", core::hint::black_box(held).len()).as_bytes());
            }
            "/env" => answer(out, 200, env(query).unwrap_or_default().as_bytes()),
            "/health" if env("NEVER_READY").is_some() => answer(out, 503, b"not ready\n"),
            _ => answer(out, 200, b"ok\n"),
        }
    }
}

fn env(wanted: &str) -> Option<String> {
    get_environment().into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value)
}

fn headers(request: &IncomingRequest) -> String {
    let line = |(name, value): &(String, Vec<u8>)| format!("{name}: {}\n", String::from_utf8_lossy(value));
    request.headers().entries().iter().map(line).collect()
}

/// Never ends and never calls the host.
fn spin() -> ! {
    let mut turns: u64 = 0;
    loop {
        turns = core::hint::black_box(turns.wrapping_add(1));
    }
}

/// A GET of `http://HOST/PATH`.
fn fetch(url: &str) -> Result<(u16, Vec<u8>), String> {
    let (scheme, rest) = url.split_once("://").ok_or("wanted is /fetch?http://HOST/PATH")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let bad = |()| format!("{url} is not a valid address");
    request.set_scheme(Some(&scheme)).map_err(bad)?;
    request.set_authority(Some(authority)).map_err(bad)?;
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).map_err(bad)?;
    let body = request.body().map_err(bad)?;
    let pending = handle(request, None).map_err(|error| format!("{error:?}"))?;
    OutgoingBody::finish(body, None).map_err(|error| format!("{error:?}"))?;
    pending.subscribe().block();
    let response = pending.get().ok_or("no answer")?.map_err(|()| "the answer was taken")?;
    let response = response.map_err(|error| format!("{error:?}"))?;
    let incoming = response.consume().map_err(|()| "the body was taken")?;
    let stream = incoming.stream().map_err(|()| "the body was taken")?;
    let mut bytes = Vec::new();
    while let Ok(chunk) = stream.blocking_read(64 * 1024) {
        bytes.extend(chunk);
        if bytes.len() > MAX_FETCHED_BYTES {
            return Err("the answer is too long".to_owned());
        }
    }
    Ok((response.status(), bytes))
}

fn answer(out: ResponseOutparam, status: u16, bytes: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    let status = if response.set_status_code(status).is_ok() { Ok(()) } else { response.set_status_code(400) };
    status.expect("400 is a status");
    let body = response.body().expect("the body is taken once");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the stream is taken once");
    // The host takes at most 4096 bytes in a blocking write; a client that left early has no use for the rest.
    let sent = bytes.chunks(4096).try_for_each(|chunk| stream.blocking_write_and_flush(chunk));
    drop(stream);
    if sent.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}
