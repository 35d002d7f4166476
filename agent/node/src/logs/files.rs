//! The files of one run's log in the order they were written: `N.log.TIMESTAMP…`, then `N.log`. A file is known by its
//! inode, since a rotation renames it.

use std::{
    fs, io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use tokio::io::AsyncSeekExt;

use super::{BLOCK_BYTES, entry::Entry};

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    pub(super) inode: u64,
}

impl LogFile {
    /// Opens it at an offset, under whatever name it has by now.
    pub(super) async fn open(&self, offset: u64) -> io::Result<tokio::fs::File> {
        let mut path = self.path.clone();
        let mut file = tokio::fs::File::open(&path).await?;
        if file.metadata().await?.ino() != self.inode {
            let (dir, attempt) = (path.parent().map(Path::to_owned).unwrap_or_default(), attempt_of(&path));
            let moved = list(&dir, attempt)?.into_iter().find(|other| other.inode == self.inode);
            path = moved.ok_or(io::ErrorKind::NotFound)?.path;
            file = tokio::fs::File::open(&path).await?;
        }
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(file)
    }
}

/// All files of a run, the oldest first.
pub(super) fn list(dir: &Path, attempt: u32) -> io::Result<Vec<LogFile>> {
    let current = format!("{attempt}.log");
    let rotated = format!("{current}.");
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == current || name.starts_with(&rotated) {
            // It may be renamed or removed between the two calls.
            if let Ok(meta) = entry.metadata() {
                files.push((name != current, name, LogFile { path: entry.path(), inode: meta.ino() }));
            }
        }
    }
    files.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    files.dedup_by(|later, earlier| later.2.inode == earlier.2.inode);
    Ok(files.into_iter().map(|(_, _, file)| file).collect())
}

/// The file written after this one; the oldest one left if this one is gone.
pub(super) fn next_after(dir: &Path, attempt: u32, file: &LogFile) -> io::Result<Option<LogFile>> {
    let files = list(dir, attempt)?;
    let next = files.iter().position(|other| other.inode == file.inode).map_or(0, |at| at + 1);
    Ok(files.into_iter().nth(next))
}

/// Where the last `lines` lines begin; the very beginning when that is not given. Files are read from their end, a block at
/// a time, no further than is needed.
pub(super) fn start_of_tail(dir: &Path, attempt: u32, lines: Option<usize>) -> io::Result<Option<(LogFile, u64)>> {
    let files = list(dir, attempt)?;
    let Some(mut wanted) = lines else { return Ok(files.into_iter().next().map(|file| (file, 0))) };
    let mut start = None;
    let mut newest = true;
    for file in files.into_iter().rev() {
        let mut entries = Backwards::open(&file.path)?;
        while let Some((begin, end)) = entries.next_entry()? {
            // Each entry that ends a line begins one more; so does a last one that is not ended yet.
            if entries.is_full(begin, end)? || newest {
                if wanted == 0 {
                    return Ok(Some((file, end + 1)));
                }
                wanted -= 1;
            }
            newest = false;
        }
        start = Some((file, 0));
    }
    Ok(start)
}

/// Bytes of an entry that hold its time, its stream and its tag.
const HEAD_BYTES: u64 = 128;

/// The entries of a file from its end. It holds one block.
struct Backwards {
    file: fs::File,
    block: Vec<u8>,
    /// Where the block begins.
    at: u64,
    /// Bytes of the block that were not looked at.
    left: usize,
    /// The line break that ends the next entry; `None` before the first look, and at the end of all.
    end: Option<u64>,
}

impl Backwards {
    /// What is written after the last line break is no entry yet.
    fn open(path: &Path) -> io::Result<Self> {
        let file = fs::File::open(path)?;
        let at = file.metadata()?.len();
        let mut entries = Self { file, block: Vec::new(), at, left: 0, end: None };
        entries.end = entries.line_break()?;
        Ok(entries)
    }

    /// The next entry before those given so far: where it begins, and where its line break is.
    fn next_entry(&mut self) -> io::Result<Option<(u64, u64)>> {
        let Some(end) = self.end else { return Ok(None) };
        self.end = self.line_break()?;
        Ok(Some((self.end.map_or(0, |before| before + 1), end)))
    }

    /// Whether an entry ends a line of the container's; what is no entry counts as one.
    fn is_full(&self, begin: u64, end: u64) -> io::Result<bool> {
        let mut head = vec![0; usize::try_from((end - begin).min(HEAD_BYTES)).unwrap_or_default()];
        self.file.read_exact_at(&mut head, begin)?;
        Ok(Entry::parse(&head).is_none_or(|entry| entry.full))
    }

    /// The next line break towards the beginning.
    fn line_break(&mut self) -> io::Result<Option<u64>> {
        loop {
            if let Some(found) = self.block[..self.left].iter().rposition(|byte| *byte == b'\n') {
                self.left = found;
                return Ok(Some(self.at + found as u64));
            }
            if self.at == 0 {
                self.left = 0;
                return Ok(None);
            }
            let size = self.at.min(BLOCK_BYTES as u64);
            self.at -= size;
            self.left = usize::try_from(size).unwrap_or_default();
            self.block.resize(self.left, 0);
            self.file.read_exact_at(&mut self.block, self.at)?;
        }
    }
}

fn attempt_of(path: &Path) -> u32 {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
