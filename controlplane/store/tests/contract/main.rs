//! The store's contract, checked on every implementation. Each case is written against the trait only; a new
//! implementation joins by one more `suite!` line.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod cases;
mod model;

use std::sync::Arc;

use coracle_store::{Options, SqliteStore, Store};

/// A store, and what has to outlive it.
pub(crate) struct Subject {
    pub(crate) store: Arc<dyn Store>,
    _dir: Option<tempfile::TempDir>,
}

/// Little recent history, so that the disk is asked often.
fn forgetful() -> Options {
    Options { history_events: 4, history_bytes: 1 << 20, keep_history: None, ..Options::default() }
}

fn on_disk(options: Options) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    Subject { store: Arc::new(SqliteStore::open(dir.path(), options).unwrap()), _dir: Some(dir) }
}

fn in_memory(options: Options) -> Subject {
    Subject { store: Arc::new(SqliteStore::in_memory(options).unwrap()), _dir: None }
}

macro_rules! suite {
    ($name:ident, $make:expr) => {
        mod $name {
            use super::*;
            suite!(@cases $make; transactions_are_all_or_nothing revisions_count_every_change
                each_op_meets_what_it_must texts_carry_their_revision lists_are_ordered_and_paged
                lists_of_the_past_stay_as_they_were watches_tell_each_change_once a_watch_starts_anywhere_in_history
                a_watch_can_be_narrowed list_and_watch_is_one_step compaction_forgets_only_the_past
                deletions_carry_the_last_state volatile_writes_look_like_any_other limits_are_kept
                wait_for_returns_when_it_is_there the_future_is_refused closing_ends_everything
                collections_do_not_mix a_check_ties_a_transaction_to_what_it_saw concurrent_writers_and_watchers_agree progress_is_told_when_all_is_read);

            #[test]
            fn any_history_matches_the_model() {
                model::check(&|| $make);
            }
        }
    };
    (@cases $make:expr; $($case:ident)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let subject = $make;
            cases::$case(Arc::clone(&subject.store)).await;
        })*
    };
}

suite!(sqlite_file, on_disk(Options::default()));
suite!(sqlite_file_with_little_memory, on_disk(forgetful()));
suite!(sqlite_in_memory, in_memory(Options::default()));
suite!(sqlite_in_memory_with_little_memory, in_memory(forgetful()));
