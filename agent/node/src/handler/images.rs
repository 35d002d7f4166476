//! `/images`: list, import, pull, remove, of both sorts. Errors are `{"error": "what to do"}`. An upload goes to disk as it comes, under a
//! limit, never into memory.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use coracle_agent_core::workload::ImageInfo;
use coracle_artifact::{Contents, Image, ImageReference};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{BoxError, Handler, NodeBody, Refused, json_answer, query};
use crate::runtimes::Pulled;

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
            (Method::GET, "/images") => Ok(self.list().await),
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
        // The file has a name of ours; what the user knows is that it was sent.
        let path = file.0.clone();
        let shown = path.display().to_string();
        let refused = move |words: String| (StatusCode::UNPROCESSABLE_ENTITY, words.replace(&shown, "the file"));
        let looked = tokio::task::spawn_blocking(move || Contents::of(&path, name.as_ref())).await.map_err(internal)?;
        let contents = Arc::new(looked.map_err(|error| refused(error.to_string()))?);
        if contents.containers().is_some() {
            // Told before anything is kept.
            self.inner.runtimes.takes_containers().map_err(&refused)?;
        }
        let (store, components) = (self.inner.wasm.image_store().clone(), contents.clone());
        let imported = tokio::task::spawn_blocking(move || store.import(&components)).await.map_err(internal)?;
        let mut images: Vec<Value> =
            imported.map_err(|error| refused(error.to_string()))?.iter().map(component).collect();
        if let Some((archive, containers)) = contents.containers() {
            let imported = self.inner.runtimes.import(archive, containers).await.map_err(refused)?;
            images.extend(imported.iter().map(container));
        }
        // What was brought by hand is for every pod.
        let ids: Vec<String> = images.iter().filter_map(|image| image["digest"].as_str().map(str::to_owned)).collect();
        let records = self.inner.wasm.puller().records().clone();
        let forget = move || ids.iter().for_each(|id| records.removed(id));
        tokio::task::spawn_blocking(forget).await.map_err(internal)?;
        self.changed();
        Ok(json!({ "images": images }))
    }

    async fn list(&self) -> Value {
        let components = self.inner.wasm.image_store().list();
        let containers = self.inner.runtimes.container_images().await;
        let images: Vec<Value> = components.iter().map(component).chain(containers.iter().map(container)).collect();
        json!({ "images": images })
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
        let pulled = self.inner.runtimes.pull_by_hand(&reference).await;
        let image = pulled.map_err(|error| (StatusCode::BAD_GATEWAY, error))?;
        self.changed();
        Ok(match image {
            Pulled::Component(image) => component(&image),
            Pulled::Container(image) => container(&image),
        })
    }

    async fn remove(&self, name: &str) -> Result<Value, (StatusCode, String)> {
        use coracle_agent_core::Workload;
        let reference = reference(name)?;
        let image = self.inner.wasm.image_store().resolve(&reference);
        let Some(image) = image else { return self.remove_container_image(name, &reference).await };
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

    async fn remove_container_image(
        &self,
        name: &str,
        reference: &ImageReference,
    ) -> Result<Value, (StatusCode, String)> {
        match self.inner.runtimes.remove_container_image(&reference.to_string()).await {
            Ok(Some(freed)) => Ok(json!({ "freedBytes": freed })),
            Ok(None) => Err((StatusCode::NOT_FOUND, format!("there is no image {name:?} on this node"))),
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

fn component(image: &Image) -> Value {
    shown("wasm", &image.names, image.id.as_str(), image.size_bytes)
}

fn container(image: &ImageInfo) -> Value {
    // Its digests follow from its tags for whoever asks the registry; alone they are what it is known by.
    let (digests, tags): (Vec<&String>, Vec<&String>) = image.names.iter().partition(|name| name.contains('@'));
    let names = if tags.is_empty() { digests } else { tags };
    shown("oci", &names, &image.image_id, image.size_bytes)
}

fn shown(kind: &str, references: &impl serde::Serialize, digest: &str, bytes: u64) -> Value {
    json!({ "references": references, "digest": digest, "sizeBytes": bytes, "kind": kind })
}
