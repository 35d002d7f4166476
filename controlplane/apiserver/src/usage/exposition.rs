//! What a node's agent says it and its containers have used, read from the text of `/metrics/resource`. No I/O is here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

/// A counter of CPU time and the memory beside it, as they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// When, by the node's clock.
    pub(crate) at: Timestamp,
    /// CPU time since the start.
    pub(crate) cpu_nanoseconds: u64,
    /// The working set.
    pub(crate) memory_bytes: u64,
    /// When the counter was zero; `None` where nobody says.
    pub(crate) started: Option<Timestamp>,
}

/// The containers of a pod by name.
pub(crate) type Containers = BTreeMap<Box<str>, Reading>;

/// One answer of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scrape {
    /// The whole node.
    pub(crate) node: Option<Reading>,
    /// By `NAMESPACE/NAME`.
    pub(crate) pods: HashMap<Box<str>, Containers>,
}

/// The metrics of a container or node, as far as they have been read.
#[derive(Debug, Default)]
struct Parts {
    at: Option<Timestamp>,
    cpu_nanoseconds: Option<u64>,
    memory_bytes: Option<u64>,
    started: Option<Timestamp>,
}

impl Parts {
    /// A reading, if both figures were there.
    fn whole(self) -> Option<Reading> {
        Some(Reading {
            at: self.at?,
            cpu_nanoseconds: self.cpu_nanoseconds?,
            memory_bytes: self.memory_bytes?,
            started: self.started,
        })
    }

    fn set(&mut self, what: Metric, value: f64, at: Option<Timestamp>) {
        // What is cast is no longer negative, and what is too large for the type becomes its largest value.
        match what {
            Metric::Cpu => {
                self.cpu_nanoseconds = Some((value * 1e9).round() as u64);
                self.at = at;
            }
            Metric::Memory => self.memory_bytes = Some(value as u64),
            Metric::Started => self.started = Timestamp::from_millisecond((value * 1e3) as i64).ok(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Metric {
    Cpu,
    Memory,
    Started,
}

#[derive(Debug, Clone, Copy)]
enum Subject {
    Node,
    Container,
}

/// The metrics that count, by the names the kubelet gives them (`pkg/kubelet/metrics/collectors/resource_metrics.go`).
fn known(name: &str) -> Option<(Subject, Metric)> {
    Some(match name {
        "node_cpu_usage_seconds_total" => (Subject::Node, Metric::Cpu),
        "node_memory_working_set_bytes" => (Subject::Node, Metric::Memory),
        "container_cpu_usage_seconds_total" => (Subject::Container, Metric::Cpu),
        "container_memory_working_set_bytes" => (Subject::Container, Metric::Memory),
        "container_start_time_seconds" => (Subject::Container, Metric::Started),
        _ => return None,
    })
}

impl Scrape {
    /// Reads the text format of Prometheus. Lines that are none, or that nobody needs, are passed over; what carries no time
    /// is as of `received`.
    pub(crate) fn parse(text: &str, received: Timestamp) -> Self {
        let mut node = Parts::default();
        let mut pods: HashMap<Box<str>, BTreeMap<Box<str>, Parts>> = HashMap::new();
        for line in text.lines() {
            let Some(Sample { subject, metric, labels, value, at }) = Sample::parse(line) else { continue };
            let at = at.unwrap_or(received);
            let parts = match subject {
                Subject::Node => &mut node,
                Subject::Container => {
                    let Some([namespace, pod, container]) = names(labels) else { continue };
                    let containers = pods.entry(format!("{namespace}/{pod}").into()).or_default();
                    containers.entry(container.into()).or_default()
                }
            };
            parts.set(metric, value, Some(at));
        }
        let whole = |containers: BTreeMap<Box<str>, Parts>| -> Containers {
            containers.into_iter().filter_map(|(name, parts)| Some((name, parts.whole()?))).collect()
        };
        let pods = pods.into_iter().map(|(pod, containers)| (pod, whole(containers)));
        Self { node: node.whole(), pods: pods.filter(|(_, containers)| !containers.is_empty()).collect() }
    }
}

/// A line: `name{labels} value time`.
struct Sample<'a> {
    subject: Subject,
    metric: Metric,
    labels: &'a str,
    value: f64,
    at: Option<Timestamp>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (subject, metric) = known(&line[..end])?;
        let (labels, rest) = match line[end..].strip_prefix('{') {
            None => ("", &line[end..]),
            Some(rest) => rest.split_at(labels_end(rest)?),
        };
        let mut words = rest.trim_start_matches('}').split_ascii_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        let at = words.next().and_then(|word| Timestamp::from_millisecond(word.parse().ok()?).ok());
        (value.is_finite() && value >= 0.0).then_some(Self { subject, metric, labels, value, at })
    }
}

/// Where the labels end, at a brace that stands in no text.
fn labels_end(text: &str) -> Option<usize> {
    let (mut in_text, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        let ends = byte == b'}' && !in_text;
        if byte == b'"' && !escaped {
            in_text = !in_text;
        }
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

/// Namespace, pod and container of labels.
fn names(mut labels: &str) -> Option<[Cow<'_, str>; 3]> {
    let [mut namespace, mut pod, mut container] = [const { None }; 3];
    while !labels.is_empty() {
        let (name, rest) = labels.split_once("=\"")?;
        let end = text_end(rest)?;
        let value = Some(unescaped(&rest[..end]));
        match name {
            "namespace" => namespace = value,
            "pod" => pod = value,
            "container" => container = value,
            _ => {}
        }
        labels = rest[end + 1..].trim_start_matches([',', ' ']);
    }
    Some([namespace?, pod?, container?])
}

fn text_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some(other) => out.push(other),
                None => {}
            },
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_node_s_answer_is_read() {
        let text = r#"
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="a",namespace="ns",pod="p"} 1.5 60000
container_cpu_usage_seconds_total{container="odd \"}\\",namespace="ns",pod="q"} 2e-09 60001
container_cpu_usage_seconds_total{container="no memory",namespace="ns",pod="p"} 1 60000
container_memory_working_set_bytes{container="a",namespace="ns",pod="p"} 1.048576e+06 60000
container_memory_working_set_bytes{container="odd \"}\\",namespace="ns",pod="q"} 7
container_memory_working_set_bytes{container="no cpu",namespace="ns",pod="r"} 7
container_start_time_seconds{container="a",namespace="ns",pod="p"} 5.25
node_cpu_usage_seconds_total 9 59000
node_memory_working_set_bytes 4096 59000
pod_cpu_usage_seconds_total{namespace="ns",pod="p"} 2 60000
container_cpu_usage_seconds_total{container="a",namespace="ns"} 1 60000
container_cpu_usage_seconds_total{container="b",namespace="ns",pod="p"} NaN 60000
container_cpu_usage_seconds_total{container="b",namespace="ns",pod="p 1
container_cpu_usage_seconds_total{
resource_scrape_error 0
"#;
        let read = Scrape::parse(text, at(1));
        let node = Reading { at: at(59_000), cpu_nanoseconds: 9_000_000_000, memory_bytes: 4096, started: None };
        assert_eq!(read.node, Some(node));
        let a =
            Reading { at: at(60_000), cpu_nanoseconds: 1_500_000_000, memory_bytes: 1 << 20, started: Some(at(5250)) };
        let odd = Reading { at: at(60_001), cpu_nanoseconds: 2, memory_bytes: 7, started: None };
        let mut pods: Vec<_> = read.pods.into_iter().collect();
        pods.sort_by(|one, other| one.0.cmp(&other.0));
        let expect = [("ns/p".into(), [("a".into(), a)].into()), ("ns/q".into(), [("odd \"}\\".into(), odd)].into())];
        assert_eq!(pods, expect);
    }

    #[test]
    fn what_carries_no_time_is_of_when_it_came() {
        let text = "node_cpu_usage_seconds_total 1\nnode_memory_working_set_bytes 2";
        assert_eq!(Scrape::parse(text, at(77)).node.map(|node| node.at), Some(at(77)));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "(node_cpu_usage_seconds_total|container_start_time_seconds)?[ -~é\n]{0,120}") {
            Scrape::parse(&text, at(0));
        }

        #[test]
        fn names_come_back_whatever_is_in_them(names in prop::array::uniform3("[^\r\n]{0,12}"), cut in 0usize..200) {
            let [namespace, pod, container] = &names;
            let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let labels = format!(
                "{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}",
                escaped(container), escaped(namespace), escaped(pod)
            );
            let text = format!(
                "container_cpu_usage_seconds_total{labels} 1 60000\ncontainer_memory_working_set_bytes{labels} 2 60000"
            );
            let read = Scrape::parse(&text, at(0));
            let place = format!("{namespace}/{pod}");
            prop_assert!(read.pods[place.as_str()].contains_key(container.as_str()), "{}", text);
            // An answer that was cut off.
            let end = (0..=cut.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            Scrape::parse(&text[..end], at(0));
        }
    }
}
