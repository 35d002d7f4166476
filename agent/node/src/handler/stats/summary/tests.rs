use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_agent_containerd::ImagesOnDisk;
use coracle_agent_core::workload::ContainerStats;
use k8s_openapi::api::core::v1::Pod;

use super::{super::disk::VolumeDisk, *};
use crate::{
    machine::{MachineUse, ProcessUse},
    views::View,
};

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn container(name: &str, cpu_nanoseconds: u64, working_set_bytes: u64) -> ContainerSample {
    let memory = MemoryStats { usage_bytes: 4096, working_set_bytes, rss_bytes: Some(100), ..MemoryStats::default() };
    let root_fs = Some(DiskUse { bytes: 1000, inodes: 1 });
    let stats = ContainerStats { at: second(60), cpu_nanoseconds, memory, root_fs };
    ContainerSample { name: name.into(), started: Some(second(5)), stats }
}

/// A node with one pod of two containers, of which the first has a limit.
pub(in super::super) fn sample() -> Sample {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"memory": "4Ki"}}},
            {"name": "b", "resources": {"limits": {"memory": "8Ki"}}},
        ]},
    }))
    .unwrap();
    let view = View { pod: Arc::new(pod), status: Arc::default() };
    let containers = vec![container("a", 1_500_000_000, 1024), container("b", 500_000_000, 2048)];
    Sample {
        now: second(60),
        at: Instant::now() + Duration::from_secs(100),
        pods: vec![PodSample { view, containers, sandbox_id: Some("s".into()) }],
        machine: MachineUse { cpu_nanoseconds: 9_000_000_000, memory_working_set_bytes: 7, ..MachineUse::default() },
        agent: ProcessUse::default(),
        processes: Some((10, 100)),
        problem: None,
    }
}

#[test]
fn a_pod_is_the_sum_of_its_containers() {
    let (mut before, sample) = (sample(), sample());
    before.at = sample.at - Duration::from_secs(2);
    before.now = second(58);
    for container in &mut before.pods[0].containers {
        container.stats.at = second(58);
        container.stats.cpu_nanoseconds = 500_000_000;
    }
    let mut rates = Rates::default();
    rates.add(before.counters(), before.at);
    rates.add(sample.counters(), sample.at);
    let used = |bytes| DiskUse { bytes, inodes: 1 };
    let volume = |name: &str, takes_disk| VolumeDisk { name: name.into(), used: used(10), on: None, takes_disk };
    let pod = PodDisk {
        logs: [("a".to_owned(), used(100)), ("ended".to_owned(), used(7))].into(),
        volumes: vec![volume("disk", true), volume("memory", false)],
    };
    let on = FileSystem { total_bytes: 9000, available_bytes: 8000, used_bytes: 900, inodes: 90, free_inodes: 80 };
    let images = ImagesOnDisk { directory: "/images".into(), bytes: 500, inodes: Some(5) };
    let images = Some((FileSystem { total_bytes: 7000, ..on }, images));
    let disk = Some(Disk { node: Some(on), images, pods: vec![pod] });
    let counters = LinkCounters { rx_bytes: 1, rx_errors: 2, tx_bytes: 3, tx_errors: 4 };
    let links = [(pod_link::name("s", "eth0"), counters), ("wan0".to_owned(), counters), ("lo".to_owned(), counters)];
    let links = links.into();
    let default_link = "wan0".to_owned();
    let scene = Scene {
        node: "n",
        started: second(1),
        sample: &sample,
        rates: &rates,
        disk,
        links: &links,
        default_link: Some(&default_link),
    };
    let summary = summary(&scene);
    let pod = &summary["pods"][0];
    assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
    assert_eq!(pod["cpu"]["usageCoreNanoSeconds"], 2_000_000_000u64);
    assert_eq!(pod["cpu"]["usageNanoCores"], 500_000_000u64);
    let memory = json!({
        "time": second(60), "usageBytes": 8192, "workingSetBytes": 3072, "availableBytes": 9216, "rssBytes": 200,
    });
    assert_eq!(pod["memory"], memory);
    assert_eq!(pod["containers"][0]["cpu"]["usageNanoCores"], 500_000_000u64);
    assert_eq!(pod["containers"][1]["cpu"]["usageNanoCores"], 0);
    assert_eq!(pod["containers"][0]["memory"]["availableBytes"], 3072);
    assert_eq!(pod["containers"][0]["rootfs"]["usedBytes"], 1000);
    assert_eq!(pod["containers"][0]["logs"]["usedBytes"], 100);
    assert_eq!(pod["containers"][0]["logs"]["capacityBytes"], 9000);
    let network = json!({"name": "eth0", "rxBytes": 3, "rxErrors": 4, "txBytes": 1, "txErrors": 2});
    assert_eq!(pod["network"]["interfaces"], json!([network]));
    assert_eq!(pod["network"]["rxBytes"], 3);
    assert_eq!(pod["volume"][1]["name"], "memory");
    assert_eq!(pod["ephemeral-storage"]["usedBytes"], 2 * 1000 + 107 + 10);
    let node = &summary["node"];
    assert_eq!(node["fs"]["usedBytes"], 900);
    assert_eq!(node["runtime"]["imageFs"]["usedBytes"], 500);
    assert_eq!(node["runtime"]["imageFs"]["inodesUsed"], 5);
    assert_eq!(node["runtime"]["containerFs"]["capacityBytes"], 7000);
    assert_eq!(pod["containers"][0]["rootfs"]["capacityBytes"], 7000);
    assert_eq!(node["runtime"]["containerFs"]["usedBytes"], 2000);
    assert_eq!(node["network"]["interfaces"].as_array().unwrap().len(), 1, "{node}");
    assert_eq!(node["network"]["name"], "wan0");
    assert_eq!(node["rlimit"]["curproc"], 10);
    assert_eq!(node["systemContainers"][1]["cpu"]["usageCoreNanoSeconds"], 2_000_000_000u64);
}

#[test]
fn what_is_not_wanted_or_not_known_is_left_out() {
    let (mut sample, rates, links) = (sample(), Rates::default(), HashMap::new());
    sample.pods[0].containers[1].stats.memory.rss_bytes = None;
    let scene = Scene {
        node: "n",
        started: second(1),
        sample: &sample,
        rates: &rates,
        disk: None,
        links: &links,
        default_link: None,
    };
    let summary = summary(&scene);
    for name in ["fs", "runtime", "network"] {
        assert_eq!(summary["node"].get(name), None, "{name}");
    }
    let pod = &summary["pods"][0];
    for name in ["network", "volume", "ephemeral-storage"] {
        assert_eq!(pod.get(name), None, "{name}");
    }
    assert_eq!(pod["cpu"].get("usageNanoCores"), None);
    assert_eq!(pod["memory"].get("rssBytes"), None, "of one of them nobody knows");
    assert_eq!(pod["containers"][0]["memory"]["rssBytes"], 100);
}
