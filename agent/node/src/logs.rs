//! Reads container logs in the CRI format: `TIMESTAMP STREAM TAG CONTENT`, over all files of one run, also while they
//! grow and rotate. It holds one block in memory per reader and never changes a log.

mod entry;
mod files;

use std::{io, path::PathBuf, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::{fs::File, io::AsyncReadExt, sync::mpsc, time::sleep};

use self::{
    entry::{Entry, Lines},
    files::{LogFile, list, next_after, start_of_tail},
};

/// What a client wants of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit_bytes: Option<u64>,
    /// `stdout` or `stderr`; `None` is both.
    pub(crate) stream: Option<String>,
}

/// The run whose log is read.
pub(crate) struct LogSource {
    /// Directory of the container's logs.
    pub(crate) dir: PathBuf,
    /// Number of the run.
    pub(crate) attempt: u32,
    /// Answers whether the run still goes on: asked at the end of the file.
    pub(crate) goes_on: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Bytes read and sent at once.
const BLOCK_BYTES: usize = 64 * 1024;
/// Time between two looks at a log that is followed.
const LOOK: Duration = Duration::from_millis(100);

/// Reads a log into a channel until its end, or until nobody listens.
pub(crate) async fn read(source: LogSource, options: LogOptions, out: mpsc::Sender<io::Result<Bytes>>) {
    let mut reader = Reader { options, out, pending: Vec::new(), left: None, at_start: true };
    reader.left = reader.options.limit_bytes;
    match reader.run(&source).await {
        Ok(()) => {}
        // What was asked for is still to be sent; nobody may be there to take it.
        Err(Ended::Enough) => drop(reader.flush().await),
        Err(Ended::Failed(error)) => drop(reader.out.send(Err(error)).await),
    }
}

/// Why reading stops early.
enum Ended {
    /// The client went away, or has all it asked for.
    Enough,
    Failed(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

struct Reader {
    options: LogOptions,
    out: mpsc::Sender<io::Result<Bytes>>,
    pending: Vec<u8>,
    left: Option<u64>,
    /// The next entry begins a line.
    at_start: bool,
}

impl Reader {
    async fn run(&mut self, source: &LogSource) -> Result<(), Ended> {
        let (mut file, offset) = loop {
            let (dir, attempt, tail) = (source.dir.clone(), source.attempt, self.options.tail_lines);
            match blocking(move || start_of_tail(&dir, attempt, tail)).await? {
                Some(start) => break start,
                None if self.options.follow && (source.goes_on)() => sleep(LOOK).await,
                None => return Ok(()),
            }
        };
        let mut offset = offset;
        loop {
            self.file(source, &file, offset).await?;
            let (dir, attempt, current) = (source.dir.clone(), source.attempt, file.clone());
            match blocking(move || next_after(&dir, attempt, &current)).await? {
                Some(next) => (file, offset) = (next, 0),
                None => break,
            }
        }
        self.flush().await
    }

    /// Reads one file to its end; the newest one, when followed, until the run is over or the file was moved away.
    async fn file(&mut self, source: &LogSource, log: &LogFile, offset: u64) -> Result<(), Ended> {
        let mut file = match log.open(offset).await {
            Ok(file) => file,
            // It was the oldest and is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut lines = Lines::default();
        loop {
            // Asked before the read: what is written between the two is read.
            let over = !self.options.follow || !(source.goes_on)() || self.was_moved(source, log).await?;
            self.drain(&mut file, &mut lines).await?;
            if over {
                return Ok(());
            }
            self.flush().await?;
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.out.closed() => return Err(Ended::Enough),
            }
        }
    }

    async fn was_moved(&self, source: &LogSource, log: &LogFile) -> Result<bool, Ended> {
        let (dir, attempt, log) = (source.dir.clone(), source.attempt, log.clone());
        Ok(blocking(move || Ok(list(&dir, attempt)?.last().is_none_or(|newest| newest.inode != log.inode))).await?)
    }

    async fn drain(&mut self, file: &mut File, lines: &mut Lines) -> Result<(), Ended> {
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block).await?;
            if read == 0 {
                return Ok(());
            }
            lines.push(&block[..read]);
            while let Some(line) = lines.next_line() {
                self.entry(&line)?;
            }
            if self.pending.len() >= BLOCK_BYTES {
                self.flush().await?;
            }
        }
    }

    fn entry(&mut self, line: &[u8]) -> Result<(), Ended> {
        let Some(entry) = Entry::parse(line) else { return Ok(()) };
        let wanted = self.options.stream.as_deref().is_none_or(|stream| stream == entry.stream);
        let late = self.options.since.is_none_or(|since| entry.time().is_none_or(|time| time >= since));
        if !wanted || !late {
            return Ok(());
        }
        if self.options.timestamps && self.at_start {
            self.put(entry.timestamp.as_bytes())?;
            self.put(b" ")?;
        }
        self.put(entry.content)?;
        self.at_start = entry.full;
        if entry.full {
            self.put(b"\n")?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        let room = self.left.map_or(bytes.len(), |left| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()));
        self.pending.extend_from_slice(&bytes[..room]);
        if let Some(left) = &mut self.left {
            *left -= room as u64;
            if *left == 0 {
                return Err(Ended::Enough);
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let block = Bytes::from(std::mem::take(&mut self.pending));
        self.out.send(Ok(block)).await.map_err(|_| Ended::Enough)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
