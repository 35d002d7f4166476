//! Shows what a container sees, one order per argument, in order: `env`, `args`, `cwd`, `ls=PATH`, `cat=PATH`, `stat=PATH`,
//! `write=PATH:TEXT`, `rm=PATH`, `sleep=MS`. It ends with 1 when an order failed.

use wasip2::cli::environment::{get_arguments, get_environment, initial_cwd};
use wasip2::cli::{stderr::get_stderr, stdout::get_stdout};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip2::io::streams::OutputStream;

struct Inspect;

wasip2::cli::command::export!(Inspect);

impl wasip2::exports::cli::run::Guest for Inspect {
    fn run() -> Result<(), ()> {
        let mut result = Ok(());
        for order in get_arguments() {
            if let Err(problem) = obey(&order) {
                say(&get_stderr(), &format!("{order}: {problem}"));
                result = Err(());
            }
        }
        result
    }
}

fn obey(order: &str) -> Result<(), String> {
    let (word, value) = order.split_once('=').unwrap_or((order, ""));
    let out = get_stdout();
    match word {
        "env" => get_environment().iter().for_each(|(name, value)| say(&out, &format!("{name}={value}"))),
        "args" => get_arguments().iter().for_each(|arg| say(&out, arg)),
        "cwd" => say(&out, &initial_cwd().unwrap_or_else(|| "none".to_owned())),
        "ls" => list(value)?.iter().for_each(|name| say(&out, name)),
        "cat" => say(&out, &String::from_utf8_lossy(&read(value)?)),
        "stat" => {
            let stat = open(value, OpenFlags::empty(), DescriptorFlags::READ)?.stat().map_err(text)?;
            say(&out, &format!("{:?} {}", stat.type_, stat.size));
        }
        "write" => {
            let (path, text) = value.split_once(':').ok_or("wanted is PATH:TEXT")?;
            write(path, text)?;
        }
        "rm" => {
            let (directory, rest) = find(value)?;
            directory.unlink_file_at(&rest).map_err(text)?;
        }
        "sleep" => {
            let ms: u64 = value.parse().map_err(|_| "wanted is a number of milliseconds")?;
            subscribe_duration(ms * 1_000_000).block();
        }
        // The program's own name, where the command has one.
        _ => {}
    }
    Ok(())
}

fn list(path: &str) -> Result<Vec<String>, String> {
    let entries = open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ)?.read_directory().map_err(text)?;
    let mut names = Vec::new();
    while let Some(entry) = entries.read_directory_entry().map_err(text)? {
        names.push(entry.name);
    }
    names.sort();
    Ok(names)
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ)?;
    let mut bytes = Vec::new();
    loop {
        let (chunk, end) = file.read(64 * 1024, bytes.len() as u64).map_err(text)?;
        bytes.extend(chunk);
        if end {
            return Ok(bytes);
        }
    }
}

fn write(path: &str, contents: &str) -> Result<(), String> {
    let file = open(path, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE)?;
    let mut written = 0;
    while written < contents.len() {
        written += file.write(&contents.as_bytes()[written..], written as u64).map_err(text)? as usize;
    }
    Ok(())
}

fn open(path: &str, how: OpenFlags, access: DescriptorFlags) -> Result<Descriptor, String> {
    let (directory, rest) = find(path)?;
    directory.open_at(PathFlags::SYMLINK_FOLLOW, &rest, how, access).map_err(text)
}

/// The directory that holds a path, the longest first, and the path within it.
fn find(path: &str) -> Result<(Descriptor, String), String> {
    let mut directories = get_directories();
    directories.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
    let found = directories.into_iter().find_map(|(directory, name)| {
        let rest = path.strip_prefix(name.trim_end_matches('/'))?;
        if !rest.is_empty() && !rest.starts_with('/') {
            return None;
        }
        let rest = rest.trim_start_matches('/');
        Some((directory, if rest.is_empty() { ".".to_owned() } else { rest.to_owned() }))
    });
    found.ok_or_else(|| format!("{path} is in no directory of this container"))
}

fn text(error: ErrorCode) -> String {
    error.name().to_owned()
}

fn say(stream: &OutputStream, line: &str) {
    for chunk in format!("{line}\n").as_bytes().chunks(4096) {
        let _ = stream.blocking_write_and_flush(chunk);
    }
}
