//! The SQL of the log: every statement that reads or writes its rows, and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params, params};

use crate::mirror::bounds;
use crate::value::Stamp;
use crate::{Collection, Entry, Key, ListRange, Revision, WatchEvent};

type Sql<T> = rusqlite::Result<T>;

/// A collection's number in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CollectionId(pub(super) i64);

/// A collection as the database knows it.
pub(super) struct StoredCollection {
    pub(super) id: CollectionId,
    pub(super) collection: Collection,
    pub(super) volatile: bool,
}

/// Where the maintenance of the log stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Nobody may ask for what was before.
    pub(super) compacted: Revision,
    /// Up to here, what compaction forgets is really gone.
    pub(super) swept: Revision,
    /// Revisions up to here may have been given to volatile writes.
    pub(super) reserved: Revision,
}

/// What a row supersedes.
#[derive(Clone, Copy)]
pub(super) enum Supersedes {
    /// The row of that revision.
    Row(Revision),
    /// A deletion long ago, or nothing; the database knows.
    Whatever,
}

impl ToSql for Revision {
    fn to_sql(&self) -> Sql<ToSqlOutput<'_>> {
        let number = i64::try_from(self.0).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(number.into())
    }
}

impl FromSql for Revision {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// A count as SQLite takes it.
fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

pub(super) fn read_progress(connection: &Connection) -> Sql<Progress> {
    connection.query_row("SELECT compacted, swept, reserved FROM progress", [], |row| {
        Ok(Progress { compacted: row.get(0)?, swept: row.get(1)?, reserved: row.get(2)? })
    })
}

pub(super) fn write_progress(connection: &Connection, progress: Progress) -> Sql<()> {
    connection.prepare_cached("UPDATE progress SET compacted = ?1, swept = ?2, reserved = ?3")?.execute(params![
        progress.compacted,
        progress.swept,
        progress.reserved
    ])?;
    Ok(())
}

pub(super) fn last_revision(connection: &Connection) -> Sql<Revision> {
    let last = connection.query_row("SELECT max(revision) FROM log", [], |row| row.get::<_, Option<Revision>>(0))?;
    Ok(last.unwrap_or(Revision::ZERO))
}

pub(super) fn read_collections(connection: &Connection) -> Sql<Vec<StoredCollection>> {
    connection
        .prepare("SELECT id, prefix, volatile FROM collection")?
        .query_map([], |row| {
            Ok(StoredCollection {
                id: CollectionId(row.get(0)?),
                collection: Collection::from_prefix(row.get_ref(1)?.as_str()?),
                volatile: row.get(2)?,
            })
        })?
        .collect()
}

/// Adds a collection, or marks one as volatile.
pub(super) fn write_collection(connection: &Connection, collection: &Collection, volatile: bool) -> Sql<CollectionId> {
    connection
        .prepare_cached(
            "INSERT INTO collection (prefix, volatile) VALUES (?1, ?2)
             ON CONFLICT (prefix) DO UPDATE SET volatile = max(volatile, excluded.volatile) RETURNING id",
        )?
        .query_row(params![collection.as_str(), volatile], |row| row.get(0).map(CollectionId))
}

pub(super) fn insert_state(connection: &Connection, id: CollectionId, entry: &Entry, over: Supersedes) -> Sql<()> {
    match over {
        Supersedes::Row(previous) => connection
            .prepare_cached(
                "INSERT INTO log (revision, collection, name, previous, created, deleted, stamp, value)
                 VALUES (:revision, :collection, :name, :previous, :created, 0, :stamp, :value)",
            )?
            .execute(named_params! {
                ":revision": entry.revision, ":collection": id.0, ":name": &*entry.key.name,
                ":previous": previous, ":created": entry.created,
                ":stamp": entry.stamp.to_column(), ":value": &*entry.bytes,
            })?,
        Supersedes::Whatever => connection
            .prepare_cached(
                "INSERT INTO log (revision, collection, name, previous, created, deleted, stamp, value)
                 VALUES (:revision, :collection, :name, coalesce((SELECT revision FROM log
                     WHERE collection = :collection AND name = :name ORDER BY previous DESC LIMIT 1), 0),
                     :created, 0, :stamp, :value)",
            )?
            .execute(named_params! {
                ":revision": entry.revision, ":collection": id.0, ":name": &*entry.key.name,
                ":created": entry.created, ":stamp": entry.stamp.to_column(), ":value": &*entry.bytes,
            })?,
    };
    Ok(())
}

/// A deletion. Its text can be made again from the state before, so none is kept.
pub(super) fn insert_deletion(connection: &Connection, id: CollectionId, entry: &Entry, previous: Revision) -> Sql<()> {
    connection
        .prepare_cached(
            "INSERT INTO log (revision, collection, name, previous, created, deleted)
             VALUES (?1, ?2, ?3, ?4, ?5, 1)",
        )?
        .execute(params![entry.revision, id.0, &*entry.key.name, previous, entry.created])?;
    Ok(())
}

/// Reads the latest state of every object, in the order of collections and names.
pub(super) fn read_latest(connection: &Connection, mut each: impl FnMut(CollectionId, &Row<'_>) -> Sql<()>) -> Sql<()> {
    let mut statement = connection.prepare(
        "SELECT l.name, l.created, l.revision, l.stamp, l.value, l.collection
         FROM (SELECT max(revision) AS latest FROM log GROUP BY collection, name) AS m
         CROSS JOIN log AS l ON l.revision = m.latest WHERE l.deleted = 0",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(CollectionId(row.get(5)?), row)?;
    }
    Ok(())
}

/// An entry from `name, created, revision, stamp, value`, the first of them in `column`.
pub(super) fn read_entry(row: &Row<'_>, column: usize, collection: &Collection) -> Sql<Entry> {
    let key = Key { collection: collection.clone(), name: row.get_ref(column)?.as_str()?.into() };
    read_state(row, column + 1, key)
}

fn read_state(row: &Row<'_>, column: usize, key: Key) -> Sql<Entry> {
    let created = row.get(column)?;
    let revision = row.get(column + 1)?;
    let stamp = Stamp::from_column(row.get(column + 2)?);
    let bytes = Bytes::from(row.get_ref(column + 3)?.as_blob()?.to_vec());
    Ok(Entry::new(key, created, revision, bytes, stamp))
}

pub(super) fn find_collection(connection: &Connection, collection: &Collection) -> Sql<Option<CollectionId>> {
    connection
        .prepare_cached("SELECT id FROM collection WHERE prefix = ?1")?
        .query_row([collection.as_str()], |row| row.get(0).map(CollectionId))
        .optional()
}

/// The changes of a collection after one revision and up to another.
pub(super) fn read_changes(
    connection: &Connection,
    (id, collection): (CollectionId, &Collection),
    (after, up_to): (Revision, Revision),
    limit: usize,
) -> Sql<Vec<WatchEvent>> {
    // The plus keeps SQLite from the index over names: the rows lie in the order of revisions.
    let mut statement = connection.prepare_cached(
        "SELECT l.name, l.created, l.revision, l.stamp, l.value, l.deleted,
                p.created, p.revision, p.stamp, p.value
         FROM log AS l LEFT JOIN log AS p ON p.revision = l.previous AND p.deleted = 0
         WHERE l.revision > ?1 AND l.revision <= ?2 AND +l.collection = ?3 ORDER BY l.revision LIMIT ?4",
    )?;
    let mut rows = statement.query(params![after, up_to, id.0, count(limit)])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(read_event(row, collection)?);
    }
    Ok(events)
}

fn read_event(row: &Row<'_>, collection: &Collection) -> Sql<WatchEvent> {
    let key = Key { collection: collection.clone(), name: row.get_ref(0)?.as_str()?.into() };
    let has_previous = row.get::<_, Option<Revision>>(7)?.is_some();
    let previous = if has_previous { Some(Arc::new(read_state(row, 6, key.clone())?)) } else { None };
    if row.get(5)? {
        // Compaction keeps what a kept deletion refers to, so a deletion without it is damage.
        let previous = previous.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        return Ok(WatchEvent::Deleted { entry: previous.buried(row.get(2)?), previous });
    }
    Ok(WatchEvent::Put { entry: Arc::new(read_state(row, 1, key)?), previous })
}

/// A page of a collection as it was at a revision, and how many objects follow it.
pub(super) fn read_page(
    connection: &Connection,
    (id, collection): (CollectionId, &Collection),
    range: &ListRange,
    at: Revision,
) -> Sql<(Vec<Arc<Entry>>, usize)> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let (lower, upper) = bounds(range);
    // Text compares by bytes in SQLite too. An excluded start is an included one with the least byte appended.
    let lower = match lower {
        Included(name) => name,
        Excluded(name) => name + "\0",
        Unbounded => String::new(),
    };
    let upper = match upper {
        Excluded(name) | Included(name) => Some(name),
        Unbounded => None,
    };
    let mut statement = connection.prepare_cached(
        "SELECT l.name, l.created, l.revision, l.stamp, l.value
         FROM (SELECT max(revision) AS latest FROM log WHERE collection = ?1 AND name >= ?2
               AND (?3 IS NULL OR name < ?3) AND revision <= ?4 GROUP BY name ORDER BY name) AS m
         CROSS JOIN log AS l ON l.revision = m.latest WHERE l.deleted = 0",
    )?;
    let mut rows = statement.query(params![id.0, lower, upper, at])?;
    let limit = range.limit.unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    let mut remaining = 0;
    while let Some(row) = rows.next()? {
        if entries.len() < limit {
            entries.push(Arc::new(read_entry(row, 0, collection)?));
        } else if range.known.is_some() {
            break;
        } else {
            remaining += 1;
        }
    }
    let remaining = range.known.map_or(remaining, |known| known.saturating_sub(entries.len()));
    Ok((entries, remaining))
}

/// The end of the next step of a sweep: the revision of the `rows`-th row after `from`.
pub(super) fn sweep_end(
    connection: &Connection,
    from: Revision,
    up_to: Revision,
    rows: usize,
) -> Sql<Option<Revision>> {
    connection
        .prepare_cached(
            "SELECT max(revision) FROM (SELECT revision FROM log
             WHERE revision > ?1 AND revision <= ?2 ORDER BY revision LIMIT ?3)",
        )?
        .query_row(params![from, up_to, count(rows)], |row| row.get(0))
}

/// Removes what the rows in `(from, to]` supersede, and the deletions among them.
pub(super) fn sweep(connection: &Connection, from: Revision, to: Revision) -> Sql<usize> {
    connection
        .prepare_cached(
            "DELETE FROM log WHERE revision IN (
                SELECT previous FROM log WHERE revision > ?1 AND revision <= ?2 AND previous > 0
                UNION ALL SELECT revision FROM log WHERE revision > ?1 AND revision <= ?2 AND deleted = 1)",
        )?
        .execute(params![from, to])
}

pub(super) fn free_pages(connection: &Connection) -> Sql<usize> {
    connection.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0)).map(|pages| pages as usize)
}

/// Gives up to `pages` free pages back to the file system.
pub(super) fn vacuum(connection: &Connection, pages: usize) -> Sql<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
