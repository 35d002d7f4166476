//! `-o`: in which form objects are shown.

use std::{fs, str::FromStr};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{
    discovery::ApiKind,
    print::{columns::Columns, jsonpath::JsonPath, table, yaml},
};

/// A form.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    Wide,
    Name,
    Json,
    Yaml,
    JsonPath(JsonPath),
    /// As a JSON list of what is found.
    JsonPathAsJson(JsonPath),
    Columns(Columns),
}

/// A form that is none, in kubectl's words: they are said as they are.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub(crate) struct BadForm(anyhow::Error);

impl FromStr for Output {
    type Err = BadForm;

    fn from_str(text: &str) -> Result<Self, BadForm> {
        Self::parse(text).map_err(BadForm)
    }
}

impl Output {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (form, value) = text.split_once('=').map_or((text, None), |(form, value)| (form, Some(value)));
        let value =
            || value.filter(|value| !value.is_empty()).with_context(|| format!("{form} wants a value: {form}=…"));
        Ok(match form {
            "wide" => Self::Wide,
            "name" => Self::Name,
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "jsonpath" => Self::JsonPath(template(value()?)?),
            "jsonpath-as-json" => Self::JsonPathAsJson(template(value()?)?),
            "jsonpath-file" => Self::JsonPath(template(&file(value()?)?)?),
            "custom-columns" => Self::Columns(Columns::parse(value()?)?),
            "custom-columns-file" => Self::Columns(Columns::parse_file(&file(value()?)?)?),
            _ => bail!(
                "unable to match a printer suitable for the output format {text:?}, allowed formats are: \
                 custom-columns,custom-columns-file,json,jsonpath,jsonpath-as-json,jsonpath-file,name,wide,yaml"
            ),
        })
    }
}

fn template(text: &str) -> anyhow::Result<JsonPath> {
    JsonPath::parse(text).map_err(|error| anyhow::anyhow!("error parsing jsonpath {text}, {error}"))
}

fn file(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// Whether managed fields are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ManagedFields {
    Shown,
    Hidden,
}

/// An object with its kind, for the forms that need it.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub kind: ApiKind,
    pub object: Value,
}

impl Shown {
    pub(crate) fn new(kind: &ApiKind, mut object: Value, managed: ManagedFields) -> Self {
        if let Some(map) = object.as_object_mut() {
            // An item of a list does not say what it is.
            map.entry("apiVersion").or_insert_with(|| kind.api_version().into());
            map.entry("kind").or_insert_with(|| kind.kind.clone().into());
        }
        if managed == ManagedFields::Hidden
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("managedFields");
        }
        Self { kind: kind.clone(), object }
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Whether one object was asked for, or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    One,
    List,
}

/// The text for objects. Tables of the server's are not made here.
pub(crate) fn render(output: &Output, objects: &[Shown], count: Count, headers: Headers) -> anyhow::Result<String> {
    let whole = || match (count, objects) {
        (Count::One, [one]) => one.object.clone(),
        _ => {
            let items: Vec<&Value> = objects.iter().map(|shown| &shown.object).collect();
            json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
        }
    };
    Ok(match output {
        Output::Json => pretty(&whole())? + "\n",
        Output::Yaml => yaml::write(&whole()),
        Output::JsonPath(path) => path.render(&whole())?,
        Output::JsonPathAsJson(path) => pretty(&Value::Array(path.find(&whole())?))? + "\n",
        Output::Name | Output::Wide => objects.iter().map(|shown| shown.kind.named(shown.name()) + "\n").collect(),
        Output::Columns(columns) => {
            let mut rows = if headers == Headers::Shown { vec![columns.header()] } else { Vec::new() };
            for shown in objects {
                rows.push(columns.row(&shown.object)?);
            }
            table::Table::new(table::OBJECTS).render(&rows)
        }
    })
}

/// Whether a table has a line of headings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Headers {
    Shown,
    Hidden,
}

/// JSON with kubectl's four spaces, keys in order.
fn pretty(value: &Value) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    serde::Serialize::serialize(&sorted(value), &mut serializer)?;
    Ok(String::from_utf8(bytes)?)
}

/// The same with the keys of each map in order, however the map keeps them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            pairs.sort_by(|left, right| left.0.cmp(&right.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Count, Headers, ManagedFields, Output, Shown, render};
    use crate::discovery::Discovery;

    fn pods(names: &[&str]) -> Vec<Shown> {
        let kind = Discovery::sample().find("pods").expect("it is known").remove(0);
        let pod = |name: &&str| {
            Shown::new(&kind, json!({"metadata": {"name": name, "managedFields": []}}), ManagedFields::Hidden)
        };
        names.iter().map(pod).collect()
    }

    fn text(form: &str, names: &[&str], count: Count) -> String {
        let output: Output = form.parse().expect("it is a form");
        render(&output, &pods(names), count, Headers::Shown).expect("it fits")
    }

    #[test]
    fn each_form_is_kubectls() {
        assert_eq!(text("name", &["a", "b"], Count::List), "pod/a\npod/b\n");
        assert_eq!(text("yaml", &["a"], Count::One), "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n");
        assert!(
            text("yaml", &["a"], Count::List).starts_with("apiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n")
        );
        assert!(text("json", &[], Count::List).starts_with("{\n    \"apiVersion\": \"v1\",\n    \"items\": [],\n"));
        assert_eq!(text("jsonpath={.items[*].metadata.name}", &["a", "b"], Count::List), "a b");
        assert_eq!(text("jsonpath-as-json={.metadata.name}", &["a"], Count::One), "[\n    \"a\"\n]\n");
        assert_eq!(text("custom-columns=N:.metadata.name,K:.kind", &["a"], Count::One), "N     K\na     Pod\n");
    }

    #[test]
    fn unknown_forms_are_refused() {
        for form in ["xml", "jsonpath", "jsonpath={", "custom-columns=", "custom-columns=a"] {
            assert!(form.parse::<Output>().is_err(), "{form}");
        }
    }
}
