//! Files and output by WASI's own calls. Paths are absolute and are looked up in the directories the container was given.

use wasip2::cli::{stderr::get_stderr, stdout::get_stdout};
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip2::io::streams::OutputStream;

/// Largest file read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Writes a line to the standard output.
pub fn say(line: &str) {
    print(&get_stdout(), line);
}

/// Writes a line to the standard error.
pub fn say_error(line: &str) {
    print(&get_stderr(), line);
}

fn print(stream: &OutputStream, line: &str) {
    for chunk in format!("{line}\n").as_bytes().chunks(4096) {
        // Output that nobody takes is no reason to stop working.
        let _ = stream.blocking_write_and_flush(chunk);
    }
}

/// A file's contents; nothing where there is no such file.
pub fn read(path: &str) -> Result<Option<Vec<u8>>, String> {
    let Some((directory, rest)) = find(path) else { return Ok(None) };
    let flags = (OpenFlags::empty(), DescriptorFlags::READ);
    let file = match directory.open_at(PathFlags::SYMLINK_FOLLOW, &rest, flags.0, flags.1) {
        Ok(file) => file,
        Err(ErrorCode::NoEntry) => return Ok(None),
        Err(error) => return Err(format!("cannot open {path}: {error}")),
    };
    let mut bytes = Vec::new();
    loop {
        let at = bytes.len() as u64;
        let (chunk, end) = file.read(MAX_FILE_BYTES - at, at).map_err(|error| format!("cannot read {path}: {error}"))?;
        bytes.extend(chunk);
        if end || bytes.len() as u64 >= MAX_FILE_BYTES {
            return Ok(Some(bytes));
        }
    }
}

/// Replaces a file's contents.
pub fn write(path: &str, bytes: &[u8]) -> Result<(), String> {
    let Some((directory, rest)) = find(path) else { return Err(format!("{path} is in no volume")) };
    let flags = (OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE);
    let fail = |error: ErrorCode| format!("cannot write {path}: {error}");
    let file = directory.open_at(PathFlags::SYMLINK_FOLLOW, &rest, flags.0, flags.1).map_err(fail)?;
    let mut written = 0;
    while written < bytes.len() {
        written += file.write(&bytes[written..], written as u64).map_err(fail)? as usize;
    }
    Ok(())
}

/// The names in a directory, in order; none where it is missing. Names that start with a dot are the node's own book-keeping.
pub fn list(path: &str) -> Vec<String> {
    let mut names = Vec::new();
    let Some((directory, rest)) = find(path) else { return names };
    let flags = (OpenFlags::DIRECTORY, DescriptorFlags::READ);
    let Ok(directory) = directory.open_at(PathFlags::SYMLINK_FOLLOW, &rest, flags.0, flags.1) else { return names };
    let Ok(entries) = directory.read_directory() else { return names };
    while let Ok(Some(entry)) = entries.read_directory_entry() {
        if !entry.name.starts_with('.') {
            names.push(entry.name);
        }
    }
    names.sort();
    names
}

/// The directory that holds a path, the longest first, and the path within it.
fn find(path: &str) -> Option<(Descriptor, String)> {
    let mut directories = get_directories();
    directories.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
    directories.into_iter().find_map(|(directory, name)| {
        let rest = path.strip_prefix(name.trim_end_matches('/'))?;
        match rest.strip_prefix('/') {
            Some("") => Some((directory, ".".to_owned())),
            Some(rest) => Some((directory, rest.to_owned())),
            None => rest.is_empty().then(|| (directory, ".".to_owned())),
        }
    })
}
