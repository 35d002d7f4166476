//! Logs over files that grow and rotate.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;

fn line(second: u32, tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.000000001Z stdout {tag} {text}\n")
}

fn source(dir: &Path, goes_on: &Arc<AtomicBool>) -> LogSource {
    let goes_on = goes_on.clone();
    LogSource { dir: dir.to_owned(), attempt: 0, goes_on: Box::new(move || goes_on.load(Ordering::SeqCst)) }
}

async fn text(dir: &Path, options: LogOptions) -> String {
    let (sender, mut receiver) = mpsc::channel(4);
    let reading = read(source(dir, &Arc::new(AtomicBool::new(false))), options, sender);
    let gather = async {
        let mut all = Vec::new();
        while let Some(block) = receiver.recv().await {
            all.extend_from_slice(&block.unwrap());
        }
        String::from_utf8(all).unwrap()
    };
    tokio::join!(reading, gather).1
}

fn fixture() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let old = [line(1, "F", "one"), line(2, "P", "tw")].concat();
    let new = [line(3, "F", "o"), line(4, "F", "three"), "2026 torn".to_owned()].concat();
    fs::write(dir.path().join("0.log.20260101-000002"), old).unwrap();
    fs::write(dir.path().join("0.log"), new).unwrap();
    fs::write(dir.path().join("1.log"), line(9, "F", "other run")).unwrap();
    dir
}

#[tokio::test]
async fn every_option_cuts_as_it_says() {
    let dir = fixture();
    let base = LogOptions::default;
    let check = async |options: LogOptions, expect: &str| assert_eq!(text(dir.path(), options).await, expect);
    check(base(), "one\ntwo\nthree\n").await;
    check(LogOptions { tail_lines: Some(0), ..base() }, "").await;
    check(LogOptions { tail_lines: Some(1), ..base() }, "three\n").await;
    check(LogOptions { tail_lines: Some(2), ..base() }, "two\nthree\n").await;
    check(LogOptions { tail_lines: Some(9), ..base() }, "one\ntwo\nthree\n").await;
    check(LogOptions { limit_bytes: Some(6), ..base() }, "one\ntw").await;
    check(LogOptions { since: Some("2026-01-01T00:00:04Z".parse().unwrap()), ..base() }, "three\n").await;
    check(LogOptions { stream: Some("stderr".into()), ..base() }, "").await;
    let stamped = "2026-01-01T00:00:04.000000001Z three\n";
    check(LogOptions { timestamps: true, tail_lines: Some(1), ..base() }, stamped).await;
}

/// A log that would not fit into memory, all of it but its end a hole.
#[tokio::test]
async fn the_end_of_a_log_is_found_without_reading_the_rest() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("0.log")).unwrap();
    let end = [line(1, "F", "zero"), line(2, "F", "one"), line(3, "F", "two")].concat();
    file.write_all_at(format!("\n{end}").as_bytes(), 1 << 42).unwrap();
    let options = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
    assert_eq!(text(dir.path(), options(1)).await, "two\n");
    assert_eq!(text(dir.path(), options(2)).await, "one\ntwo\n");
}

#[tokio::test]
async fn tails_over_many_blocks_are_what_the_end_of_the_whole_is() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, mut lines) = (String::new(), Vec::new());
    for number in 0..40_usize {
        let parts = number % 3 + 1;
        let text = format!("{number}-").repeat(number * 150 % 7000 + 1);
        for part in 1..=parts {
            log.push_str(&line(1, if part == parts { "F" } else { "P" }, &text));
        }
        lines.push(format!("{}\n", text.repeat(parts)));
    }
    assert!(log.len() > 5 * BLOCK_BYTES);
    let (old, new) = log.split_at(log[..log.len() / 2].rfind("\n2026").unwrap() + 1);
    fs::write(dir.path().join("0.log.20260101-000002"), old).unwrap();
    fs::write(dir.path().join("0.log"), new).unwrap();
    for wanted in 0..=lines.len() {
        let options = LogOptions { tail_lines: Some(wanted), ..LogOptions::default() };
        assert!(text(dir.path(), options).await == lines[lines.len() - wanted..].concat(), "{wanted}");
    }
}

#[tokio::test]
async fn following_loses_and_doubles_nothing_over_rotations() {
    let dir = tempfile::tempdir().unwrap();
    let current = dir.path().join("0.log");
    fs::write(&current, "").unwrap();
    let goes_on = Arc::new(AtomicBool::new(true));
    let (sender, mut receiver) = mpsc::channel(4);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let reading = tokio::spawn(read(source(dir.path(), &goes_on), options, sender));
    let mut expect = String::new();
    let writer = {
        let dir = dir.path().to_owned();
        for number in 0..300 {
            expect.push_str(&format!("line {number}\n"));
        }
        async move {
            for number in 0..300 {
                use std::io::Write;
                let mut file = fs::OpenOptions::new().create(true).append(true).open(dir.join("0.log")).unwrap();
                file.write_all(line(1, "F", &format!("line {number}")).as_bytes()).unwrap();
                if number % 40 == 39 {
                    fs::rename(dir.join("0.log"), dir.join(format!("0.log.20260101-{number:06}"))).unwrap();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            goes_on.store(false, Ordering::SeqCst);
        }
    };
    let gather = async {
        let mut all = Vec::new();
        while let Some(block) = receiver.recv().await {
            all.extend_from_slice(&block.unwrap());
        }
        String::from_utf8(all).unwrap()
    };
    let (_, got) = tokio::join!(writer, gather);
    reading.await.unwrap();
    assert_eq!(got, expect);
}
