//! Compaction: removes superseded states in small steps between commits, then gives free pages back.
//! It decides by age and by what there is to gain, so an idle store writes nothing.

use std::collections::VecDeque;
use std::time::Duration;

use super::Options;
use super::log::Log;
use super::rows::{self, Progress};
use crate::{Revision, StoreError};

/// Rows looked at in one step; at most twice as many are removed. A step delays a commit by a few milliseconds.
const STEP_ROWS: usize = 500;
/// Pages given back in one step.
const STEP_PAGES: usize = 256;
/// Free pages that are kept for the next writes: 1 MiB.
const SPARE_PAGES: usize = 256;
/// How fine the age of history is told.
const MARKS: u32 = 10;

/// Where compaction stands, and when history grows old.
#[derive(Default)]
pub(super) struct Sweeper {
    target: Option<Revision>,
    vacuuming: bool,
    /// Oldest first.
    marks: VecDeque<Mark>,
    /// Superseded states on disk that no compaction has looked at.
    superseded: usize,
}

/// How old history is.
struct Mark {
    when: Duration,
    revision: Revision,
    /// Superseded states then.
    superseded: usize,
}

impl Sweeper {
    pub(super) fn is_running(&self) -> bool {
        self.target.is_some() || self.vacuuming
    }

    pub(super) fn stop(&mut self) {
        *self = Self::default();
    }

    /// The disk has got states that supersede others.
    pub(super) fn add_superseded(&mut self, states: usize) {
        self.superseded += states;
    }

    /// A commit took place: notes how far history was then.
    pub(super) fn mark(&mut self, now: Duration, revision: Revision, options: &Options) {
        let Some(keep) = options.keep_history else { return };
        if self.marks.back().is_none_or(|last| now >= last.when + keep / MARKS) {
            self.marks.push_back(Mark { when: now, revision, superseded: self.superseded });
        }
        // A mark says nothing once its successor is old enough too. This bounds them to `MARKS` and a few.
        while self.marks.get(1).is_some_and(|next| next.when + keep <= now) {
            self.marks.pop_front();
        }
    }

    /// When the oldest history is to be forgotten, if that would gain something.
    pub(super) fn due(&self, options: &Options) -> Option<Duration> {
        let keep = options.keep_history?;
        if self.superseded < options.min_superseded {
            return None;
        }
        self.marks.front().map(|mark| mark.when + keep)
    }

    /// The newest revision that is old enough.
    fn aged(&mut self, now: Duration, options: &Options) -> Option<Revision> {
        let keep = options.keep_history?;
        if now < self.due(options)? {
            return None;
        }
        let mut aged = None;
        while self.marks.front().is_some_and(|mark| mark.when + keep <= now) {
            aged = self.marks.pop_front();
        }
        let aged = aged?;
        self.superseded -= aged.superseded;
        for mark in &mut self.marks {
            mark.superseded -= aged.superseded;
        }
        Some(aged.revision)
    }
}

impl Log {
    /// Begins to forget what was before `up_to`. From now on nobody may ask for it.
    pub(super) fn begin_compaction(&mut self, up_to: Revision) -> Result<(), StoreError> {
        let current = self.mirror.revision();
        if up_to > current {
            return Err(StoreError::FutureRevision { asked: up_to, current });
        }
        if up_to <= self.progress.compacted {
            return Ok(());
        }
        // Volatile states written later would lie behind the sweep and keep what they supersede.
        self.flush()?;
        let progress = Progress { compacted: up_to, ..self.progress };
        self.transact(|log| rows::write_progress(&log.connection, progress))?;
        self.progress = progress;
        self.mirror.set_compacted(up_to);
        self.sweeper.target = Some(up_to);
        Ok(())
    }

    /// After a start: goes on where the last run was stopped.
    pub(super) fn resume_compaction(&mut self) {
        if self.progress.swept < self.progress.compacted {
            self.sweeper.target = Some(self.progress.compacted);
        }
    }

    /// One step of compaction, or the decision to begin one.
    pub(super) fn sweep_step(&mut self, now: Duration) -> Result<(), StoreError> {
        let result = match self.sweeper.target {
            Some(target) => self.sweep_rows(target),
            None if self.sweeper.vacuuming => self.give_back(),
            None => {
                let options = self.options.clone();
                match self.sweeper.aged(now, &options) {
                    Some(up_to) => self.begin_compaction(up_to).map(|()| self.mirror.trim_history(up_to)),
                    None => Ok(()),
                }
            }
        };
        if result.is_err() {
            self.sweeper.target = None;
            self.sweeper.vacuuming = false;
        }
        result
    }

    fn sweep_rows(&mut self, target: Revision) -> Result<(), StoreError> {
        let from = self.progress.swept;
        let end = rows::sweep_end(&self.connection, from, target, STEP_ROWS).map_err(|error| self.error(&error))?;
        let to = end.unwrap_or(target);
        let progress = Progress { swept: to, ..self.progress };
        let mut removed = 0;
        self.transact(|log| {
            removed = rows::sweep(&log.connection, from, to)?;
            rows::write_progress(&log.connection, progress)
        })?;
        self.stats.rows_compacted(removed);
        self.note_written(removed);
        self.progress = progress;
        if to >= target {
            self.sweeper.target = None;
            self.sweeper.vacuuming = true;
        }
        Ok(())
    }

    fn give_back(&mut self) -> Result<(), StoreError> {
        let free = rows::free_pages(&self.connection).map_err(|error| self.error(&error))?;
        if free <= SPARE_PAGES {
            self.sweeper.vacuuming = false;
            self.checkpoint("TRUNCATE");
            // What the sweep read is not what the next commits need.
            return self.connection.release_memory().map_err(|error| self.error(&error));
        }
        let pages = STEP_PAGES.min(free - SPARE_PAGES);
        self.transact(|log| rows::vacuum(&log.connection, pages))?;
        self.note_written(pages);
        Ok(())
    }
}
