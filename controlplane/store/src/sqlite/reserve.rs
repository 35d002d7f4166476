//! Room on the disk that is held back: on a full disk there must be room for what makes room, or nobody could delete
//! anything. It is a file that holds nothing; it is given up when it is needed, and made again once there is plenty.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// Half of it is for the write-ahead log, which has to go into the database before it can be used again, and half for
/// deletions: thousands, each of which adds a few pages.
const MOST_BYTES: u64 = 32 << 20;
/// Of a small disk it is no more than this part,
const PART: u64 = 8;
/// and of what is free on it no more than this. A disk that is nearly full is still written to.
const PART_OF_FREE: u64 = 4;
/// Below this it would be of no use: a disk without so much to spare is full.
const LEAST_BYTES: u64 = 256 << 10;

/// The room.
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The file is there.
    Held,
    /// It was given up, or there never was room for it.
    Spent,
    /// There is no file, or the file system cannot hold room back.
    Unavailable,
}

impl Reserve {
    /// None, for a store without a file.
    pub(super) fn none() -> Self {
        Self { path: PathBuf::new(), bytes: 0, state: State::Unavailable }
    }

    /// The room in a data directory, made if there is enough.
    pub(super) fn open(dir: &Path) -> Self {
        let path = dir.join("store.reserve");
        let found = fs::metadata(&path).map_or(0, |found| found.len());
        let (total, free) = room(dir);
        let most = MOST_BYTES.min(total / PART);
        let bytes = most.min((free + found) / PART_OF_FREE).max(LEAST_BYTES);
        if most < LEAST_BYTES {
            return Self { path, bytes, state: State::Unavailable };
        }
        // A larger one is of another disk, a smaller one of a time when there was less room.
        if (bytes..=most).contains(&found) {
            return Self { path, bytes: found, state: State::Held };
        }
        let mut reserve = Self { path, bytes, state: State::Spent };
        reserve.remove();
        reserve.make();
        reserve
    }

    /// Whether only what makes room may be written now. Takes the room back if there is plenty by now.
    pub(super) fn is_short(&mut self) -> bool {
        if self.state != State::Spent {
            return false;
        }
        self.make();
        if self.state == State::Held {
            tracing::info!("there is room on the disk again: all writes go on");
        }
        self.state == State::Spent
    }

    /// How long the write-ahead log may get, in bytes, so that there is room for it in the database even on a full disk.
    pub(super) fn log_bytes(&self) -> Option<u64> {
        match self.state {
            State::Held => Some(self.bytes / 2),
            // Every page that is used again is one that need not be found.
            State::Spent => Some(self.bytes / 16),
            State::Unavailable => None,
        }
    }

    /// Gives the room up. `false` if there is none to give.
    pub(super) fn spend(&mut self) -> bool {
        if self.state != State::Held {
            return false;
        }
        self.state = State::Spent;
        let is_free = self.remove();
        if is_free {
            tracing::warn!("the disk is full: from now on only deletions are written, in room held back for them");
        }
        is_free
    }

    fn remove(&self) -> bool {
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "the room held back for deletions cannot be used");
                false
            }
        }
    }

    fn make(&mut self) {
        let (_, free) = room(self.path.parent().unwrap_or(Path::new(".")));
        // As much again is left to those who write.
        if free < 2 * self.bytes {
            return;
        }
        let mut private = OpenOptions::new();
        private.create(true).truncate(true).write(true).mode(0o600);
        let made = private.open(&self.path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let made = made.and_then(|file| fallocate(file, FallocateFlags::empty(), 0, self.bytes));
        self.state = match made {
            Ok(()) => State::Held,
            Err(error) => {
                // An empty file holds nothing back.
                self.remove();
                if error == Errno::NOSPC {
                    State::Spent
                } else {
                    tracing::warn!(%error, "no room can be held back on this disk for deletions");
                    State::Unavailable
                }
            }
        };
    }
}

/// The bytes of a directory's file system: all of them, and those that are free.
fn room(dir: &Path) -> (u64, u64) {
    statvfs(dir).map_or((0, 0), |disk| (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_given_up_once_and_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(dir.path());
        assert!(!reserve.is_short());
        let held = fs::metadata(dir.path().join("store.reserve")).unwrap();
        assert_eq!(held.len(), reserve.bytes);
        use std::os::unix::fs::MetadataExt;
        assert!(held.blocks() * 512 >= reserve.bytes, "it is not a hole");
        assert!(reserve.spend());
        assert!(!dir.path().join("store.reserve").exists());
        assert!(!reserve.spend(), "it is gone");
        assert!(!reserve.is_short(), "the disk has room");
        assert!(dir.path().join("store.reserve").exists());
        assert!(!Reserve::none().spend());
    }
}
