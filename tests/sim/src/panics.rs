//! Notes panics of the tasks of this thread's world: a runtime hides them, and a loop that is gone would only show
//! late.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Begins to note; what an earlier world of this thread left is forgotten.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            FIRST.with_borrow_mut(|first| {
                let _ = first.get_or_insert_with(|| format!("a task panicked: {info}"));
            });
            usual(info);
        }));
    });
    FIRST.with_borrow_mut(|first| *first = None);
}

/// The first panic since then.
pub(crate) fn take() -> Option<String> {
    FIRST.with_borrow_mut(Option::take)
}
