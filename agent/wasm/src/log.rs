//! A container's log on disk in the CRI format, `TIMESTAMP STREAM TAG CONTENT`: a line is tagged `F`, a piece of a line that is
//! too long or was never ended `P`. It rotates by size, as the kubelet does for other runtimes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use coracle_agent_core::workload::{TERMINATION_MESSAGE_LOG_WINDOW, message_of_log};
use coracle_host::{LogSink, StdStream};
use jiff::{Timestamp, tz::TimeZone};
use parking_lot::Mutex;

/// Longest content of one entry: containerd's `max_container_log_line_size`.
const MAX_LINE_BYTES: usize = 16 * 1024;

/// Bounds of one container's log: the kubelet's `containerLogMaxSize` and `containerLogMaxFiles`.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Size at which a file is rotated.
    pub max_file_bytes: u64,
    /// Most files, the current one included; at least 2.
    pub max_files: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_file_bytes: 10 << 20, max_files: 5 }
    }
}

/// The log of one run of a container.
pub(crate) struct CriLog {
    path: PathBuf,
    limits: LogLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Opened at the first write: most containers say little.
    file: Option<File>,
    file_bytes: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    entries: Vec<u8>,
    /// A failure has been told; it is not told for every line.
    failing: bool,
}

impl CriLog {
    /// Makes the log's directory and an empty file.
    pub(crate) fn create(path: &Path, limits: LogLimits) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = open(path)?;
        let file_bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), limits, state: Mutex::new(State { file_bytes, ..State::default() }) })
    }

    /// Writes what is left of lines that were never ended. Nothing is written after it.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        for stream in [StdStream::Stdout, StdStream::Stderr] {
            let rest = std::mem::take(buffer(&mut state, stream));
            if !rest.is_empty() {
                entry(&mut state.entries, stream, Tag::Partial, &rest);
            }
        }
        self.write_out(&mut state);
        *state = State { file_bytes: state.file_bytes, ..State::default() };
    }

    /// What stands in for a termination message; nothing if the log cannot be read.
    pub(crate) fn last_words(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let start = file.metadata()?.len().saturating_sub(TERMINATION_MESSAGE_LOG_WINDOW);
            file.seek(SeekFrom::Start(start))?;
            let mut bytes = Vec::new();
            file.take(TERMINATION_MESSAGE_LOG_WINDOW).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        message_of_log(&read().unwrap_or_default())
    }

    /// Writes the gathered entries with one system call, rotating first when they would not fit.
    fn write_out(&self, state: &mut State) {
        if state.entries.is_empty() {
            return;
        }
        let result = self.try_write(state);
        if let Err(error) = &result
            && !state.failing
        {
            tracing::warn!("the log {} cannot be written: {error}", self.path.display());
        }
        state.failing = result.is_err();
        state.entries.clear();
    }

    fn try_write(&self, state: &mut State) -> io::Result<()> {
        if state.file_bytes > 0 && state.file_bytes + state.entries.len() as u64 > self.limits.max_file_bytes {
            state.file = None;
            self.rotate()?;
            state.file_bytes = 0;
        }
        let file = match &mut state.file {
            Some(file) => file,
            empty => empty.insert(open(&self.path)?),
        };
        file.write_all(&state.entries)?;
        state.file_bytes += state.entries.len() as u64;
        Ok(())
    }

    /// Moves the file to `NAME.TIMESTAMP`, as the kubelet does, and removes the oldest of such files. Names sort by age,
    /// within one second too.
    fn rotate(&self) -> io::Result<()> {
        let now = Timestamp::now().to_zoned(TimeZone::UTC);
        let stamp = format!("{}.{:09}", now.strftime("%Y%m%d-%H%M%S"), now.subsec_nanosecond());
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let target = self.path.with_file_name(format!("{name}.{stamp}"));
        fs::rename(&self.path, target)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let prefix = format!("{name}.");
        let mut rotated: Vec<PathBuf> = fs::read_dir(directory)?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
            .collect();
        rotated.sort();
        let surplus = rotated.len().saturating_sub(self.limits.max_files.max(2) - 1);
        rotated.into_iter().take(surplus).try_for_each(fs::remove_file)
    }
}

impl LogSink for CriLog {
    fn write(&self, stream: StdStream, mut bytes: &[u8]) {
        let mut state = self.state.lock();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            gather(&mut state, stream, &bytes[..end]);
            let line = std::mem::take(buffer(&mut state, stream));
            entry(&mut state.entries, stream, Tag::Full, &line);
            bytes = &bytes[end + 1..];
        }
        gather(&mut state, stream, bytes);
        self.write_out(&mut state);
    }
}

/// Adds to the stream's unfinished line; what grows too long becomes entries of its own.
fn gather(state: &mut State, stream: StdStream, mut bytes: &[u8]) {
    loop {
        let line = buffer(state, stream);
        let room = MAX_LINE_BYTES - line.len();
        if bytes.len() <= room {
            line.extend_from_slice(bytes);
            return;
        }
        line.extend_from_slice(&bytes[..room]);
        bytes = &bytes[room..];
        let piece = std::mem::take(line);
        entry(&mut state.entries, stream, Tag::Partial, &piece);
    }
}

fn buffer(state: &mut State, stream: StdStream) -> &mut Vec<u8> {
    match stream {
        StdStream::Stdout => &mut state.stdout,
        StdStream::Stderr => &mut state.stderr,
    }
}

#[derive(Clone, Copy)]
enum Tag {
    Full,
    Partial,
}

fn entry(entries: &mut Vec<u8>, stream: StdStream, tag: Tag, content: &[u8]) {
    let stream = match stream {
        StdStream::Stdout => "stdout",
        StdStream::Stderr => "stderr",
    };
    let tag = match tag {
        Tag::Full => "F",
        Tag::Partial => "P",
    };
    // Writing into memory does not fail.
    let _ = write!(entries, "{:.9} {stream} {tag} ", Timestamp::now());
    entries.extend_from_slice(content);
    entries.push(b'\n');
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(limits: LogLimits) -> (CriLog, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let log = CriLog::create(&folder.path().join("app/0.log"), limits).unwrap();
        (log, folder)
    }

    /// The entries without their time stamps, which are checked.
    fn entries(log: &CriLog) -> Vec<String> {
        let text = fs::read_to_string(&log.path).unwrap();
        let entry = |line: &str| {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000000000Z".len(), "{time}");
            time.parse::<Timestamp>().unwrap();
            rest.to_owned()
        };
        text.lines().map(entry).collect()
    }

    #[test]
    fn lines_are_put_together_and_told_apart() {
        let (log, _folder) = log(LogLimits::default());
        log.write(StdStream::Stdout, b"one\ntw");
        log.write(StdStream::Stderr, b"bad\n");
        log.write(StdStream::Stdout, b"o\n\nend");
        assert_eq!(entries(&log), ["stdout F one", "stderr F bad", "stdout F two", "stdout F "]);
        log.close();
        assert_eq!(entries(&log).last().unwrap(), "stdout P end");
    }

    #[test]
    fn a_long_line_is_split() {
        let (log, _folder) = log(LogLimits::default());
        let long = "x".repeat(MAX_LINE_BYTES + 10);
        log.write(StdStream::Stdout, format!("{long}\n").as_bytes());
        let found = entries(&log);
        assert_eq!(found[0].len(), "stdout P ".len() + MAX_LINE_BYTES);
        assert_eq!(found[1], format!("stdout F {}", "x".repeat(10)));
    }

    #[test]
    fn files_are_rotated_and_the_oldest_removed() {
        let (log, folder) = log(LogLimits { max_file_bytes: 100, max_files: 3 });
        for number in 0..20 {
            log.write(StdStream::Stdout, format!("line number {number:02} of many\n").as_bytes());
        }
        let mut names: Vec<_> =
            fs::read_dir(folder.path().join("app")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        let all: Vec<String> = names[1..]
            .iter()
            .chain(&names[..1])
            .flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        assert!(all.last().unwrap().ends_with("line number 19 of many"));
        let numbers: Vec<u32> = all.iter().map(|line| line.split(' ').nth(5).unwrap().parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }

    #[test]
    fn the_tail_stands_in_for_a_message() {
        let (log, _folder) = log(LogLimits::default());
        for number in 0..1000 {
            log.write(StdStream::Stderr, format!("line {number}\n").as_bytes());
        }
        let words = log.last_words();
        assert!(words.starts_with("line 920\n") && words.ends_with("line 999\n"), "{words}");
    }

    #[test]
    fn a_restart_of_the_agent_appends() {
        let (log, _folder) = log(LogLimits::default());
        log.write(StdStream::Stdout, b"before\n");
        log.close();
        let again = CriLog::create(&log.path, LogLimits::default()).unwrap();
        again.write(StdStream::Stdout, b"after\n");
        assert_eq!(entries(&again), ["stdout F before", "stdout F after"]);
    }
}
