//! Fields that stand twice in an object's JSON. Serde keeps one of them silently; `fieldValidation` must name them.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;

/// More are not told: one shows what is wrong.
const MAX_FOUND: usize = 10;

/// The paths of fields that stand twice; none when the text is no JSON, which decoding reports.
pub(crate) fn find(json: &[u8]) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(json);
    let walker = Walker { path: None, found: &found };
    let _ = serde::de::DeserializeSeed::deserialize(walker, &mut reader);
    found.into_inner()
}

#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Index(i) => write!(f, "[{i}]"),
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Copy)]
struct Walker<'a> {
    path: Option<&'a Path<'a>>,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> serde::de::DeserializeSeed<'de> for Walker<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A key: borrowed from the text when it holds no escape.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(v.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Visitor<'de> for Walker<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut i = 0;
        loop {
            let path = Path { parent: self.path, step: Step::Index(i) };
            if seq.next_element_seed(Walker { path: Some(&path), found: self.found })?.is_none() {
                return Ok(());
            }
            i += 1;
        }
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Objects have few fields; maps of labels and data are the exception, and sorted search pays only far above that.
        let mut seen: Vec<std::borrow::Cow<'de, str>> = Vec::new();
        let mut index: Option<std::collections::HashSet<String>> = None;
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            const LINEAR_UP_TO: usize = 32;
            let twice = match &mut index {
                Some(set) => !set.insert(key.to_string()),
                None => seen.contains(&key),
            };
            let path = Path { parent: self.path, step: Step::Field(&key) };
            if twice && self.found.borrow().len() < MAX_FOUND {
                self.found.borrow_mut().push(path.to_string());
            }
            map.next_value_seed(Walker { path: Some(&path), found: self.found })?;
            if index.is_none() {
                seen.push(key);
                if seen.len() > LINEAR_UP_TO {
                    index = Some(seen.iter().map(ToString::to_string).collect());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn duplicates_are_named_by_path() {
        let cases = [
            (r#"{"a":1,"b":{"a":1}}"#, vec![]),
            (r#"{"a":1,"a":2}"#, vec!["a"]),
            (r#"{"a":{"b":[{"c":1},{"d":1,"c":2,"c":3}]}}"#, vec!["a.b[1].c"]),
            ("nonsense", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(find(text.as_bytes()), expected, "{text}");
        }
        let many: String = (0..100).map(|i| format!("\"k{i}\":1,")).collect();
        assert_eq!(find(format!("{{{many}\"k7\":1}}").as_bytes()), ["k7"]);
    }
}
