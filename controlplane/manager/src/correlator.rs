//! Joins Events as client-go's recorder does: equal ones are counted, similar ones are combined, and an object that talks
//! too much is cut short (k8s.io/client-go/tools/record/events_cache.go). A state machine over its caller's clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use coracle_controllers::{Note, NoteType};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

/// Entries of each memory; the oldest is forgotten.
const MOST_KNOWN: usize = 4096;
/// Different messages of one reason within the interval before they are combined.
const MOST_SIMILAR: usize = 10;
/// How long similar Events count as one burst, in seconds.
const SIMILAR_SECONDS: i64 = 600;
/// Events of one source about one object at once, and how long it takes to earn another.
const BURST: f64 = 25.0;
const SECONDS_PER_EVENT: f64 = 300.0;

/// A write that records an Event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum EventWrite {
    /// A new Event.
    Create(Box<Event>),
    /// One more of an Event that is there; the second is to be created if it is not there any more.
    Count(Value, Box<Event>),
}

type ObjectKey = (&'static str, String, String, String, String);
type GroupKey = (ObjectKey, NoteType, String);
type ExactKey = (GroupKey, String);

struct Known {
    event: Event,
}

struct Group {
    messages: HashSet<String>,
    last: Timestamp,
}

struct Bucket {
    tokens: f64,
    last: Timestamp,
}

/// A map that forgets its oldest keys.
struct Memory<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Memory<K, V> {
    fn new() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }

    fn entry(&mut self, key: &K, fresh: impl FnOnce() -> V) -> &mut V {
        if !self.map.contains_key(key) {
            if self.order.len() == MOST_KNOWN
                && let Some(oldest) = self.order.pop_front()
            {
                self.map.remove(&oldest);
            }
            self.order.push_back(key.clone());
        }
        self.map.entry(key.clone()).or_insert_with(fresh)
    }
}

/// What is remembered of Events.
pub(crate) struct Correlator {
    known: Memory<ExactKey, Option<Known>>,
    groups: Memory<GroupKey, Group>,
    buckets: Memory<ObjectKey, Bucket>,
}

impl Correlator {
    pub(crate) fn new() -> Self {
        Self { known: Memory::new(), groups: Memory::new(), buckets: Memory::new() }
    }

    /// The write for an Event; `None` if its source said too much about the object of late.
    pub(crate) fn observe(&mut self, component: &'static str, note: Note, now: Timestamp) -> Option<EventWrite> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let regarding = &note.regarding;
        let object: ObjectKey =
            (component, text(&regarding.kind), text(&regarding.namespace), text(&regarding.name), text(&regarding.uid));
        let group: GroupKey = (object.clone(), note.type_, note.reason.clone());
        let message = self.combine(&group, note.message, now);
        let exact: ExactKey = (group, message.clone());
        if !self.allow(&object, now) {
            return None;
        }
        let known = self.known.entry(&exact, || None);
        Some(match known {
            Some(known) => {
                let count = known.event.count.unwrap_or(1) + 1;
                known.event.count = Some(count);
                known.event.last_timestamp = Some(Time(now));
                let patch = json!({ "count": count, "lastTimestamp": Time(now), "message": message });
                EventWrite::Count(patch, Box::new(known.event.clone()))
            }
            None => {
                let event = new_event(
                    component,
                    note.regarding,
                    Words { type_: note.type_, reason: note.reason, message },
                    now,
                );
                *known = Some(Known { event: event.clone() });
                EventWrite::Create(Box::new(event))
            }
        })
    }

    /// The message itself, or the one that stands for many of its kind.
    fn combine(&mut self, group: &GroupKey, message: String, now: Timestamp) -> String {
        let known = self.groups.entry(group, || Group { messages: HashSet::new(), last: now });
        if now.duration_since(known.last).as_secs() > SIMILAR_SECONDS {
            known.messages.clear();
        }
        known.last = now;
        if known.messages.contains(&message) || known.messages.len() < MOST_SIMILAR {
            known.messages.insert(message.clone());
            message
        } else {
            format!("(combined from similar events): {message}")
        }
    }

    fn allow(&mut self, object: &ObjectKey, now: Timestamp) -> bool {
        let bucket = self.buckets.entry(object, || Bucket { tokens: BURST, last: now });
        let elapsed = now.duration_since(bucket.last).as_secs_f64().max(0.0);
        bucket.tokens = (bucket.tokens + elapsed / SECONDS_PER_EVENT).min(BURST);
        bucket.last = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

struct Words {
    type_: NoteType,
    reason: String,
    message: String,
}

fn new_event(component: &str, regarding: ObjectReference, words: Words, now: Timestamp) -> Event {
    let namespace =
        regarding.namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".into());
    let name = format!("{}.{:x}", regarding.name.clone().unwrap_or_default(), now.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        involved_object: regarding,
        type_: Some(match words.type_ {
            NoteType::Normal => "Normal".into(),
            NoteType::Warning => "Warning".into(),
        }),
        reason: Some(words.reason),
        message: Some(words.message),
        count: Some(1),
        first_timestamp: Some(Time(now)),
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
        for index in 0..MOST_SIMILAR {
            assert!(matches!(
                correlator.observe("c", note("a", &index.to_string()), at(1)),
                Some(EventWrite::Create(_))
            ));
        }
        let Some(EventWrite::Create(combined)) = correlator.observe("c", note("a", "more"), at(2)) else {
            panic!("combined")
        };
        assert_eq!(combined.message.as_deref(), Some("(combined from similar events): more"));
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
        assert_eq!(correlator.known.map.len(), MOST_KNOWN);
        assert_eq!(correlator.buckets.map.len(), MOST_KNOWN);
    }
}
