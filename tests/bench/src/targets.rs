//! What the figures are to be, and the table that says whether they are. It reads reported lines and measures nothing.

use Bound::{AtLeast, AtMost};

use crate::report::Line;

/// A bound of one figure.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// One promise: a field of a line and its bound.
#[derive(Debug)]
struct Target {
    what: &'static str,
    /// What Kubernetes v1.36 with etcd reached on the same kind of machine.
    upstream: &'static str,
    line: &'static str,
    field: &'static str,
    unit: &'static str,
    bound: Bound,
}

const fn target(
    what: &'static str,
    upstream: &'static str,
    (line, field, unit): (&'static str, &'static str, &'static str),
    bound: Bound,
) -> Target {
    Target { what, upstream, line, field, unit, bound }
}

/// All promises. CPU of the fan-out is a fifth of upstream's 2 CPU-seconds a second.
const TARGETS: &[Target] = &[
    target("ConfigMap create, 1 KiB", "1,180/s", ("configmap-create", "value", "/s"), AtLeast(8_000.0)),
    target("its p99", "37 ms", ("configmap-create", "p99", "ms"), AtMost(10.0)),
    target("ConfigMap GET", "2,122/s", ("configmap-get", "value", "/s"), AtLeast(20_000.0)),
    target("Pod create", "824/s", ("pod-create", "value", "/s"), AtLeast(5_000.0)),
    target("LIST of 1,000 pods, p50", "33 ms", ("list-pods", "p50", "ms"), AtMost(4.0)),
    target("100 watchers × 200 creates/s, p99", "12 ms", ("watch-fanout", "p99", "ms"), AtMost(5.0)),
    target("its CPU-s a second", "2", ("watch-fanout", "server_cpu_per_second", ""), AtMost(0.4)),
    target("its lost events", "", ("watch-fanout", "lost", ""), AtMost(0.0)),
    target("created → bound, 100 nodes", "303/s", ("schedule-100", "value", "/s"), AtLeast(3_000.0)),
    target("created → bound, 5,000 nodes", "", ("schedule-5000", "value", "/s"), AtLeast(2_000.0)),
    target("idle memory", "615 MB", ("memory-idle", "value", "MB"), AtMost(40.0)),
    target("with 1,000 Wasm pods", "", ("memory-1000-pods", "value", "MB"), AtMost(150.0)),
    target("after the loads above", "", ("memory-after-loads", "value", "MB"), AtMost(200.0)),
    target("start → /readyz", "2.3–2.9 s", ("start-readyz-empty", "value", "ms"), AtMost(200.0)),
    target("start → node Ready", "", ("start-node-ready-empty", "value", "ms"), AtMost(500.0)),
    target("start → hello, compiled before", "", ("start-hello-kept", "value", "ms"), AtMost(1_000.0)),
    target("start → hello, not compiled", "", ("start-hello-empty", "value", "ms"), AtMost(2_000.0)),
    target("Wasm pod create → Ready, p50", "508 ms (OCI)", ("wasm-pod", "p50", "ms"), AtMost(15.0)),
    target("its p99", "", ("wasm-pod", "p99", "ms"), AtMost(60.0)),
    target("a Deployment of 1,000 Ready", "", ("deployment-1000", "value", "s"), AtMost(3.0)),
    target("wasi:http, per core", "70,800/s (hyper)", ("wasi-http", "per_core", "/s"), AtLeast(20_000.0)),
    target("its p99", "", ("wasi-http", "p99", "ms"), AtMost(3.0)),
    target("idle CPU", "", ("idle", "value", "%"), AtMost(0.5)),
    target("idle commits a minute", "3,000", ("idle", "commits_per_minute", ""), AtMost(1.0)),
    target("binary", "455 MB", ("binary-size", "value", "MB"), AtMost(45.0)),
    target("creates, 1,000 objects", "", ("flat-create-1000", "value", "/s"), AtLeast(8_000.0)),
    target("creates, 200,000 objects", "", ("flat-create-200000", "value", "/s"), AtLeast(8_000.0)),
    target("GETs, 1,000 objects", "", ("flat-get-1000", "value", "/s"), AtLeast(20_000.0)),
    target("GETs, 200,000 objects", "", ("flat-get-200000", "value", "/s"), AtLeast(20_000.0)),
];

impl Bound {
    fn holds(self, figure: f64) -> bool {
        match self {
            AtLeast(bound) => figure >= bound,
            AtMost(bound) => figure <= bound,
        }
    }

    fn shown(self, unit: &str) -> String {
        match self {
            AtLeast(bound) => format!("≥ {}", shown(bound, unit)),
            AtMost(bound) => format!("≤ {}", shown(bound, unit)),
        }
    }
}

/// A table in Markdown of every promise and its figure.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from("| what | upstream | wanted | measured | |\n| --- | --- | --- | --- | --- |\n");
    for target in TARGETS {
        let line = lines.iter().rfind(|line| line.name == target.line);
        let figure = line.and_then(|line| line.figure(target.field));
        let (measured, verdict) = match figure {
            Some(figure) => (shown(figure, target.unit), if target.bound.holds(figure) { "✓" } else { "missed" }),
            None => ("–".to_owned(), "not measured"),
        };
        let wanted = target.bound.shown(target.unit);
        text += &format!("| {} | {} | {wanted} | {measured} | {verdict} |\n", target.what, target.upstream);
    }
    text
}

/// A figure as people read it: `12,345/s`, `3.7 ms`.
fn shown(figure: f64, unit: &str) -> String {
    let number = if figure.abs() >= 100.0 || figure.fract() == 0.0 {
        grouped(figure.round() as i64)
    } else {
        format!("{figure:.2}")
    };
    match unit {
        "" | "/s" | "%" => format!("{number}{unit}"),
        unit => format!("{number} {unit}"),
    }
}

fn grouped(number: i64) -> String {
    let digits = number.abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn figures_read_well() {
        let check = |figure, unit, expect: &str| assert_eq!(shown(figure, unit), expect);
        check(12_345.6, "/s", "12,346/s");
        check(3.714, "ms", "3.71 ms");
        check(0.0, "", "0");
        check(0.25, "%", "0.25%");
        check(1_000_000.0, "MB", "1,000,000 MB");
        check(100.0, "ms", "100 ms");
    }

    #[test]
    fn the_table_judges() {
        let lines = [
            Line::new("configmap-create", 9_000.0, "1/s"),
            Line::new("configmap-get", 100.5, "1/s"),
            Line::new("watch-fanout", 1.0, "ms").with("lost", 0),
        ];
        let table = table(&lines);
        let row = |what: &str| table.lines().find(|line| line.starts_with(&format!("| {what} |"))).unwrap();
        assert_eq!(row("ConfigMap create, 1 KiB"), "| ConfigMap create, 1 KiB | 1,180/s | ≥ 8,000/s | 9,000/s | ✓ |");
        assert!(row("ConfigMap GET").ends_with("| 101/s | missed |"), "{}", row("ConfigMap GET"));
        assert!(row("its lost events").ends_with("| 0 | ✓ |"));
        assert!(row("Pod create").ends_with("| – | not measured |"));
    }

    #[test]
    fn the_last_figure_of_a_name_counts() {
        let lines = [Line::new("idle", 9.0, "%"), Line::new("idle", 0.1, "%")];
        assert!(table(&lines).contains("| idle CPU |  | ≤ 0.50% | 0.10% | ✓ |"));
    }

    #[test]
    fn no_promise_is_listed_twice() {
        let all: BTreeSet<_> = TARGETS.iter().map(|target| (target.line, target.field)).collect();
        assert_eq!(all.len(), TARGETS.len());
    }
}
