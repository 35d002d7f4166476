//! `/images`: list, import, pull, remove. Errors are `{"error": "what to do"}`. An upload goes to disk as it comes, under a
//! limit, never into memory.

use std::path::PathBuf;

use bytes::Bytes;
use coracle_artifact::{Image, ImageReference};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{BoxError, Handler, NodeBody, Refused, json_answer, query};

/// Largest file that can be imported.
const MAX_IMPORT_BYTES: u64 = 4 << 30;
/// Largest JSON request.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

impl Handler {
    pub(super) async fn images<B>(&self, request: Request<B>) -> Result<Response<NodeBody>, Refused>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let parameters = query(request.uri().query().unwrap_or_default());
        let path = request.uri().path().to_owned();
        let answer = match (request.method().clone(), path.as_str()) {
            (Method::GET, "/images") => Ok(list(&self.inner.wasm.image_store().list())),
            (Method::POST, "/images/import") => {
                self.import(request, parameters.get("name").map(String::as_str).unwrap_or_default()).await
            }
            (Method::POST, "/images/pull") => self.pull(request).await,
            (Method::DELETE, "/images") => {
                self.remove(parameters.get("reference").map(String::as_str).unwrap_or_default()).await
            }
            _ => return Err(Refused::not_found("404 page not found")),
        };
        Ok(match answer {
            Ok(value) => json_answer(StatusCode::OK, &value),
            Err((status, message)) => json_answer(status, &json!({ "error": message })),
        })
    }

    async fn import<B>(&self, request: Request<B>, name: &str) -> Result<Value, (StatusCode, String)>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let name = if name.is_empty() { None } else { Some(reference(name)?) };
        let file = self.receive(request).await?;
        let (store, path) = (self.inner.wasm.image_store().clone(), file.0.clone());
        let imported = tokio::task::spawn_blocking(move || store.import_file(&path, name.as_ref()));
        let images = imported.await.map_err(internal)?.map_err(|error| {
            // The file has a name of ours; what the user knows is that it was sent.
            let message = error.to_string().replace(&file.0.display().to_string(), "the file");
            (StatusCode::UNPROCESSABLE_ENTITY, message)
        })?;
        self.changed();
        Ok(list(&images))
    }

    async fn receive<B>(&self, request: Request<B>) -> Result<Received, (StatusCode, String)>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let number: u64 = rand::random();
        let received = Received(self.inner.staging.join(format!("import-{number:016x}")));
        let mut file = tokio::fs::File::create(&received.0).await.map_err(internal)?;
        let mut body = std::pin::pin!(request.into_body());
        let mut bytes = 0u64;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, error.into().to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            bytes += data.len() as u64;
            if bytes > MAX_IMPORT_BYTES {
                return Err((
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the file is larger than {MAX_IMPORT_BYTES} bytes"),
                ));
            }
            file.write_all(&data).await.map_err(internal)?;
        }
        file.flush().await.map_err(internal)?;
        Ok(received)
    }

    async fn pull<B>(&self, request: Request<B>) -> Result<Value, (StatusCode, String)>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let bad = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, error.to_string());
        let body = Box::pin(request.into_body());
        let body =
            Limited::new(body, MAX_REQUEST_BYTES).collect().await.map_err(|_| bad(&"the request cannot be read"))?;
        let wanted: Value = serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(&error))?;
        let reference = reference(wanted["reference"].as_str().unwrap_or_default())?;
        let pulled = self.inner.wasm.puller().pull(&reference, &[]).await;
        let image = pulled.map_err(|error| (StatusCode::BAD_GATEWAY, error.to_string()))?.image;
        self.changed();
        Ok(shown(&image))
    }

    async fn remove(&self, name: &str) -> Result<Value, (StatusCode, String)> {
        use coracle_agent_core::Workload;
        let reference = reference(name)?;
        let image = self.inner.wasm.image_store().resolve(&reference);
        let image = image.ok_or_else(|| (StatusCode::NOT_FOUND, format!("there is no image {name:?} on this node")))?;
        if reference.digest().is_none() && image.names.len() > 1 {
            // Another name holds the image: only this one goes, also while the image is in use.
            let store = self.inner.wasm.image_store().clone();
            let removed = tokio::task::spawn_blocking(move || store.remove(&reference.to_string()));
            let freed = removed.await.map_err(internal)?.map_err(internal)?;
            return Ok(json!({ "freedBytes": freed }));
        }
        match self.inner.wasm.remove_image(image.id.as_str()).await {
            Ok(freed) => Ok(json!({ "freedBytes": freed })),
            Err(error) => Err((StatusCode::CONFLICT, error.to_string())),
        }
    }

    /// Pods that wait for an image look again.
    fn changed(&self) {
        // A full channel already says so.
        let _ = self.inner.images_changed.try_send(());
    }
}

/// A received file, removed when it is done with.
struct Received(PathBuf);

impl Drop for Received {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn reference(text: &str) -> Result<ImageReference, (StatusCode, String)> {
    text.parse::<ImageReference>().map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))
}

fn internal(error: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn list(images: &[Image]) -> Value {
    json!({ "images": images.iter().map(shown).collect::<Vec<_>>() })
}

fn shown(image: &Image) -> Value {
    json!({
        "references": image.names,
        "digest": image.id.as_str(),
        "sizeBytes": image.size_bytes,
        "kind": "wasm",
    })
}
