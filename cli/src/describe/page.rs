//! A page under construction: lines of tabbed cells at levels, and the parts that all pages share. Pure.

use serde_json::Value;

/// Longest annotation shown in one piece, as kubectl has it.
const MAX_ANNOTATION: usize = 140;

/// Lines whose cells are ended by tabs.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub text: String,
}

impl Page {
    /// A line, indented by two spaces a level.
    pub(super) fn line(&mut self, level: usize, text: impl AsRef<str>) {
        self.text.extend(std::iter::repeat_n("  ", level));
        self.text.push_str(text.as_ref());
        self.text.push('\n');
    }

    /// `Name:` and its value.
    pub(super) fn field(&mut self, level: usize, name: &str, value: impl AsRef<str>) {
        self.line(level, format!("{name}:\t{}", value.as_ref()));
    }

    /// A value under each other, the name before the first.
    pub(super) fn list(&mut self, level: usize, name: &str, values: &[String]) {
        match values.split_first() {
            None => self.field(level, name, "<none>"),
            Some((first, rest)) => {
                self.field(level, name, first);
                // kubectl indents the name only.
                rest.iter().for_each(|value| self.line(0, format!("\t{value}")));
            }
        }
    }

    pub(super) fn labels(&mut self, level: usize, name: &str, labels: &Value) {
        let mut pairs: Vec<String> = map(labels).map(|(key, value)| format!("{key}={}", text(value))).collect();
        pairs.sort();
        self.list(level, name, &pairs);
    }

    pub(super) fn annotations(&mut self, level: usize, annotations: &Value) {
        let mut shown: Vec<(&String, &Value)> =
            map(annotations).filter(|(key, _)| *key != crate::apply::LAST_APPLIED).collect();
        shown.sort_by_key(|(key, _)| *key);
        let mut values = Vec::new();
        for (key, value) in shown {
            let value = text(value);
            let value = value.trim_end_matches('\n');
            if key.len() + value.len() + 2 > MAX_ANNOTATION || value.contains('\n') {
                values.push(format!("{key}:"));
                values.extend(value.lines().map(|line| format!("  {}", shortened(line, MAX_ANNOTATION))));
            } else {
                values.push(format!("{key}: {value}"));
            }
        }
        self.list(level, "Annotations", &values);
    }

    /// Type and status of each condition.
    pub(super) fn conditions(&mut self, conditions: &Value) {
        if items(conditions).next().is_none() {
            return;
        }
        self.line(0, "Conditions:");
        self.line(1, "Type\tStatus");
        for condition in items(conditions) {
            self.line(1, format!("{} \t{} ", text(&condition["type"]), text(&condition["status"])));
        }
    }

    /// Who controls the object.
    pub(super) fn controller(&mut self, object: &Value) {
        let owners = items(&object["metadata"]["ownerReferences"]);
        if let Some(owner) = owners.into_iter().find(|owner| owner["controller"] == true) {
            self.field(0, "Controlled By", format!("{}/{}", text(&owner["kind"]), text(&owner["name"])));
        }
    }
}

/// At most so many characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A list's items; none where there is no list.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A map's entries; none where there is no map.
pub(super) fn map(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A value without quotes; nothing for what is missing.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A text, or another where it is missing or empty.
pub(super) fn text_or(value: &Value, otherwise: &str) -> String {
    match text(value) {
        text if text.is_empty() => otherwise.to_owned(),
        text => text,
    }
}

/// A time as RFC 1123 with the zone's offset has it.
pub(super) fn date(value: &Value) -> String {
    let parsed = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    match parsed {
        Some(time) => time.to_zoned(jiff::tz::TimeZone::system()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        None => "<unset>".to_owned(),
    }
}

/// `true` as Go's title case has it.
pub(super) fn title(value: &Value) -> &'static str {
    if value == true { "True" } else { "False" }
}

/// A map on one line.
pub(super) fn one_line(value: &Value) -> String {
    let mut pairs: Vec<String> = map(value).map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.sort();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// A selector: plain labels, or labels and expressions.
pub(super) fn selector(value: &Value) -> String {
    let plain = |labels: &Value| {
        let mut pairs: Vec<String> = map(labels).map(|(key, value)| format!("{key}={}", text(value))).collect();
        pairs.sort();
        pairs
    };
    let mut parts = plain(if value.get("matchLabels").is_some() || value.get("matchExpressions").is_some() {
        &value["matchLabels"]
    } else {
        value
    });
    for expression in items(&value["matchExpressions"]) {
        let values: Vec<String> = items(&expression["values"]).map(text).collect();
        let key = text(&expression["key"]);
        parts.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("Exists") => key,
            _ => format!("!{key}"),
        });
    }
    if parts.is_empty() { "<none>".to_owned() } else { parts.join(",") }
}
