//! What pods have on the disk: their logs, and those of their volumes that the kubelet measures.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use coracle_agent_core::workload::DiskUse;

use super::PodSample;
use crate::volumes::{Volumes, empty_dir::usage};

/// Sizes of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileSystem {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
    pub(super) used_bytes: u64,
    pub(super) inodes: u64,
    pub(super) free_inodes: u64,
}

impl FileSystem {
    /// The one a path is on. What is kept for root alone counts neither as used nor as available.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        Some(Self {
            total_bytes: stat.f_blocks * stat.f_frsize,
            available_bytes: stat.f_bavail * stat.f_frsize,
            used_bytes: stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize,
            inodes: stat.f_files,
            free_inodes: stat.f_ffree,
        })
    }
}

/// Where a pod's files are.
pub(super) struct PodPlaces {
    logs: PathBuf,
    volumes: Vec<VolumePlace>,
}

struct VolumePlace {
    name: String,
    dir: PathBuf,
    takes_disk: bool,
}

/// What a pod has on the disk.
#[derive(Debug, Default)]
pub(super) struct PodDisk {
    /// Logs by container, those of runs that have ended too.
    pub(super) logs: BTreeMap<String, DiskUse>,
    /// In the order of the pod's specification.
    pub(super) volumes: Vec<VolumeDisk>,
}

/// A volume that is measured.
#[derive(Debug)]
pub(super) struct VolumeDisk {
    pub(super) name: String,
    pub(super) used: DiskUse,
    /// What it is on.
    pub(super) on: Option<FileSystem>,
    /// It counts as the pod's ephemeral storage: it is on the node's disk and goes with the pod.
    pub(super) takes_disk: bool,
}

/// Where a pod's files are; nothing is read yet.
pub(super) fn places(pod: &PodSample, logs: &Path, volumes: &Volumes) -> PodPlaces {
    let spec = pod.view.pod.spec.as_ref();
    let declared = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let place = |volume| {
        let (dir, takes_disk) = volumes.place(pod.uid(), volume)?;
        Some(VolumePlace { name: volume.name.clone(), dir, takes_disk })
    };
    PodPlaces { logs: logs.to_owned(), volumes: declared.iter().filter_map(place).collect() }
}

impl PodPlaces {
    /// Walks through all of it.
    pub(super) fn measure(&self) -> PodDisk {
        let entries = fs::read_dir(&self.logs).into_iter().flatten().flatten();
        let logs = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), usage(&entry.path())));
        let volume = |place: &VolumePlace| VolumeDisk {
            name: place.name.clone(),
            used: usage(&place.dir),
            on: FileSystem::of(&place.dir),
            takes_disk: place.takes_disk,
        };
        PodDisk { logs: logs.collect(), volumes: self.volumes.iter().map(volume).collect() }
    }
}

impl PodDisk {
    /// What counts as ephemeral storage beside the containers' own layers.
    pub(super) fn ephemeral(&self) -> DiskUse {
        let volumes = self.volumes.iter().filter(|volume| volume.takes_disk).map(|volume| volume.used);
        let mut sum = DiskUse::default();
        self.logs.values().copied().chain(volumes).for_each(|used| sum += used);
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_and_volumes_are_measured() {
        let temp = tempfile::tempdir().unwrap();
        let (logs, volume) = (temp.path().join("logs"), temp.path().join("v"));
        fs::create_dir_all(logs.join("c")).unwrap();
        fs::create_dir_all(&volume).unwrap();
        fs::write(logs.join("c/0.log"), vec![1; 50_000]).unwrap();
        fs::write(volume.join("data"), vec![1; 100_000]).unwrap();
        let place = |name: &str, takes_disk| VolumePlace { name: name.into(), dir: volume.clone(), takes_disk };
        let places = PodPlaces { logs, volumes: vec![place("disk", true), place("memory", false)] };
        let disk = places.measure();
        assert!((50_000..100_000).contains(&disk.logs["c"].bytes), "{disk:?}");
        assert_eq!(disk.logs["c"].inodes, 2);
        assert_eq!(disk.volumes.iter().map(|volume| volume.used.inodes).collect::<Vec<_>>(), [2, 2]);
        let sum = disk.ephemeral();
        assert_eq!(sum.bytes, disk.logs["c"].bytes + disk.volumes[0].used.bytes);
        assert!(disk.volumes[0].on.is_some_and(|on| on.total_bytes >= on.available_bytes && on.total_bytes > 0));
    }
}
