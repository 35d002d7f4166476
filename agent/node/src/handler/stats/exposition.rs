//! `/metrics/resource` in the text form of Prometheus, with the names and help of the kubelet
//! (`pkg/kubelet/metrics/collectors/resource_metrics.go`). Pure: everything that was read is given.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;

use super::{ContainerSample, PodSample, Sample};

/// A line: labels, value, and when it was read.
type Row = (String, f64, Option<Timestamp>);

/// A metric with all its lines.
struct Family {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    rows: Vec<Row>,
}

/// The whole answer.
pub(super) fn exposition(sample: &Sample) -> String {
    let mut out = String::new();
    for Family { name, kind, help, rows } in families(sample).into_iter().filter(|family| !family.rows.is_empty()) {
        // Writing to a text cannot fail.
        let _ = writeln!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
        for (labels, value, at) in rows {
            let at = at.map_or_else(String::new, |at| format!(" {}", at.as_millisecond()));
            let _ = writeln!(out, "{name}{labels} {value}{at}");
        }
    }
    out
}

fn families(sample: &Sample) -> Vec<Family> {
    let (now, machine) = (sample.now, &sample.machine);
    let counter = |name, help, rows| Family { name, kind: "counter", help, rows };
    let gauge = |name, help, rows| Family { name, kind: "gauge", help, rows };
    let cpu = |one: &ContainerSample| seconds(one.stats.cpu_nanoseconds);
    let memory = |one: &ContainerSample| one.stats.memory.working_set_bytes as f64;
    vec![
        counter(
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the container in core-seconds",
            of_containers(sample, |one| Some((cpu(one), Some(one.stats.at)))),
        ),
        gauge(
            "container_memory_working_set_bytes",
            "Current working set of the container in bytes",
            of_containers(sample, |one| Some((memory(one), Some(one.stats.at)))),
        ),
        gauge(
            "container_start_time_seconds",
            "Start time of the container since unix epoch in seconds",
            of_containers(sample, |one| Some((one.started?.as_millisecond() as f64 / 1e3, None))),
        ),
        counter(
            "node_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the node in core-seconds",
            vec![(String::new(), seconds(machine.cpu_nanoseconds), Some(now))],
        ),
        gauge(
            "node_memory_working_set_bytes",
            "Current working set of the node in bytes",
            vec![(String::new(), machine.memory_working_set_bytes as f64, Some(now))],
        ),
        counter(
            "pod_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the pod in core-seconds",
            of_pods(sample, cpu),
        ),
        gauge("pod_memory_working_set_bytes", "Current working set of the pod in bytes", of_pods(sample, memory)),
        gauge(
            "resource_scrape_error",
            "1 if there was an error while getting container metrics, 0 otherwise",
            vec![(String::new(), f64::from(u8::from(sample.problem.is_some())), None)],
        ),
    ]
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

fn of_containers(sample: &Sample, value: impl Fn(&ContainerSample) -> Option<(f64, Option<Timestamp>)>) -> Vec<Row> {
    let row = |pod: &PodSample, one: &ContainerSample| {
        let (value, at) = value(one)?;
        let (namespace, name) = place(pod);
        Some((format!("{{container={:?},namespace={namespace:?},pod={name:?}}}", one.name), value, at))
    };
    let pods = sample.pods.iter();
    pods.flat_map(|pod| pod.containers.iter().map(move |one| (pod, one)))
        .filter_map(|(pod, one)| row(pod, one))
        .collect()
}

fn of_pods(sample: &Sample, value: impl Fn(&ContainerSample) -> f64) -> Vec<Row> {
    let mut sums: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for pod in sample.pods.iter().filter(|pod| !pod.containers.is_empty()) {
        sums.insert(place(pod), pod.containers.iter().map(&value).sum());
    }
    let row = |((namespace, pod), value)| (format!("{{namespace={namespace:?},pod={pod:?}}}"), value, Some(sample.now));
    sums.into_iter().map(row).collect()
}

/// A pod's namespace and name: words that need no escapes.
fn place(pod: &PodSample) -> (&str, &str) {
    let meta = &pod.view.pod.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{super::summary::tests::sample, *};

    #[test]
    fn metrics_read_as_the_kubelets() {
        let mut sample = sample();
        let text = exposition(&sample);
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"ns\",pod=\"p\"} 1.5 60000",
            "container_memory_working_set_bytes{container=\"b\",namespace=\"ns\",pod=\"p\"} 2048 60000",
            "container_start_time_seconds{container=\"a\",namespace=\"ns\",pod=\"p\"} 5",
            "node_cpu_usage_seconds_total 9 60000",
            "node_memory_working_set_bytes 7 60000",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2 60000",
            "pod_memory_working_set_bytes{namespace=\"ns\",pod=\"p\"} 3072 60000",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
        }
        sample.problem = Some("the runtime is away".into());
        assert!(exposition(&sample).contains("resource_scrape_error 1\n"));
    }
}
