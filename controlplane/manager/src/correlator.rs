//! Joins Events as client-go's recorder does: equal ones are counted, similar ones are combined, and an object that talks
//! too much is cut short (k8s.io/client-go/tools/record/events_cache.go). A state machine over its caller's clock.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use coracle_controllers::{Note, NoteType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

/// Events that are remembered, and sources of them; the source that began first is forgotten first.
const MOST_KNOWN: usize = 4096;
/// So many different messages of one reason within the interval are combined, the last of them already.
const MOST_SIMILAR: usize = 10;
/// Messages of one reason that are still counted, combined ones among them.
const MOST_COUNTED: usize = 2 * MOST_SIMILAR;
/// Reasons of one source that are remembered; there are not so many of any.
const MOST_REASONS: usize = 32;
/// How long similar Events count as one burst, in seconds.
const SIMILAR_SECONDS: i64 = 600;
/// Events of one source about one object at once, and how long it takes to earn another.
const BURST: f64 = 25.0;
const SECONDS_PER_EVENT: f64 = 300.0;

/// How the message of the Event begins that stands for all combined ones.
const COMBINED: &str = "(combined from similar events): ";

/// A write that records an Event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EventWrite {
    /// A new Event.
    Create(Box<Event>),
    /// One more of an Event that is there; the second is to be created if it is not there any more.
    Count(Value, Box<Event>),
}

/// What one part of the system said of one object.
struct Source {
    /// Events it may still tell.
    tokens: f64,
    earned: Timestamp,
    groups: VecDeque<Group>,
}

/// What it said for one reason.
struct Group {
    type_: NoteType,
    reason: String,
    messages: Vec<String>,
    last: Timestamp,
    known: VecDeque<Known>,
}

/// An Event that was told, without what its next note says again: a thousand pods that start have thousands of them.
struct Known {
    name: Box<str>,
    message: Box<str>,
    first: Timestamp,
    count: i32,
}

/// What is remembered of Events.
pub(crate) struct Correlator {
    /// By the part and the object it speaks of.
    sources: HashMap<Arc<str>, Source>,
    order: VecDeque<Arc<str>>,
    known: usize,
}

impl Correlator {
    pub(crate) fn new() -> Self {
        Self { sources: HashMap::new(), order: VecDeque::new(), known: 0 }
    }

    /// The write for an Event; `None` if its source said too much about the object of late.
    pub(crate) fn observe(&mut self, component: &'static str, note: Note, now: Timestamp) -> Option<EventWrite> {
        self.forget();
        let source = self.source(component, &note.regarding, now);
        let before = source.known();
        let write = source.observe(component, note, now);
        let after = source.known();
        self.known = self.known + after - before;
        write
    }

    /// Makes room for one more.
    fn forget(&mut self) {
        while self.order.len() >= MOST_KNOWN || self.known >= MOST_KNOWN {
            let Some(source) = self.order.pop_front().and_then(|oldest| self.sources.remove(&oldest)) else { return };
            self.known -= source.known();
        }
    }

    fn source(&mut self, component: &str, regarding: &ObjectReference, now: Timestamp) -> &mut Source {
        let text = |value: &'_ Option<String>| value.clone().unwrap_or_default();
        let (kind, namespace) = (text(&regarding.kind), text(&regarding.namespace));
        // No part of a reference holds a line's end.
        let key = [component, &kind, &namespace, &text(&regarding.name), &text(&regarding.uid)].join("\n");
        let order = &mut self.order;
        self.sources.entry(key.into()).or_insert_with_key(|key| {
            order.push_back(Arc::clone(key));
            Source { tokens: BURST, earned: now, groups: VecDeque::with_capacity(1) }
        })
    }
}

impl Source {
    fn known(&self) -> usize {
        self.groups.iter().map(|group| group.known.len()).sum()
    }

    fn observe(&mut self, component: &'static str, note: Note, now: Timestamp) -> Option<EventWrite> {
        let allowed = self.allow(now);
        let group = self.group(note.type_, &note.reason, now);
        let message = group.combine(note.message, now);
        if !allowed {
            return None;
        }
        let is_combined = message.starts_with(COMBINED);
        // One Event stands for all that are combined, whatever it said last.
        let tells = |told: &str| if is_combined { told.starts_with(COMBINED) } else { told == message };
        if let Some(known) = group.known.iter_mut().find(|known| tells(&known.message)) {
            known.message = message.as_str().into();
            known.count += 1;
            let patch = json!({ "count": known.count, "lastTimestamp": Time(now), "message": message });
            let words = Words { type_: note.type_, reason: note.reason, message };
            return Some(EventWrite::Count(patch, Box::new(event(component, note.regarding, words, known, now))));
        }
        let name = format!("{}.{:x}", note.regarding.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        let known = Known { name: name.into(), message: message.as_str().into(), first: now, count: 1 };
        let words = Words { type_: note.type_, reason: note.reason, message };
        let event = event(component, note.regarding, words, &known, now);
        if group.known.len() == MOST_COUNTED {
            group.known.pop_front();
        }
        group.known.push_back(known);
        Some(EventWrite::Create(Box::new(event)))
    }

    fn group(&mut self, type_: NoteType, reason: &str, now: Timestamp) -> &mut Group {
        let at = self.groups.iter().position(|group| group.type_ == type_ && group.reason == reason);
        let at = at.unwrap_or_else(|| {
            if self.groups.len() == MOST_REASONS {
                self.groups.pop_front();
            }
            let (reason, messages, known) = (reason.to_owned(), Vec::new(), VecDeque::with_capacity(1));
            self.groups.push_back(Group { type_, reason, messages, last: now, known });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    fn allow(&mut self, now: Timestamp) -> bool {
        let elapsed = now.duration_since(self.earned).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + elapsed / SECONDS_PER_EVENT).min(BURST);
        self.earned = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

impl Group {
    /// The message itself, or the one that stands for many of its kind.
    fn combine(&mut self, message: String, now: Timestamp) -> String {
        if now.duration_since(self.last).as_secs() > SIMILAR_SECONDS {
            self.messages.clear();
        }
        self.last = now;
        if self.messages.contains(&message) {
            message
        } else if self.messages.len() + 1 < MOST_SIMILAR {
            self.messages.push(message.clone());
            message
        } else {
            format!("{COMBINED}{message}")
        }
    }
}

struct Words {
    type_: NoteType,
    reason: String,
    message: String,
}

/// The Event as it is to be in the API: `known`, told again now.
fn event(component: &str, regarding: ObjectReference, words: Words, known: &Known, now: Timestamp) -> Event {
    let namespace =
        regarding.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".into());
    Event {
        metadata: ObjectMeta {
            name: Some(known.name.to_string()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: regarding,
        type_: Some(match words.type_ {
            NoteType::Normal => "Normal".into(),
            NoteType::Warning => "Warning".into(),
        }),
        reason: Some(words.reason),
        message: Some(words.message),
        count: Some(known.count),
        first_timestamp: Some(Time(known.first)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource { component: Some(component.to_owned()), host: None }),
        reporting_component: Some(component.to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str, message: &str) -> Note {
        Note {
            regarding: ObjectReference {
                kind: Some("Pod".into()),
                name: Some(name.into()),
                ..ObjectReference::default()
            },
            type_: NoteType::Normal,
            reason: "Tested".into(),
            message: message.into(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn equal_events_are_counted() {
        let mut correlator = Correlator::new();
        let Some(EventWrite::Create(first)) = correlator.observe("c", note("a", "x"), at(1)) else { panic!("new") };
        assert_eq!(first.metadata.namespace.as_deref(), Some("default"));
        let Some(EventWrite::Count(patch, event)) = correlator.observe("c", note("a", "x"), at(5)) else {
            panic!("seen")
        };
        assert_eq!((patch["count"].as_i64(), event.metadata.name), (Some(2), first.metadata.name));
        assert!(matches!(correlator.observe("c", note("b", "x"), at(6)), Some(EventWrite::Create(_))));
    }

    #[test]
    fn similar_events_are_combined() {
        let mut correlator = Correlator::new();
        for index in 0..MOST_SIMILAR - 1 {
            assert!(matches!(
                correlator.observe("c", note("a", &index.to_string()), at(1)),
                Some(EventWrite::Create(_))
            ));
        }
        let Some(EventWrite::Create(combined)) = correlator.observe("c", note("a", "more"), at(2)) else {
            panic!("combined")
        };
        assert_eq!(combined.message.as_deref(), Some("(combined from similar events): more"));
        let Some(EventWrite::Count(patch, again)) = correlator.observe("c", note("a", "still more"), at(3)) else {
            panic!("one Event stands for all of them")
        };
        assert_eq!(again.metadata.name, combined.metadata.name);
        assert_eq!(
            patch,
            json!({"count": 2, "lastTimestamp": Time(at(3)), "message": "(combined from similar events): still more"})
        );
        assert!(matches!(correlator.observe("c", note("a", "0"), at(4)), Some(EventWrite::Count(..))), "a known one");
        let Some(EventWrite::Create(later)) = correlator.observe("c", note("a", "later"), at(2000)) else {
            panic!("later")
        };
        assert_eq!(later.message.as_deref(), Some("later"));
    }

    #[test]
    fn a_chatty_source_is_cut_short() {
        let mut correlator = Correlator::new();
        let heard = (0..40).filter(|_| correlator.observe("c", note("a", "x"), at(1)).is_some()).count();
        assert_eq!(heard, 25);
        assert!(correlator.observe("c", note("b", "x"), at(1)).is_some(), "others may still talk");
        assert!(correlator.observe("c", note("a", "x"), at(302)).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let mut correlator = Correlator::new();
        for index in 0..MOST_KNOWN + 100 {
            correlator.observe("c", note(&index.to_string(), "x"), at(1));
        }
        assert_eq!(
            (correlator.sources.len(), correlator.order.len(), correlator.known),
            (MOST_KNOWN, MOST_KNOWN, MOST_KNOWN)
        );
        for index in 0..10 * MOST_KNOWN {
            let mut note = note(&(index % 500).to_string(), &index.to_string());
            note.reason = format!("Reason{}", index / 5000);
            correlator.observe("c", note, at(i64::try_from(index).unwrap() * 40_000));
        }
        let known: usize =
            correlator.sources.values().flat_map(|source| &source.groups).map(|group| group.known.len()).sum();
        assert_eq!(correlator.known, known);
        assert!(known <= MOST_KNOWN, "{known}");
    }
}
