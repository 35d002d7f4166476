//! Images put into containerd's own store over its socket, as its `ctr` does: their content, then their names. CRI can only
//! pull, at the places that the runtime's own configuration names. It never unpacks: containerd does that when the first
//! container is made of an image, and its CRI part learns of the names by its events.

use std::{collections::HashMap, io::Read, time::Duration};

use coracle_artifact::{Archive, ArtifactError, Blob, Content, Digest, Document, Part, PullError, Remote};
use futures::future::try_join_all;
use jiff::Timestamp;
use prost_types::FieldMask;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    connection::{CALL_TIMEOUT, Connection, timed, words},
    cri::{
        content::{AbortRequest, Info, UpdateRequest, WriteAction, WriteContentRequest, content_client::ContentClient},
        images::{
            CreateImageRequest, DeleteImageRequest, Descriptor, Image, ListImagesRequest, UpdateImageRequest,
            images_client::ImagesClient,
        },
        leases::{CreateRequest, DeleteRequest, leases_client::LeasesClient},
    },
};

/// The namespace of containerd in which its CRI part has everything.
const NAMESPACE: &str = "k8s.io";
/// Bytes of one message: gRPC takes 4 MiB, and a message is in memory on both sides.
const MESSAGE_BYTES: usize = 512 * 1024;
/// Blobs of an image that come at once: containerd's own `max_concurrent_downloads`.
const MAX_BLOBS: usize = 3;
/// What is not yet part of an image is held so long; an agent that dies leaves it to containerd's collector after that.
const LEASE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);
/// How long containerd may take to check a blob after its last byte, at 10 MB/s, and besides.
const COMMIT_BYTES_PER_SECOND: u64 = 10_000_000;
/// The label by which an image is never collected (containerd 1.7 tells it over CRI; older ones keep it too).
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// Where an image's content comes from.
pub(crate) enum Source<'a> {
    Remote(&'a Remote<'a>),
    Archive(&'a Archive),
}

/// Why an image is not in the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error(transparent)]
    Pull(#[from] PullError),
    #[error(transparent)]
    Archive(#[from] ArtifactError),
    #[error("containerd does not take it: {}", words(.0))]
    Store(#[from] Status),
}

/// What is in the store, without a name yet.
pub(crate) struct Copied {
    /// The manifest or the index.
    pub(crate) target: Part,
    /// Of the configuration: what CRI knows the image by.
    pub(crate) id: Digest,
}

/// Whether an image is kept though nothing uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It came from a file, and may not be anywhere else.
    Yes,
    No,
}

/// containerd's store. Everything written through one value is held by one lease.
pub(crate) struct Store {
    channel: Channel,
    lease: String,
}

impl Store {
    /// Opens the store for one image.
    pub(crate) async fn open(connection: &Connection) -> Result<Self, Status> {
        let store = Self { channel: connection.channel(), lease: format!("coracle-{}", unique()) };
        let expires = (Timestamp::now() + LEASE).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let labels = [("containerd.io/gc.expire".to_owned(), expires)].into();
        let create = store.request(CreateRequest { id: store.lease.clone(), labels }, CALL_TIMEOUT);
        LeasesClient::new(store.channel.clone()).create(create).await?;
        Ok(store)
    }

    /// Ends the hold on what was written: what became part of an image stays.
    pub(crate) async fn close(self) {
        let delete = self.request(DeleteRequest { id: self.lease.clone() }, CALL_TIMEOUT);
        if let Err(status) = LeasesClient::new(self.channel.clone()).delete(delete).await {
            tracing::debug!(why = words(&status), "a lease was not ended; it runs out by itself");
        }
    }

    fn request<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = timed(message, timeout);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
        if let Ok(lease) = self.lease.parse() {
            metadata.insert("containerd-lease", lease);
        }
        request
    }

    /// Copies the content of an image of which this is the manifest or the index.
    pub(crate) async fn copy(&self, source: &Source<'_>, json: &[u8]) -> Result<Copied, CopyError> {
        let root = document(json)?;
        let (manifest, of_manifest) = match &root.content {
            Content::Index(part) => {
                let json = source.document(&part.digest).await?;
                (document(&json)?, json)
            }
            Content::Image { .. } => (root.clone(), json.to_vec()),
        };
        let Content::Image { config, layers } = &manifest.content else {
            return Err(ArtifactError::Malformed("an index of the image names an index".into()).into());
        };
        let slots = Semaphore::new(MAX_BLOBS);
        let parts = layers
            .iter()
            .enumerate()
            .filter(|(at, layer)| layers[..*at].iter().all(|known| known.digest != layer.digest));
        let blobs = parts.map(|(_, part)| part).chain([config]).map(|part| async {
            let _slot = slots.acquire().await;
            self.blob(source, part).await
        });
        try_join_all(blobs).await?;
        // A document keeps what it refers to from containerd's collector by its labels.
        let layers = layers.iter().enumerate().map(|(at, layer)| (format!("l.{at}"), layer));
        let labels = layers.chain([("config".to_owned(), config)]).map(|(key, part)| reference(&key, part)).collect();
        self.document(&manifest.part, of_manifest, labels).await?;
        if root != manifest {
            self.document(&root.part, json.to_vec(), [reference("m.0", &manifest.part)].into()).await?;
        }
        Ok(Copied { target: root.part, id: config.digest.clone() })
    }

    async fn blob(&self, source: &Source<'_>, part: &Part) -> Result<(), CopyError> {
        let Some(mut write) = Write::begin(self, part, HashMap::new()).await? else { return Ok(()) };
        let copied = async {
            let mut pieces = source.blob(part).await?;
            while let Some(piece) = pieces.next().await? {
                for message in piece.chunks(MESSAGE_BYTES) {
                    write.append(message.to_vec()).await?;
                }
            }
            Ok(write.commit().await?)
        };
        let copied: Result<(), CopyError> = copied.await;
        if copied.is_err() {
            write.abort().await;
        }
        copied
    }

    async fn document(&self, part: &Part, json: Vec<u8>, labels: HashMap<String, String>) -> Result<(), Status> {
        match Write::begin(self, part, labels.clone()).await? {
            Some(mut write) => {
                write.append(json).await?;
                write.commit().await
            }
            // It was there, perhaps without its parts.
            None => {
                let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
                let info = Info { digest: part.digest.to_string(), size: 0, labels };
                let update = UpdateRequest { info: Some(info), update_mask: Some(FieldMask { paths }) };
                ContentClient::new(self.channel.clone()).update(self.request(update, CALL_TIMEOUT)).await.map(drop)
            }
        }
    }

    /// Gives an image a name, which another may have had.
    pub(crate) async fn name(&self, name: &str, target: &Part, keep: Keep) -> Result<(), Status> {
        let labels: HashMap<String, String> =
            if keep == Keep::Yes { [(PINNED.0.to_owned(), PINNED.1.to_owned())].into() } else { HashMap::new() };
        let size = i64::try_from(target.bytes).unwrap_or(i64::MAX);
        let descriptor = Descriptor { media_type: target.media_type.clone(), digest: target.digest.to_string(), size };
        let image = Image { name: name.to_owned(), labels, target: Some(descriptor) };
        let mut images = ImagesClient::new(self.channel.clone());
        let create = CreateImageRequest { image: Some(image.clone()) };
        match images.create(self.request(create, CALL_TIMEOUT)).await {
            Err(status) if status.code() == Code::AlreadyExists => {
                let mut paths = vec!["target".to_owned()];
                paths.extend((keep == Keep::Yes).then(|| format!("labels.{}", PINNED.0)));
                let update = UpdateImageRequest { image: Some(image), update_mask: Some(FieldMask { paths }) };
                images.update(self.request(update, CALL_TIMEOUT)).await.map(drop)
            }
            result => result.map(drop),
        }
    }
}

/// The names that are marked to be kept: a containerd before 1.7 does not tell them over CRI.
pub(crate) async fn kept_names(connection: &Connection) -> Result<Vec<String>, Status> {
    let filter = format!("labels.{:?}=={}", PINNED.0, PINNED.1);
    let mut request = timed(ListImagesRequest { filters: vec![filter] }, CALL_TIMEOUT);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    let list = ImagesClient::new(connection.channel()).list(request).await?;
    Ok(list.into_inner().images.into_iter().map(|image| image.name).collect())
}

/// Takes a name away. What it named stays as long as another names it.
pub(crate) async fn remove_name(connection: &Connection, name: &str) -> Result<(), Status> {
    let mut request = timed(DeleteImageRequest { name: name.to_owned(), sync: false }, CALL_TIMEOUT);
    request.metadata_mut().insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    ImagesClient::new(connection.channel()).delete(request).await.map(drop)
}

fn document(json: &[u8]) -> Result<Document, ArtifactError> {
    Document::parse(json, Document::this_machine())
}

/// The label of a document that refers to a part (containerd's `images.ChildGCLabels`).
fn reference(key: &str, part: &Part) -> (String, String) {
    (format!("containerd.io/gc.ref.content.{key}"), part.digest.to_string())
}

fn unique() -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{}-{next}", Timestamp::now().as_nanosecond())
}

impl Source<'_> {
    async fn document(&self, digest: &Digest) -> Result<Vec<u8>, CopyError> {
        match self {
            Self::Remote(remote) => Ok(remote.manifest(Some(digest)).await?.1),
            Self::Archive(archive) => Ok(archive.document(digest)?),
        }
    }

    async fn blob(&self, part: &Part) -> Result<Pieces, CopyError> {
        match self {
            Self::Remote(remote) => Ok(Pieces::Blob(Box::new(remote.blob(&part.digest, part.bytes).await?))),
            Self::Archive(archive) => {
                let (file, bytes) = archive.blob(&part.digest)?;
                Ok(Pieces::File(file.take(bytes)))
            }
        }
    }
}

/// A blob on its way.
enum Pieces {
    Blob(Box<Blob>),
    File(std::io::Take<std::fs::File>),
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, CopyError> {
        match self {
            Self::Blob(blob) => Ok(blob.chunk().await?.map(Vec::from)),
            Self::File(file) => {
                let mut piece = vec![0; MESSAGE_BYTES];
                // A file of this machine, just received: half a megabyte of it holds nobody up.
                let read = file.read(&mut piece);
                let read =
                    read.map_err(|error| ArtifactError::Malformed(format!("the archive cannot be read: {error}")))?;
                piece.truncate(read);
                Ok(Some(piece).filter(|piece| !piece.is_empty()))
            }
        }
    }
}

/// One blob being written. containerd checks its size and digest at the end.
struct Write<'a> {
    store: &'a Store,
    name: String,
    part: &'a Part,
    labels: HashMap<String, String>,
    messages: mpsc::Sender<WriteContentRequest>,
    answers: tonic::Streaming<crate::cri::content::WriteContentResponse>,
    offset: i64,
}

impl<'a> Write<'a> {
    /// `None` when containerd has the blob; from now on the lease holds it then.
    async fn begin(store: &'a Store, part: &'a Part, labels: HashMap<String, String>) -> Result<Option<Self>, Status> {
        let (messages, stream) = mpsc::channel(1);
        let name = format!("coracle-{}-{}", unique(), part.digest);
        let total = i64::try_from(part.bytes).unwrap_or(i64::MAX);
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: name.clone(),
            total,
            expected: part.digest.to_string(),
            ..WriteContentRequest::default()
        };
        messages.try_send(first).map_err(|_| Status::internal("the first message does not fit"))?;
        let mut request = Request::new(ReceiverStream::new(stream));
        *request.metadata_mut() = store.request((), CALL_TIMEOUT).metadata().clone();
        // No deadline over the whole: a blob takes as long as its source does, and each answer has its own.
        request.metadata_mut().remove("grpc-timeout");
        let mut content = ContentClient::new(store.channel.clone());
        let begun = async {
            let mut answers = content.write(request).await?.into_inner();
            let status = answers.message().await?;
            Ok((answers, status))
        };
        match within(CALL_TIMEOUT, begun).await {
            Ok((answers, Some(_))) => Ok(Some(Self { store, name, part, labels, messages, answers, offset: 0 })),
            Ok((_, None)) => Err(Status::internal("containerd ended a write at once")),
            Err(status) if status.code() == Code::AlreadyExists => Ok(None),
            Err(status) => Err(status),
        }
    }

    async fn append(&mut self, data: Vec<u8>) -> Result<(), Status> {
        let bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let message = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: self.offset,
            data,
            ..WriteContentRequest::default()
        };
        self.offset += bytes;
        self.send(message, CALL_TIMEOUT).await
    }

    async fn commit(&mut self) -> Result<(), Status> {
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            offset: self.offset,
            total: i64::try_from(self.part.bytes).unwrap_or(i64::MAX),
            expected: self.part.digest.to_string(),
            labels: self.labels.clone(),
            ..WriteContentRequest::default()
        };
        let checking = Duration::from_secs(self.part.bytes / COMMIT_BYTES_PER_SECOND);
        match self.send(message, CALL_TIMEOUT + checking).await {
            // Another image with the same blob was faster.
            Err(status) if status.code() == Code::AlreadyExists => Ok(()),
            result => result,
        }
    }

    async fn send(&mut self, message: WriteContentRequest, timeout: Duration) -> Result<(), Status> {
        // A closed channel means that containerd has ended the stream: it says why.
        let _ = self.messages.send(message).await;
        match within(timeout, self.answers.message()).await? {
            Some(_) => Ok(()),
            None => Err(Status::internal("containerd ended a write before its end")),
        }
    }

    /// Gives up what was written so far.
    async fn abort(self) {
        let Self { store, name, .. } = self;
        let abort = store.request(AbortRequest { r#ref: name }, CALL_TIMEOUT);
        if let Err(status) = ContentClient::new(store.channel.clone()).abort(abort).await {
            tracing::debug!(why = words(&status), "a write was not given up; it is collected when its lease ends");
        }
    }
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(timeout, work)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("containerd does not answer")))
}
