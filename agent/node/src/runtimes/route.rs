//! Which runtime an image is for: `runtimeClassName: wasm` says it, else whoever has the image, else its manifest.

use coracle_agent_core::workload::{Command, ContainerKey, PullPolicy, PullRequest, SandboxSpec, Workload};
use coracle_artifact::{ArtifactError, ImageReference, PullError};

use super::{Runtimes, Which};

/// The runtime class whose pods are components only.
const WASM_CLASS: &str = "wasm";

impl Runtimes {
    /// Whether a pod needs a sandbox of the container runtime, as far as can be told before its images are there.
    pub(super) fn may_need_sandbox(&self, spec: &SandboxSpec) -> bool {
        spec.handler.as_deref() != Some(WASM_CLASS) && spec.images.iter().any(|image| !self.is_component(image))
    }

    /// Whether the image is on the node as a component.
    fn is_component(&self, image: &str) -> bool {
        let reference = image.parse::<ImageReference>();
        reference.is_ok_and(|reference| self.inner.wasm.image_store().resolve(&reference).is_some())
    }

    /// Hands a pull to the runtime that the image is for.
    pub(super) fn pull(&self, request: Box<PullRequest>) {
        let class = {
            let table = self.inner.table.lock();
            let spec = table.pods.get(&request.key.pod).and_then(|pod| pod.spec.as_ref());
            spec.and_then(|spec| spec.handler.clone())
        };
        let component = class.as_deref() == Some(WASM_CLASS)
            || (self.is_component(&request.image) && request.policy != PullPolicy::Always);
        if component || self.oci().is_none() {
            return self.pull_with(Which::Wasm, request);
        }
        if class.is_some() {
            return self.pull_with(Which::Oci, request);
        }
        let runtimes = self.clone();
        self.spawn(async move {
            let which = runtimes.kind(&request).await;
            runtimes.pull_with(which, request);
        });
    }

    fn pull_with(&self, which: Which, request: Box<PullRequest>) {
        let key: ContainerKey = request.key.clone();
        self.inner.table.lock().runs.insert(key, which);
        match (which, self.oci()) {
            (Which::Oci, Some(oci)) => oci.submit(Command::Pull(request)),
            _ => self.inner.wasm.submit(Command::Pull(request)),
        }
    }

    async fn kind(&self, request: &PullRequest) -> Which {
        // What is on the node says what it is; a registry is asked for what is on neither side.
        if self.is_component(&request.image) {
            return Which::Wasm;
        }
        let Ok(reference) = request.image.parse::<ImageReference>() else { return Which::Oci };
        let Some(oci) = self.oci() else { return Which::Wasm };
        if request.policy == PullPolicy::Never || oci.has_image(&reference.to_string()).await {
            return Which::Oci;
        }
        let logins = |repository: &str| request.keyring.lookup(repository).unwrap_or_default();
        match self.inner.wasm.puller().pull(&reference, &logins).await {
            Ok(_) => Which::Wasm,
            Err(PullError::Artifact { source: ArtifactError::TooBig { .. } | ArtifactError::Io { .. }, .. }) => {
                Which::Wasm
            }
            // Either it is no component, or the container runtime knows another way to it, or the better words.
            Err(_) => Which::Oci,
        }
    }
}
