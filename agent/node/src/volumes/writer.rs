//! Files that change together: they are written into a new directory, and one rename of the link `..data` shows them all,
//! as Kubernetes' atomic writer does. A reader never sees half of a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::Path,
};

use super::empty_dir::own;
use coracle_agent_core::volume::File;
use jiff::{Timestamp, tz::TimeZone};

/// The link to the present directory.
const DATA: &str = "..data";
/// The next link, before it takes the other's name.
const NEXT: &str = "..data_tmp";

/// Makes `dir` hold exactly these files, owned by `group` if there is one. Does nothing when it already does.
pub(super) fn replace(dir: &Path, files: &BTreeMap<String, File>, group: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    if let Some(path) = files.keys().find(|path| !is_inside(path)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path {path:?} in a volume")));
    }
    let old = fs::read_link(dir.join(DATA)).ok();
    if old.is_some() && is_current(&dir.join(DATA), files) {
        return Ok(());
    }
    let name = new_directory(dir)?;
    let fresh = dir.join(&name);
    for (path, file) in files {
        let target = fresh.join(path);
        if let Some(parent) = target.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::write(&target, &file.data)?;
        own(&target, group)?;
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode))?;
    }
    let _ = fs::remove_file(dir.join(NEXT));
    symlink(&name, dir.join(NEXT))?;
    fs::rename(dir.join(NEXT), dir.join(DATA))?;
    link_names(dir, files)?;
    if let Some(old) = old {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(())
}

/// Whether files were put here before.
pub(super) fn is_there(dir: &Path) -> bool {
    dir.join(DATA).is_dir()
}

/// Links the first part of each path through `..data`, and drops links of what is no longer there.
fn link_names(dir: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !wanted.contains(name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn new_directory(dir: &Path) -> io::Result<String> {
    let stamp = Timestamp::now().to_zoned(TimeZone::UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f").to_string();
    for number in 0..1000 {
        let name = if number == 0 { stamp.clone() } else { format!("{stamp}.{number}") };
        match fs::DirBuilder::new().mode(0o755).create(dir.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result.map(|()| name),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for a new directory"))
}

fn is_current(data: &Path, files: &BTreeMap<String, File>) -> bool {
    let same = |(path, file): (&String, &File)| {
        let target = data.join(path);
        fs::read(&target).is_ok_and(|bytes| bytes == file.data)
            && fs::metadata(&target).is_ok_and(|meta| meta.permissions().mode() & 0o777 == file.mode)
    };
    files.iter().all(same) && count(data).is_ok_and(|count| count == files.len())
}

fn count(dir: &Path) -> io::Result<usize> {
    let mut total = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Ok(total)
}

fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && !path.starts_with("..") && path.split('/').all(|part| part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str, u32)]) -> BTreeMap<String, File> {
        let one = |(path, data, mode): &(&str, &str, u32)| {
            ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: *mode })
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn a_change_is_one_rename_and_leaves_nothing_behind() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("v");
        replace(&dir, &files(&[("a", "1", 0o644), ("sub/b", "2", 0o400)]), None).unwrap();
        assert!(is_there(&dir));
        let first = fs::read_link(dir.join(DATA)).unwrap();
        assert_eq!(fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("sub/b")).unwrap().permissions().mode() & 0o777, 0o400);
        replace(&dir, &files(&[("a", "1", 0o644), ("sub/b", "2", 0o400)]), None).unwrap();
        assert_eq!(fs::read_link(dir.join(DATA)).unwrap(), first, "no change, no rename");
        replace(&dir, &files(&[("a", "3", 0o644), ("c", "4", 0o644)]), None).unwrap();
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        let mut names: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("..2"));
        names.sort();
        assert_eq!(names, ["..data", "a", "c"]);
        assert!(!dir.join(first).exists());
    }

    #[test]
    fn a_reader_never_sees_half_of_a_change() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("v");
        let version = |number: usize| files(&[("a", &number.to_string(), 0o644), ("b", &number.to_string(), 0o644)]);
        replace(&dir, &version(0), None).unwrap();
        let (reader_dir, over) = (dir.clone(), std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let stop = over.clone();
        let reader = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                // One look at the link is one version; what is gone meanwhile was an older one.
                let Ok(data) = fs::read_link(reader_dir.join(DATA)) else { panic!("the link is always there") };
                let read = |name: &str| fs::read_to_string(reader_dir.join(&data).join(name)).ok();
                if let (Some(a), Some(b)) = (read("a"), read("b")) {
                    assert_eq!(a, b);
                    seen.insert(a);
                }
            }
            seen.len()
        });
        for number in 1..300 {
            replace(&dir, &version(number), None).unwrap();
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "299");
    }

    #[test]
    fn paths_cannot_leave_the_volume() {
        let temp = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(replace(temp.path(), &files(&[(path, "1", 0o644)]), None).is_err(), "{path}");
        }
    }
}
