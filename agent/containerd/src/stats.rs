//! Resource use of containers, asked of the runtime in one call for all of them. What the runtime says of rates is not
//! taken: it averages over the time since anybody asked it last.

use std::{collections::HashMap, time::Duration};

use coracle_agent_core::workload::{ContainerStats, DiskUse, MemoryStats, PodStats, PodUid, Stats, WorkloadError};
use jiff::Timestamp;

use crate::{
    connection::timed,
    container::Shared,
    cri::v1::{self, ContainerStatsFilter, ImageFsInfoRequest, ListContainerStatsRequest, UInt64Value},
    image, labels,
    workload::{ImagesOnDisk, runtime_error},
};

/// How long the runtime may take. Whoever asks for figures does not wait long, and those of other runtimes are there already.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The figures of all containers of this node that run; `sandboxes` are those in use.
pub(crate) async fn all(shared: &Shared, sandboxes: &HashMap<PodUid, String>) -> Stats {
    let filter = ContainerStatsFilter { label_selector: labels::of_node(&shared.node), ..Default::default() };
    let request = timed(ListContainerStatsRequest { filter: Some(filter) }, TIMEOUT);
    let mut all = Stats::default();
    for (uid, id) in sandboxes {
        all.pods.insert(uid.clone(), PodStats { sandbox_id: Some(id.clone()), ..PodStats::default() });
    }
    match shared.connection.runtime().list_container_stats(request).await {
        Ok(answer) => {
            for (pod, name, stats) in answer.into_inner().stats.into_iter().filter_map(one) {
                // Of others, which an earlier life left, nobody asks.
                if let Some(pod) = all.pods.get_mut(&pod) {
                    pod.containers.insert(name, stats);
                }
            }
        }
        Err(status) => all.problem = Some(runtime_error(status)),
    }
    all
}

/// The room that images and layers take.
pub(crate) async fn images(shared: &Shared) -> Result<ImagesOnDisk, WorkloadError> {
    image::on_disk(&shared.connection, timed(ImageFsInfoRequest {}, TIMEOUT)).await.map_err(runtime_error)
}

/// A container that runs: of one that has ended there are no figures.
fn one(stats: v1::ContainerStats) -> Option<(PodUid, String, ContainerStats)> {
    let mut attributes = stats.attributes?;
    let (cpu, memory) = (stats.cpu?, stats.memory?);
    let pod = labels::pod(&attributes.labels)?;
    let name = attributes.labels.remove(labels::CONTAINER_NAME)?;
    let value = |value: Option<UInt64Value>| value.map(|value| value.value);
    let working_set_bytes = value(memory.working_set_bytes)?;
    let root_fs = stats.writable_layer.map(|layer| DiskUse {
        bytes: value(layer.used_bytes).unwrap_or(0),
        inodes: value(layer.inodes_used).unwrap_or(0),
    });
    let stats = ContainerStats {
        at: Timestamp::from_nanosecond(cpu.timestamp.into()).ok()?,
        cpu_nanoseconds: value(cpu.usage_core_nano_seconds)?,
        memory: MemoryStats {
            usage_bytes: value(memory.usage_bytes).unwrap_or(working_set_bytes),
            working_set_bytes,
            rss_bytes: value(memory.rss_bytes),
            page_faults: value(memory.page_faults),
            major_page_faults: value(memory.major_page_faults),
        },
        root_fs,
    };
    Some((pod, name, stats))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::v1::{ContainerAttributes, CpuUsage, FilesystemUsage, MemoryUsage};

    fn figures(cpu: Option<CpuUsage>, memory: Option<MemoryUsage>) -> v1::ContainerStats {
        let labels = [(labels::POD_UID, "u"), (labels::CONTAINER_NAME, "c")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        v1::ContainerStats {
            attributes: Some(ContainerAttributes { labels, ..Default::default() }),
            cpu,
            memory,
            writable_layer: Some(FilesystemUsage {
                used_bytes: Some(UInt64Value { value: 4096 }),
                inodes_used: Some(UInt64Value { value: 3 }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn figures_are_those_of_the_runtime() {
        let number = |value| Some(UInt64Value { value });
        let cpu = CpuUsage { timestamp: 5_000_000_001, usage_core_nano_seconds: number(7), ..Default::default() };
        let memory = MemoryUsage {
            working_set_bytes: number(10),
            usage_bytes: number(20),
            rss_bytes: number(5),
            ..Default::default()
        };
        let (pod, name, stats) = one(figures(Some(cpu), Some(memory))).unwrap();
        assert_eq!((pod, name.as_str()), (PodUid::new("u"), "c"));
        let expect = ContainerStats {
            at: Timestamp::from_nanosecond(5_000_000_001).unwrap(),
            cpu_nanoseconds: 7,
            memory: MemoryStats {
                usage_bytes: 20,
                working_set_bytes: 10,
                rss_bytes: Some(5),
                page_faults: None,
                major_page_faults: None,
            },
            root_fs: Some(DiskUse { bytes: 4096, inodes: 3 }),
        };
        assert_eq!(stats, expect);
        assert_eq!(one(figures(Some(cpu), None)), None, "it has ended");
    }
}
