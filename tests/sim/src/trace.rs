//! The story of a run, as a hash over every step and every write, and on request as lines: two runs of one seed must
//! tell the same one, and where they do not, the first line that differs says where chance came in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use coracle_store::Entry;

/// Whether a run keeps the lines of its story.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Only their hash.
    #[default]
    Hash,
    /// The lines too: some megabytes for each run.
    Lines,
}

/// The story so far.
pub(crate) struct Trace {
    hash: DefaultHasher,
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep: Keep) -> Self {
        // Its keys are fixed: another process comes to the same number.
        Self { hash: DefaultHasher::new(), lines: (keep == Keep::Lines).then(Vec::new) }
    }

    /// Something that the world did.
    pub(crate) fn step(&mut self, now: Duration, what: impl Hash + std::fmt::Debug) {
        (now, &what).hash(&mut self.hash);
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now:?} {what:?}"));
        }
    }

    /// A write.
    pub(crate) fn write(&mut self, now: Duration, entry: &Entry, deletion: bool) {
        (now, entry.revision.0, &*entry.key.collection.to_string(), &*entry.key.name, deletion).hash(&mut self.hash);
        entry.bytes.hash(&mut self.hash);
        if let Some(lines) = &mut self.lines {
            let verb = if deletion { "deletes" } else { "writes" };
            let text = String::from_utf8_lossy(&entry.bytes);
            lines.push(format!("{now:?} {} {verb} {} {text}", entry.revision, entry.key));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    /// The lines that were kept.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        self.lines.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
