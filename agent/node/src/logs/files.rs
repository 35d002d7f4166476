//! The files of one run's log in the order they were written: `N.log.TIMESTAMP…`, then `N.log`. A file is known by its
//! inode, since a rotation renames it.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use tokio::io::AsyncSeekExt;

use super::entry::Entry;

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

/// Where the last `lines` lines begin; the very beginning when that is not given.
pub(super) fn start_of_tail(dir: &Path, attempt: u32, lines: Option<usize>) -> io::Result<Option<(LogFile, u64)>> {
    let files = list(dir, attempt)?;
    let Some(mut wanted) = lines else { return Ok(files.into_iter().next().map(|file| (file, 0))) };
    let mut start = None;
    let mut newest = true;
    for file in files.into_iter().rev() {
        let bytes = fs::read(&file.path)?;
        let mut at = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        while at > 0 {
            let begin = bytes[..at - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
            let full = Entry::parse(&bytes[begin..at - 1]).is_none_or(|entry| entry.full);
            // Each entry that ends a line begins one more; so does a last one that is not ended yet.
            if full || newest {
                if wanted == 0 {
                    return Ok(Some((file, at as u64)));
                }
                wanted -= 1;
            }
            newest = false;
            at = begin;
        }
        start = Some((file, 0));
    }
    Ok(start)
}

fn attempt_of(path: &Path) -> u32 {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.split('.').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
