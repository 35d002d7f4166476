//! The line of one measurement: JSON on the standard output, one object a line.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{latency::Latencies, probe::Usage};

/// One measurement. Latencies are in milliseconds, CPU time in seconds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max: Option<f64>,
    /// Of the server, where its process is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_seconds: Option<f64>,
    /// Of this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_cpu_seconds: Option<f64>,
    #[serde(flatten)]
    pub(crate) parameters: Map<String, Value>,
}

impl Line {
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value: rounded(value),
            unit,
            p50: None,
            p99: None,
            max: None,
            cpu_seconds: None,
            client_cpu_seconds: None,
            parameters: Map::new(),
        }
    }

    /// Adds what is said of single operations.
    pub(crate) fn latencies(mut self, latencies: &Latencies) -> Self {
        if let Some(summary) = latencies.summary() {
            self.p50 = Some(rounded(summary.p50_ms));
            self.p99 = Some(rounded(summary.p99_ms));
            self.max = Some(rounded(summary.max_ms));
        }
        self
    }

    /// Adds the time and the CPU time that both sides used.
    pub(crate) fn usage(mut self, usage: &Usage) -> Self {
        self.cpu_seconds = usage.server.map(|cpu| rounded(cpu.as_secs_f64()));
        self.client_cpu_seconds = Some(rounded(usage.client.as_secs_f64()));
        self.with("seconds", rounded(usage.elapsed.as_secs_f64()))
    }

    /// Adds the same, and what each of a number of operations took of it.
    pub(crate) fn usage_each(mut self, usage: &Usage, operations: usize) -> Self {
        let each = |seconds: f64| rounded(seconds * 1e6 / operations.max(1) as f64);
        self = self.usage(usage);
        if let Some(cpu) = usage.server {
            self = self.with("cpu_us_per_operation", each(cpu.as_secs_f64()));
        }
        let client = each(usage.client.as_secs_f64());
        self.with("operations", operations).with("client_cpu_us_per_operation", client)
    }

    /// Adds a parameter, or a figure beside the main one.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.parameters.insert(key.to_owned(), value.into());
        self
    }

    /// The figure of one field, whichever way the line holds it.
    pub(crate) fn figure(&self, field: &str) -> Option<f64> {
        match field {
            "value" => Some(self.value),
            "p50" => self.p50,
            "p99" => self.p99,
            "max" => self.max,
            "cpu_seconds" => self.cpu_seconds,
            other => self.parameters.get(other).and_then(Value::as_f64),
        }
    }
}

/// Where lines go. It keeps them for a table at the end.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    /// Prints a line.
    pub(crate) fn emit(&mut self, line: Line) -> Result<()> {
        let text = serde_json::to_string(&line)?;
        writeln!(std::io::stdout().lock(), "{text}").context("cannot write to the standard output")?;
        self.lines.push(line);
        Ok(())
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }
}

/// Three places behind the point: more is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_one_flat_object() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_micros(1_500));
        let usage = Usage {
            server: Some(Duration::from_millis(2_500)),
            client: Duration::from_millis(500),
            elapsed: Duration::from_secs(2),
        };
        let line = Line::new("configmap-create", 5_000.123_456, "1/s")
            .latencies(&latencies)
            .usage_each(&usage, 10_000)
            .with("connections", 16);
        assert_eq!(
            serde_json::to_value(&line).unwrap(),
            json!({
                "name": "configmap-create", "value": 5000.123, "unit": "1/s", "p50": 1.5, "p99": 1.5, "max": 1.5,
                "cpu_seconds": 2.5, "client_cpu_seconds": 0.5, "cpu_us_per_operation": 250.0,
                "client_cpu_us_per_operation": 50.0, "operations": 10000, "seconds": 2.0, "connections": 16,
            })
        );
        assert_eq!(line.figure("p99"), Some(1.5));
        assert_eq!(line.figure("connections"), Some(16.0));
        assert_eq!(line.figure("nothing"), None);
    }

    #[test]
    fn what_was_not_measured_is_not_there() {
        let line = Line::new("binary-size", 43.0, "MB").latencies(&Latencies::default());
        assert_eq!(serde_json::to_value(line).unwrap(), json!({"name": "binary-size", "value": 43.0, "unit": "MB"}));
    }
}
