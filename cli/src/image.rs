//! `coracle image`: the images of this machine's agent, reached over a unix socket in its data directory.
//!
//! The agent serves HTTP/1.1 on `DATA/agent.sock`, JSON both ways, errors as `{"error": "what to do"}`:
//! `GET /images` and `POST /images/import?name=REF` (the body is the file) answer `{"images": [Image]}`; `POST /images/pull` of
//! `{"reference": "REF"}` answers an Image; `DELETE /images?reference=REF` answers `{"freedBytes": n}`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use futures::TryStreamExt as _;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame};
use hyper_util::rt::TokioIo;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio_util::io::ReaderStream;

use crate::{
    options::Options,
    print::table::{OBJECTS, Table},
};

/// The agent's socket in the data directory.
const SOCKET: &str = "agent.sock";

/// Largest answer of the agent's.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Images of this machine: components and archives.
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes a file an image: a Wasm component, or an archive of images
    Import {
        /// The file
        file: PathBuf,

        /// What it is called, as in `hello:v1` [default: what the archive says]
        #[arg(long, value_name = "REF", value_parser = image_name)]
        name: Option<String>,
    },
    /// Shows the images
    #[command(visible_alias = "ls")]
    List {
        /// json
        #[arg(long, short = 'o', value_name = "FORM", value_parser = ["json"])]
        output: Option<String>,
    },
    /// Fetches an image from its registry
    Pull {
        /// Its name
        reference: String,
    },
    /// Takes images away
    Rm {
        /// Their names
        #[arg(required = true)]
        references: Vec<String>,
    },
}

/// A name that an image can have: what the agent would refuse is refused before a byte of the image is sent.
pub(crate) fn image_name(text: &str) -> Result<String, String> {
    text.parse::<coracle_node::ImageReference>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// An image, as the agent tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageInfo {
    /// All its names, in full.
    pub references: Vec<String>,
    /// What it is identified by.
    pub digest: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// `wasm` or `oci`.
    pub kind: String,
}

#[derive(Debug, Deserialize)]
struct Images {
    images: Vec<ImageInfo>,
}

impl Image {
    pub(crate) async fn run(self, options: &Options) -> anyhow::Result<()> {
        let agent = Agent::new(&options.data_dir());
        match self.what {
            What::Import { file, name } => {
                for image in agent.import(&file, name.as_deref()).await? {
                    println!("imported {} {}", image.references.join(", "), short(&image.digest));
                }
            }
            What::List { output } => {
                let images = agent.list().await?;
                if output.is_some() {
                    println!("{}", serde_json::to_string_pretty(&images)?);
                } else {
                    print!("{}", table(&images));
                }
            }
            What::Pull { reference } => {
                let image = agent.pull(&reference).await?;
                println!("pulled {} {}", image.references.join(", "), short(&image.digest));
            }
            What::Rm { references } => {
                for reference in references {
                    agent.remove(&reference).await?;
                    println!("image {reference:?} removed");
                }
            }
        }
        std::io::stdout().flush()?;
        Ok(())
    }
}

fn table(images: &[ImageInfo]) -> String {
    let mut rows = vec![["REFERENCE", "KIND", "DIGEST", "SIZE"].map(str::to_owned).to_vec()];
    for image in images {
        let row = |reference: &str| {
            vec![
                reference.to_owned(),
                image.kind.clone(),
                short(&image.digest).to_owned(),
                HumanBytes(image.size_bytes).to_string(),
            ]
        };
        if image.references.is_empty() {
            rows.push(row("<none>"));
        }
        rows.extend(image.references.iter().map(|reference| row(reference)));
    }
    Table::new(OBJECTS).render(&rows)
}

/// A digest's first 12 digits, which tell images apart for people.
fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// The agent of this machine.
pub(crate) struct Agent {
    socket: PathBuf,
}

type Body = BoxBody<Bytes, std::io::Error>;

impl Agent {
    /// The agent whose state is in a directory.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { socket: data_dir.join(SOCKET) }
    }

    /// All images.
    pub(crate) async fn list(&self) -> anyhow::Result<Vec<ImageInfo>> {
        let answer = self.call(Method::GET, "/images", empty()).await?;
        Ok(serde_json::from_value::<Images>(answer)?.images)
    }

    /// Sends a file, and gives the images it became.
    pub(crate) async fn import(&self, file: &Path, name: Option<&str>) -> anyhow::Result<Vec<ImageInfo>> {
        let shown = file.display();
        let open = tokio::fs::File::open(file).await.with_context(|| format!("cannot open {shown}"))?;
        let metadata = open.metadata().await.with_context(|| format!("cannot read {shown}"))?;
        if metadata.is_dir() {
            bail!("{shown} is a folder; wanted is a component or an archive");
        }
        let bar = progress(metadata.len());
        let counted = bar.clone();
        let frames = ReaderStream::new(open).map_ok(move |chunk| {
            counted.inc(chunk.len() as u64);
            Frame::data(chunk)
        });
        let query = name.map(|name| form_urlencoded::Serializer::new(String::new()).append_pair("name", name).finish());
        let path = format!("/images/import{}{}", if query.is_some() { "?" } else { "" }, query.unwrap_or_default());
        let answer = self.call(Method::POST, &path, BoxBody::new(StreamBody::new(frames))).await;
        bar.finish_and_clear();
        let answer = answer.with_context(|| format!("cannot import {shown}"))?;
        Ok(serde_json::from_value::<Images>(answer)?.images)
    }

    /// Fetches an image.
    pub(crate) async fn pull(&self, reference: &str) -> anyhow::Result<ImageInfo> {
        let body = serde_json::json!({ "reference": reference }).to_string();
        let bar = spinner(format!("pulling {reference}"));
        let answer = self.call(Method::POST, "/images/pull", full(body)).await;
        bar.finish_and_clear();
        Ok(serde_json::from_value(answer.with_context(|| format!("cannot pull {reference}"))?)?)
    }

    /// Takes an image away.
    pub(crate) async fn remove(&self, reference: &str) -> anyhow::Result<()> {
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("reference", reference).finish();
        self.call(Method::DELETE, &format!("/images?{query}"), empty()).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Value> {
        let shown = self.socket.display();
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => anyhow::anyhow!("{shown} belongs to another user: run this as root, or name your own agent with --data-dir"),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => anyhow::anyhow!(
                "no agent runs here ({shown}): start `coracle server` or `coracle agent`, or name its directory with --data-dir"
            ),
            _ => anyhow::anyhow!("cannot reach the agent at {shown}: {error}"),
        })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder().method(method).uri(path).header(header::HOST, "agent").body(body)?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let bytes = body.map_err(|error| anyhow::anyhow!("the agent's answer broke off: {error}"))?.to_bytes();
            anyhow::Ok((status, bytes))
        };
        let (status, bytes) = tokio::select! {
            biased;
            done = exchange => done?,
            ended = connection => match ended {
                Ok(()) => bail!("the agent closed the connection"),
                Err(error) => bail!("the connection to the agent broke: {error}"),
            },
        };
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => bail!("the agent answered {status}"),
        }
    }
}

fn empty() -> Body {
    full(String::new())
}

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

fn progress(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}").expect("the template is valid");
    ProgressBar::new(length).with_style(style)
}

fn spinner(text: String) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(text);
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt as _, Full};
    use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
    use hyper_util::rt::TokioIo;
    use serde_json::{Value, json};

    use super::{Agent, ImageInfo, SOCKET, image_name, table};

    #[test]
    fn names_are_looked_at_before_anything_is_sent() {
        for name in ["hello", "hello:v1", "registry.example:5000/a/b:1"] {
            assert_eq!(image_name(name).as_deref(), Ok(name));
        }
        for name in ["Bad Name", "UPPER:v1", "hello:", "\u{fc}n\u{ef}:v1", &"a".repeat(300)] {
            assert!(image_name(name).is_err(), "{name}");
        }
    }

    fn image() -> Value {
        json!({"references": ["docker.io/library/hello:v1"], "digest": "sha256:0123456789abcdef", "sizeBytes": 40_000, "kind": "wasm"})
    }

    /// An agent that answers one request and keeps what it was asked.
    async fn agent(answer: Value, code: u16) -> (tempfile::TempDir, Agent, Arc<Mutex<Vec<String>>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = tokio::net::UnixListener::bind(folder.path().join(SOCKET)).expect("a socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a client");
            let service = service_fn(move |request: Request<Incoming>| {
                let (seen, answer) = (seen.clone(), answer.clone());
                async move {
                    let line = format!("{} {}", request.method(), request.uri());
                    let body = request.into_body().collect().await?.to_bytes();
                    seen.lock().expect("not poisoned").push(format!("{line} {}", String::from_utf8_lossy(&body)));
                    let response = Response::builder().status(code).body(Full::new(Bytes::from(answer.to_string())));
                    Ok::<_, hyper::Error>(response.expect("it is valid"))
                }
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
        let agent = Agent::new(folder.path());
        (folder, agent, asked)
    }

    #[tokio::test]
    async fn a_file_is_sent_whole() {
        let (folder, agent, asked) = agent(json!({"images": [image()]}), 200).await;
        let file = folder.path().join("x.wasm");
        std::fs::write(&file, "bytes").expect("written");
        let images = agent.import(&file, Some("hello:v1")).await.expect("imported");
        assert_eq!(images, [serde_json::from_value::<ImageInfo>(image()).expect("an image")]);
        assert_eq!(*asked.lock().expect("not poisoned"), ["POST /images/import?name=hello%3Av1 bytes"]);
    }

    #[tokio::test]
    async fn errors_are_the_agents() {
        let (_folder, broken, _) =
            agent(json!({"error": "x.wasm is a core WebAssembly module, not a component"}), 422).await;
        let error = broken.list().await.expect_err("it failed");
        assert_eq!(error.to_string(), "x.wasm is a core WebAssembly module, not a component");
        let nobody = tempfile::tempdir().expect("a folder");
        let error = Agent::new(nobody.path()).list().await.expect_err("nobody is there").to_string();
        assert!(error.starts_with("no agent runs here"), "{error}");
    }

    #[test]
    fn images_line_up() {
        let image: ImageInfo = serde_json::from_value(image()).expect("an image");
        assert_eq!(
            table(&[image]),
            "REFERENCE                    KIND   DIGEST         SIZE\ndocker.io/library/hello:v1   wasm   0123456789ab   39.06 KiB\n"
        );
    }
}
