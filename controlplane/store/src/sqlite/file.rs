//! The database file: where it lies, who may use it, its settings and tables, and what SQLite's errors mean for us.
//! One process uses a data directory at a time; a lock file holds others off.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::reserve::Reserve;
use crate::StoreError;

/// "Cora" in ASCII: marks a file as ours.
const APPLICATION_ID: i64 = 0x436F_7261;
const SCHEMA_VERSION: i64 = 1;

/// Page cache of the writing connection. It holds the index pages that a busy store touches again and again.
const WRITER_CACHE_KIB: u32 = 8 * 1024;
/// Page cache of the reading connection, which serves old history only.
const READER_CACHE_KIB: u32 = 512;
/// The write-ahead log is cut back to this size after it was folded in.
const WAL_KEEP_BYTES: u32 = 16 << 20;

/// How long a commit waits for another program that has the database open, such as a backup.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
CREATE TABLE collection (
    id INTEGER PRIMARY KEY,
    prefix TEXT NOT NULL UNIQUE,
    volatile INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    collection INTEGER NOT NULL,
    name TEXT NOT NULL,
    previous INTEGER NOT NULL,
    created INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    stamp INTEGER,
    value BLOB
) STRICT;
CREATE UNIQUE INDEX log_key ON log (collection, name, previous);
CREATE TABLE progress (
    compacted INTEGER NOT NULL,
    swept INTEGER NOT NULL,
    reserved INTEGER NOT NULL
) STRICT;
INSERT INTO progress VALUES (0, 0, 0);
";

/// A data directory that this process holds.
pub(super) struct DataDir {
    pub(super) database: PathBuf,
    /// The database's own number, by which it is known from another of its name.
    number: u64,
    /// The lock lasts as long as this file is open.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be, readable for its owner only, and locks it.
    pub(super) fn lock(dir: &Path) -> Result<Self, StoreError> {
        let attempt = |what: &str, error: std::io::Error| unavailable(format!("{what} {}: {error}", dir.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| attempt("cannot create", error))?;
        let mut private = OpenOptions::new();
        private.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut lock = private.open(dir.join("store.lock")).map_err(|error| attempt("cannot write to", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // The number is a help for the reader of the message; without it the message still stands.
                let _ = lock.read_to_string(&mut holder);
                return Err(StoreError::Locked { dir: dir.into(), holder: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(attempt("cannot lock", error)),
        }
        // A full disk must not keep the store from opening for reads.
        let _ = write_holder(&mut lock);
        let database = dir.join("store.db");
        // SQLite gives its other files the mode of this one: objects hold secrets.
        let found = private.open(&database).and_then(|file| file.metadata());
        let number = found.map_err(|error| attempt("cannot write to", error))?.ino();
        Ok(Self { database, number, _lock: lock })
    }

    /// Room for deletions beside the database.
    pub(super) fn reserve(&self) -> Reserve {
        self.database.parent().map_or_else(Reserve::none, Reserve::open)
    }

    /// What is written to a file that has no name any more is lost with the process, whatever the disk says.
    pub(super) fn vanished(&self) -> Option<StoreError> {
        let same = fs::metadata(&self.database).is_ok_and(|found| found.ino() == self.number);
        (!same).then(|| {
            unavailable(format!(
                "{} was deleted or replaced while it was in use: nothing more is written. Stop the server and restore it",
                self.database.display()
            ))
        })
    }
}

fn write_holder(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    write!(lock, "{}", std::process::id())
}

/// Opens a database for writing, and makes its tables if it is new.
pub(super) fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open(path).map_err(|error| store_error(path, &error))?;
    prepare_writer(&connection, path)?;
    Ok(connection)
}

/// A database without a file.
pub(super) fn open_memory() -> Result<Connection, StoreError> {
    let path = memory_path();
    let connection = Connection::open_in_memory().map_err(|error| store_error(&path, &error))?;
    prepare_writer(&connection, &path)?;
    Ok(connection)
}

/// The name under which messages speak of a database without a file.
pub(super) fn memory_path() -> PathBuf {
    PathBuf::from(":memory:")
}

/// A second connection, for reading old history beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| store_error(path, &error))?;
    connection
        .execute_batch(&format!("PRAGMA cache_size = -{READER_CACHE_KIB};"))
        .and_then(|()| keep_plans(&connection))
        .and_then(|()| connection.busy_timeout(BUSY_TIMEOUT))
        .map_err(|error| store_error(path, &error))?;
    Ok(connection)
}

/// A connection that folds the write-ahead log into the database beside the writer. It never waits for others.
pub(super) fn open_folder(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| store_error(path, &error))?;
    connection
        .execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = FULL; PRAGMA cache_size = -64;")
        .and_then(|()| connection.busy_timeout(Duration::ZERO))
        .map_err(|error| store_error(path, &error))?;
    Ok(connection)
}

/// Without this, SQLite looks at the values bound to a statement while it plans it, and compiles it anew for each new
/// value: half the cost of an insert.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

fn prepare_writer(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let wrap = |error: rusqlite::Error| store_error(path, &error);
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map_err(wrap);
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    if tables == 0 {
        // Must come before the first table, and only then: it writes to the file, and one that is damaged stays as it is.
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL;").map_err(wrap)?;
    } else {
        if number("PRAGMA application_id")? != APPLICATION_ID {
            return Err(corrupt(path, "the file is a database of another program"));
        }
        let version = number("PRAGMA user_version")?;
        if version != SCHEMA_VERSION {
            return Err(corrupt(path, &format!("the file has format {version}, this program knows {SCHEMA_VERSION}")));
        }
    }
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = {WAL_KEEP_BYTES};
             PRAGMA cache_size = -{WRITER_CACHE_KIB};
             PRAGMA temp_store = MEMORY;
             PRAGMA foreign_keys = OFF;"
        ))
        .and_then(|()| keep_plans(connection))
        .and_then(|()| connection.busy_timeout(BUSY_TIMEOUT))
        .map_err(wrap)?;
    if tables == 0 {
        connection
            .execute_batch(&format!(
                "BEGIN IMMEDIATE; {SCHEMA}
                 PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            ))
            .map_err(wrap)?;
    }
    Ok(())
}

/// Bytes of the files, for tests and metrics.
pub(super) fn size_on_disk(database: &Path) -> u64 {
    let wal = database.with_extension("db-wal");
    [database, &wal].iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum()
}

pub(super) fn unavailable(text: impl AsRef<str>) -> StoreError {
    StoreError::Unavailable(text.as_ref().into())
}

pub(super) fn corrupt(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt { path: path.into(), what: what.into() }
}

/// What an error of SQLite means for the caller.
pub(super) fn store_error(path: &Path, error: &rusqlite::Error) -> StoreError {
    let Some(failure) = error.sqlite_error() else {
        // The rows are ours: a value of a wrong type means that the file was tampered with.
        return corrupt(path, &format!("the database holds what it should not ({error})"));
    };
    match (failure.code, failure.extended_code) {
        // The index of the write-ahead log can't grow: in practice no space, too.
        (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP) => StoreError::Full,
        (ErrorCode::NotADatabase, _) => corrupt(path, "the file is not a database"),
        (ErrorCode::DatabaseCorrupt, _) => corrupt(path, "the database file is damaged"),
        (ErrorCode::ConstraintViolation, _) => corrupt(path, "the log contradicts what was read from it"),
        _ => unavailable(format!("{}: {error}", path.display())),
    }
}
