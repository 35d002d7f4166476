//! Ephemeral containers. No runtime here starts one in a pod that runs already, and whoever asks for one is told: it counts as
//! ended before it began, so that `kubectl debug` shows why instead of waiting.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

use super::PodMachine;
use crate::event::EventKind;

/// Exit code of a container that could not be started.
const CANNOT_START: i32 = 128;
const REASON: &str = "ContainerCannotRun";
const MESSAGE: &str = "ephemeral containers are not supported by this node: start a pod of its own instead \
                       (kubectl debug POD --copy-to=NAME)";

impl PodMachine {
    /// Says of each new ephemeral container that it does not run.
    pub(super) fn note_ephemeral(&mut self) {
        let names: Vec<String> = names(&self.pod).skip(self.ephemeral_told).map(str::to_owned).collect();
        self.ephemeral_told += names.len();
        for name in names {
            self.event(None, EventKind::Warning, "Failed", format!("Error: container {name}: {MESSAGE}"));
        }
    }
}

fn names(pod: &Pod) -> impl Iterator<Item = &str> {
    let all = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    all.map(|container| container.name.as_str())
}

/// The statuses of a pod's ephemeral containers.
pub(super) fn statuses(pod: &Pod) -> Option<Vec<ContainerStatus>> {
    let all = pod.spec.iter().flat_map(|spec| spec.ephemeral_containers.iter().flatten());
    let refused = |name: &str, image: Option<&String>| ContainerStatus {
        name: name.to_owned(),
        image: image.cloned().unwrap_or_default(),
        state: Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: CANNOT_START,
                reason: Some(REASON.to_owned()),
                message: Some(MESSAGE.to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        }),
        last_state: Some(ContainerState::default()),
        ..ContainerStatus::default()
    };
    let statuses: Vec<_> = all.map(|container| refused(&container.name, container.image.as_ref())).collect();
    (!statuses.is_empty()).then_some(statuses)
}
