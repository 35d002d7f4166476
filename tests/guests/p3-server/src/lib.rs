//! A web server of WASI 0.3: `/echo` sends the request's body back, `/slow?MS` waits first, `/after?MS` answers first and
//! says in the log when it is done, `/stream?N` sends N pieces, `/fail` refuses, `/trap` traps, all else is answered `ok`.

use wasip3::{
    clocks::monotonic_clock::wait_for,
    http::types::{ErrorCode, Fields, Request, Response},
    wit_bindgen::{FutureReader, StreamReader, spawn_local},
    wit_future, wit_stream,
};

struct Server;

wasip3::http::service::export!(Server);

/// What a piece of `/stream` holds.
const PIECE: [u8; 4096] = [b'x'; 4096];

impl wasip3::exports::http::handler::Guest for Server {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number: u64 = query.parse().unwrap_or(0);
        match path {
            "/echo" => {
                let (_, unused) = wit_future::new(|| Ok(()));
                let (body, trailers) = Request::consume_body(request, unused);
                Ok(response(body, trailers))
            }
            "/slow" => {
                wait_for(number * 1_000_000).await;
                Ok(text("at last\n"))
            }
            "/after" => {
                spawn_local(async move {
                    wait_for(number * 1_000_000).await;
                    say("done after the response\n").await;
                });
                Ok(text("ok\n"))
            }
            "/stream" => Ok(pieces(number)),
            "/fail" => Err(ErrorCode::InternalError(Some("as asked".to_owned()))),
            "/trap" => core::arch::wasm32::unreachable(),
            _ => Ok(text("ok\n")),
        }
    }
}

fn text(text: &'static str) -> Response {
    let (mut body, reader) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        body.write_all(text.as_bytes().to_vec()).await;
    });
    response(reader, trailers)
}

fn pieces(number: u64) -> Response {
    let (mut body, reader) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    spawn_local(async move {
        for _ in 0..number {
            // What comes back is what the client did not take: it has left.
            if !body.write_all(PIECE.to_vec()).await.is_empty() {
                return;
            }
        }
    });
    response(reader, trailers)
}

fn response(body: StreamReader<u8>, trailers: FutureReader<Result<Option<Fields>, ErrorCode>>) -> Response {
    Response::new(Fields::new(), Some(body), trailers).0
}

async fn say(line: &str) {
    let (mut writer, reader) = wit_stream::new();
    let written = wasip3::cli::stdout::write_via_stream(reader);
    writer.write_all(line.as_bytes().to_vec()).await;
    drop(writer);
    let _ = written.await;
}
