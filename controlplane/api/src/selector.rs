//! Label and field selectors: parsed from a query's text or a `LabelSelector`, then matched.
//!
//! Grammar and wording follow `k8s.io/apimachinery/pkg/labels` and `pkg/fields`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::validation::{label_value, qualified_name};

/// One demand on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// The label has one of the values.
    In(String, BTreeSet<String>),
    /// The label is absent or has none of the values.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
    /// The label's value is a whole number greater than this.
    GreaterThan(String, i64),
    /// The label's value is a whole number less than this.
    LessThan(String, i64),
}

/// A conjunction of requirements. The empty one matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// A text or object that is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Requirement {
    /// Whether `labels` meet the demand.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let number = |key: &String| labels.get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
            Self::GreaterThan(key, bound) => number(key).is_some_and(|n| n > *bound),
            Self::LessThan(key, bound) => number(key).is_some_and(|n| n < *bound),
        }
    }
}

impl Selector {
    /// Matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing, as a missing `LabelSelector` does.
    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// The requirements given.
    #[must_use]
    pub fn from_requirements(requirements: Vec<Requirement>) -> Self {
        Self { requirements, nothing: false }
    }

    /// Each label has exactly this value.
    #[must_use]
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        let requirements = map.iter().map(|(k, v)| Requirement::In(k.clone(), BTreeSet::from([v.clone()]))).collect();
        Self { requirements, nothing: false }
    }

    /// `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1,m<2`.
    ///
    /// # Errors
    /// The text is no selector; the message is for the client.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        parse::Parser::new(text).selector().map_err(SelectorError)
    }

    /// The selector of an API object; an empty one matches everything.
    ///
    /// # Errors
    /// An operator is not known or its values are missing or too many.
    pub fn from_label_selector(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut out = Self::from_map(selector.match_labels.as_ref().unwrap_or(&BTreeMap::new()));
        for e in selector.match_expressions.iter().flatten() {
            let values: BTreeSet<String> = e.values.iter().flatten().cloned().collect();
            let key = e.key.clone();
            let requirement = match (e.operator.as_str(), values.is_empty()) {
                ("In", false) => Requirement::In(key, values),
                ("NotIn", false) => Requirement::NotIn(key, values),
                ("Exists", true) => Requirement::Exists(key),
                ("DoesNotExist", true) => Requirement::DoesNotExist(key),
                ("In" | "NotIn", true) => {
                    return Err(SelectorError("for 'in', 'notin' operators, values set can't be empty".to_owned()));
                }
                ("Exists" | "DoesNotExist", false) => {
                    return Err(SelectorError("values set must be empty for exists and does not exist".to_owned()));
                }
                (other, _) => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            out.requirements.push(requirement);
        }
        Ok(out)
    }

    /// Whether `labels` meet every requirement.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Whether absent labels match.
    #[must_use]
    pub fn matches_opt(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        match labels {
            Some(labels) => self.matches(labels),
            None => self.matches(&BTreeMap::new()),
        }
    }

    /// Whether there is no requirement, so that everything matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// The requirements.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match self {
            Self::In(k, v) if v.len() == 1 => write!(f, "{k}={}", set(v)),
            Self::NotIn(k, v) if v.len() == 1 => write!(f, "{k}!={}", set(v)),
            Self::In(k, v) => write!(f, "{k} in ({})", set(v)),
            Self::NotIn(k, v) => write!(f, "{k} notin ({})", set(v)),
            Self::Exists(k) => f.write_str(k),
            Self::DoesNotExist(k) => write!(f, "!{k}"),
            Self::GreaterThan(k, n) => write!(f, "{k}>{n}"),
            Self::LessThan(k, n) => write!(f, "{k}<{n}"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.requirements.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

mod parse {
    use super::{BTreeSet, Requirement, Selector, label_value, qualified_name};

    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Token<'a> {
        Word(&'a str),
        Comma,
        Open,
        Close,
        Equals,
        NotEquals,
        Not,
        Greater,
        Less,
        End,
    }

    pub(super) struct Parser<'a> {
        rest: &'a str,
        text: &'a str,
    }

    impl<'a> Parser<'a> {
        pub(super) fn new(text: &'a str) -> Self {
            Self { rest: text, text }
        }

        fn next(&mut self) -> Token<'a> {
            self.rest = self.rest.trim_start();
            let two = self.rest.get(..2).unwrap_or_default();
            let (token, len) = match (self.rest.as_bytes().first(), two) {
                (None, _) => (Token::End, 0),
                (_, "==") => (Token::Equals, 2),
                (_, "!=") => (Token::NotEquals, 2),
                (Some(b','), _) => (Token::Comma, 1),
                (Some(b'('), _) => (Token::Open, 1),
                (Some(b')'), _) => (Token::Close, 1),
                (Some(b'='), _) => (Token::Equals, 1),
                (Some(b'!'), _) => (Token::Not, 1),
                (Some(b'>'), _) => (Token::Greater, 1),
                (Some(b'<'), _) => (Token::Less, 1),
                _ => {
                    let end =
                        self.rest.find(|c: char| c.is_whitespace() || ",()=!<>".contains(c)).unwrap_or(self.rest.len());
                    (Token::Word(&self.rest[..end]), end)
                }
            };
            self.rest = &self.rest[len..];
            token
        }

        fn peek(&self) -> Token<'a> {
            Parser { rest: self.rest, text: self.text }.next()
        }

        pub(super) fn selector(mut self) -> Result<Selector, String> {
            let mut requirements = Vec::new();
            if self.peek() == Token::End {
                return Ok(Selector::default());
            }
            loop {
                requirements.push(self.requirement()?);
                match self.next() {
                    Token::End => break,
                    Token::Comma if !matches!(self.peek(), Token::Word(_) | Token::Not) => {
                        return Err(self.unexpected("identifier after ','"));
                    }
                    Token::Comma => {}
                    _ => return Err(self.unexpected("',' or 'end of string'")),
                }
            }
            Ok(Selector { requirements, nothing: false })
        }

        fn unexpected(&self, expected: &str) -> String {
            format!("unable to parse requirement: found '{}', expected: {expected}", self.rest.trim())
        }

        fn key(&mut self) -> Result<String, String> {
            let Token::Word(key) = self.next() else {
                return Err(self.unexpected("!, identifier, or 'end of string'"));
            };
            match qualified_name(key).first() {
                Some(why) => Err(format!("unable to parse requirement: <nil>: Invalid value: {key:?}: {why}")),
                None => Ok(key.to_owned()),
            }
        }

        fn requirement(&mut self) -> Result<Requirement, String> {
            if self.peek() == Token::Not {
                self.next();
                return Ok(Requirement::DoesNotExist(self.key()?));
            }
            let key = self.key()?;
            if matches!(self.peek(), Token::End | Token::Comma) {
                return Ok(Requirement::Exists(key));
            }
            match self.next() {
                Token::Equals => Ok(Requirement::In(key.clone(), BTreeSet::from([self.value(&key)?]))),
                Token::NotEquals => Ok(Requirement::NotIn(key.clone(), BTreeSet::from([self.value(&key)?]))),
                Token::Greater => Ok(Requirement::GreaterThan(key, self.number()?)),
                Token::Less => Ok(Requirement::LessThan(key, self.number()?)),
                Token::Word("in") => Ok(Requirement::In(key.clone(), self.values(&key)?)),
                Token::Word("notin") => Ok(Requirement::NotIn(key.clone(), self.values(&key)?)),
                _ => Err(self.unexpected("in, notin, =, ==, !=, gt, lt")),
            }
        }

        /// One value, which may be absent: `a=` asks for the empty value.
        fn value(&mut self, key: &str) -> Result<String, String> {
            let value = match self.peek() {
                Token::Word(word) => {
                    self.next();
                    word
                }
                Token::End | Token::Comma | Token::Close => "",
                _ => return Err(self.unexpected("identifier")),
            };
            match label_value(value).first() {
                Some(why) => {
                    Err(format!("unable to parse requirement: values[0][{key}]: Invalid value: {value:?}: {why}"))
                }
                None => Ok(value.to_owned()),
            }
        }

        fn number(&mut self) -> Result<i64, String> {
            match self.next() {
                Token::Word(word) => {
                    word.parse().map_err(|_| "for 'Gt', 'Lt' operators, the value must be an integer".to_owned())
                }
                _ => Err(self.unexpected("identifier")),
            }
        }

        fn values(&mut self, key: &str) -> Result<BTreeSet<String>, String> {
            if self.next() != Token::Open {
                return Err(self.unexpected("'('"));
            }
            let mut values = BTreeSet::new();
            loop {
                values.insert(self.value(key)?);
                match self.next() {
                    Token::Comma => {}
                    Token::Close => return Ok(values),
                    _ => return Err(self.unexpected("',', or ')'")),
                }
            }
        }
    }
}

/// One demand on a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, such as `spec.nodeName`.
    pub field: String,
    /// The value it has, or must not have.
    pub value: String,
    /// The field must differ from the value.
    pub negated: bool,
}

/// A conjunction of demands on fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// `spec.nodeName=a,status.phase!=Failed`; `\` escapes a comma, an equals sign and itself.
    ///
    /// # Errors
    /// The text is no selector.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut out = Vec::new();
        for term in split_unescaped(text) {
            if term.is_empty() {
                continue;
            }
            let (field, value, negated) = split_term(term)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")))?;
            out.push(FieldRequirement { field: field.to_owned(), value: unescape(value), negated });
        }
        Ok(Self(out))
    }

    /// The demands.
    #[must_use]
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every demand is met by the fields `get` gives; an unset field is empty.
    pub fn matches<'a, S: AsRef<str> + 'a>(&self, get: impl Fn(&str) -> Option<S>) -> bool {
        self.0.iter().all(|r| {
            let actual = get(&r.field);
            (actual.as_ref().map_or("", AsRef::as_ref) == r.value) != r.negated
        })
    }

    /// The value a field is demanded to have, if one is: an index can answer it.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                out.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    out.push(&text[start..]);
    out
}

fn split_term(term: &str) -> Option<(&str, &str, bool)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&term[..i], value, negated));
            }
        }
    }
    None
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn label_selectors_select() {
        let l = labels(&[("app", "web"), ("tier", "front"), ("n", "5"), ("empty", "")]);
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("app=db", false),
            ("other!=x", true),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("none notin (a)", true),
            ("app", true),
            ("!app", false),
            ("! none", true),
            ("app=web,tier=front", true),
            ("app=web , tier=back", false),
            ("n>4", true),
            ("n<5", false),
            ("app>1", false),
            ("empty=", true),
            ("empty", true),
            ("x.io/y", false),
            ("in in (in)", false),
        ];
        for (text, expected) in cases {
            assert_eq!(Selector::parse(text).map(|s| s.matches(&l)), Ok(expected), "{text}");
        }
        for bad in ["a=b=c", "a in b", "a in (b", "=a", ",", "a,", "a b", "-a=b", "a=-", "a>b", "a/b/c=d", "!"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_select() {
        let get = |f: &str| match f {
            "a.b" => Some("x"),
            "c" => Some("p,q"),
            _ => None,
        };
        let cases =
            [("", true), ("a.b=x", true), ("a.b!=x", false), ("a.b==y", false), ("z=", true), ("c=p\\,q", true)];
        for (text, expected) in cases {
            assert_eq!(FieldSelector::parse(text).map(|s| s.matches(get)), Ok(expected), "{text}");
        }
        assert!(FieldSelector::parse("abc").is_err());
    }
}
