//! `-o custom-columns=NAME:PATH,…`: one column per path.

use serde_json::Value;

use super::jsonpath::JsonPath;

/// A heading and where its values are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Columns(Vec<(String, JsonPath)>);

impl Columns {
    /// From `NAME:PATH,NAME:PATH`.
    pub(crate) fn parse(spec: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(!spec.is_empty(), "custom-columns format specified but no custom columns given");
        let column = |part: &str| {
            let Some((name, path)) = part.split_once(':') else {
                anyhow::bail!("unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>");
            };
            Ok((name.to_owned(), JsonPath::relaxed(path)?))
        };
        split(spec).into_iter().map(column).collect::<anyhow::Result<_>>().map(Self)
    }

    /// From a file of two lines: headings, and paths below them.
    pub(crate) fn parse_file(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let (Some(names), Some(paths)) = (lines.next(), lines.next()) else {
            anyhow::bail!("expected a line of headers and a line of paths");
        };
        let (names, paths): (Vec<_>, Vec<_>) = (names.split_whitespace().collect(), paths.split_whitespace().collect());
        anyhow::ensure!(
            names.len() == paths.len(),
            "number of headers ({}) and field specifications ({}) don't match",
            names.len(),
            paths.len()
        );
        let columns = names.into_iter().zip(paths).map(|(name, path)| Ok((name.to_owned(), JsonPath::relaxed(path)?)));
        columns.collect::<anyhow::Result<_>>().map(Self)
    }

    pub(crate) fn header(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// One row for one object; what is missing shows as `<none>`.
    pub(crate) fn row(&self, object: &Value) -> anyhow::Result<Vec<String>> {
        let cell = |(_, path): &(String, JsonPath)| {
            let texts: Vec<String> = path.find(object)?.iter().map(text).collect();
            Ok(if texts.is_empty() { "<none>".to_owned() } else { texts.join(",") })
        };
        self.0.iter().map(cell).collect()
    }
}

/// Splits at commas outside brackets and quotes.
fn split(spec: &str) -> Vec<&str> {
    let (mut depth, mut quote, mut start) = (0_usize, None, 0);
    let mut parts = Vec::new();
    for (at, c) in spec.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(&spec[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&spec[start..]);
    parts
}

/// Go's `%v` of a value: maps and lists in its own notation.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            pairs.sort();
            format!("map[{}]", pairs.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Columns;

    #[test]
    fn each_path_is_a_column() {
        let columns = Columns::parse("NAME:.metadata.name,IMAGES:.spec.containers[*].image,L:metadata.labels,X:.x")
            .expect("it is valid");
        let pod = json!({"metadata": {"name": "p", "labels": {"b": "2", "a": "1"}}, "spec": {"containers": [{"image": "i"}, {"image": "j"}]}});
        assert_eq!(columns.header(), ["NAME", "IMAGES", "L", "X"]);
        assert_eq!(columns.row(&pod).expect("it fits"), ["p", "i,j", "map[a:1 b:2]", "<none>"]);
    }

    #[test]
    fn commas_in_brackets_separate_nothing() {
        let columns = Columns::parse("A:.items[0,1].n,B:.b").expect("it is valid");
        assert_eq!(columns.row(&json!({"items": [{"n": 1}, {"n": 2}], "b": null})).expect("it fits"), ["1,2", "<nil>"]);
        assert!(Columns::parse("A").is_err());
        assert!(Columns::parse("").is_err());
    }

    #[test]
    fn a_file_has_headings_over_paths() {
        let columns = Columns::parse_file("NAME  KIND\n.metadata.name  .kind\n").expect("it is valid");
        assert_eq!(columns.row(&json!({"kind": "Pod", "metadata": {"name": "p"}})).expect("it fits"), ["p", "Pod"]);
        assert!(Columns::parse_file("A B\n.a\n").is_err());
    }
}
