//! Rows of a server's `metav1.Table`, and how they become lines. Pure.

use std::cmp::Ordering;

use serde_json::Value;

use crate::{
    discovery::ApiKind,
    print::jsonpath::{JsonPath, JsonPathError},
};

/// A table of the server's.
#[derive(Debug)]
pub(super) struct Rows {
    columns: Vec<(String, i64)>,
    rows: Vec<Value>,
}

impl Rows {
    pub(super) fn new(answer: &Value) -> Self {
        let column = |column: &Value| {
            (column["name"].as_str().unwrap_or_default().to_owned(), column["priority"].as_i64().unwrap_or(0))
        };
        let columns = answer["columnDefinitions"].as_array().into_iter().flatten().map(column).collect();
        let mut rows = Self { columns, rows: Vec::new() };
        rows.add(answer);
        rows
    }

    /// Adds another answer's rows.
    pub(super) fn add(&mut self, answer: &Value) {
        self.rows.extend(answer["rows"].as_array().into_iter().flatten().cloned());
    }

    /// Keeps the columns and takes another answer's rows.
    pub(super) fn replace(&mut self, answer: &Value) {
        self.rows.clear();
        self.add(answer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn sort(&mut self, path: &JsonPath) -> Result<(), JsonPathError> {
        sort_by_path(&mut self.rows, path, |row| &row["object"])
    }
}

/// Sorts by what a path finds; what has nothing there comes first.
pub(super) fn sort_by_path<T>(
    items: &mut Vec<T>,
    path: &JsonPath,
    object: impl Fn(&T) -> &Value,
) -> Result<(), JsonPathError> {
    let mut keyed = Vec::new();
    for item in items.drain(..) {
        let key = path.find(object(&item))?.into_iter().next();
        keyed.push((key, item));
    }
    if keyed.iter().all(|(key, _)| key.is_none()) && !keyed.is_empty() {
        return Err(JsonPathError(
            "couldn't find any field with the path given to --sort-by in the list of objects".to_owned(),
        ));
    }
    keyed.sort_by(|left, right| order(left.0.as_ref(), right.0.as_ref()));
    items.extend(keyed.into_iter().map(|(_, item)| item));
    Ok(())
}

fn order(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(Value::Number(left)), Some(Value::Number(right))) => {
            left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Some(Value::String(left)), Some(Value::String(right))) => left.cmp(right),
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => left.cmp(right),
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}

/// Which columns are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    /// Written before names.
    pub kind_prefix: Option<&'a ApiKind>,
    pub wide: bool,
    pub namespace: bool,
    pub labels: bool,
    pub label_columns: &'a [String],
}

impl Layout<'_> {
    pub(super) fn header(&self, rows: &Rows) -> Vec<String> {
        let mut line = Vec::new();
        if self.namespace {
            line.push("NAMESPACE".to_owned());
        }
        line.extend(self.shown(rows).map(|at| rows.columns[at].0.to_uppercase()));
        // The part behind the slash says what a label is about.
        line.extend(self.label_columns.iter().map(|label| label.rsplit('/').next().unwrap_or(label).to_uppercase()));
        if self.labels {
            line.push("LABELS".to_owned());
        }
        line
    }

    pub(super) fn lines(&self, rows: &Rows) -> Vec<Vec<String>> {
        rows.rows.iter().map(|row| self.line(rows, row)).collect()
    }

    fn shown<'r>(&self, rows: &'r Rows) -> impl Iterator<Item = usize> + use<'r> {
        let wide = self.wide;
        (0..rows.columns.len()).filter(move |at| wide || rows.columns[*at].1 == 0)
    }

    fn line(&self, rows: &Rows, row: &Value) -> Vec<String> {
        let metadata = &row["object"]["metadata"];
        let mut line = Vec::new();
        if self.namespace {
            line.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
        }
        for at in self.shown(rows) {
            let text = cell(&row["cells"][at]);
            let is_name = at == 0;
            line.push(match self.kind_prefix {
                Some(kind) if is_name => format!("{}/{text}", kind.shown()),
                _ => text,
            });
        }
        for label in self.label_columns {
            line.push(metadata["labels"][label].as_str().unwrap_or_default().to_owned());
        }
        if self.labels {
            line.push(labels(&metadata["labels"]));
        }
        line
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // Only the first line fits in a row.
        Value::String(text) => match text.split_once('\n') {
            Some((first, _)) => format!("{first}..."),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

/// `a=b,c=d`
pub(crate) fn labels(labels: &Value) -> String {
    let mut pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Layout, Rows};
    use crate::{discovery::Discovery, print::jsonpath::JsonPath};

    fn answer() -> Value {
        json!({
            "kind": "Table",
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Ready", "priority": 0}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["b", "0/1", null], "object": {"metadata": {"name": "b", "namespace": "n"}}},
                {"cells": ["a", "1/1", "1.2.3.4"], "object": {"metadata": {"name": "a", "namespace": "n", "labels": {"app": "x", "k/tier": "db"}}}},
            ],
        })
    }

    const PLAIN: Layout<'_> =
        Layout { kind_prefix: None, wide: false, namespace: false, labels: false, label_columns: &[] };

    fn check(layout: Layout<'_>, expect: &[&[&str]]) {
        let mut rows = Rows::new(&answer());
        rows.sort(&JsonPath::relaxed(".metadata.name").expect("it is a path")).expect("they have names");
        let mut lines = vec![layout.header(&rows)];
        lines.extend(layout.lines(&rows));
        assert_eq!(lines, expect);
    }

    #[test]
    fn columns_follow_the_flags() {
        check(PLAIN, &[&["NAME", "READY"], &["a", "1/1"], &["b", "0/1"]]);
        check(Layout { wide: true, ..PLAIN }, &[&["NAME", "READY", "IP"], &["a", "1/1", "1.2.3.4"], &["b", "0/1", ""]]);
        check(
            Layout { namespace: true, labels: true, ..PLAIN },
            &[
                &["NAMESPACE", "NAME", "READY", "LABELS"],
                &["n", "a", "1/1", "app=x,k/tier=db"],
                &["n", "b", "0/1", "<none>"],
            ],
        );
        check(
            Layout { label_columns: &["k/tier".to_owned()], ..PLAIN },
            &[&["NAME", "READY", "TIER"], &["a", "1/1", "db"], &["b", "0/1", ""]],
        );
        let kind = Discovery::sample().find("deploy").expect("it is known").remove(0);
        check(
            Layout { kind_prefix: Some(&kind), ..PLAIN },
            &[&["NAME", "READY"], &["deployment.apps/a", "1/1"], &["deployment.apps/b", "0/1"]],
        );
    }

    #[test]
    fn sorting_needs_the_field() {
        let mut rows = Rows::new(&answer());
        assert!(rows.sort(&JsonPath::relaxed(".spec.nothing").expect("it is a path")).is_err());
    }
}
