//! The layout holds: who uses whom, what pure crates may name, how files begin and how long they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// The most lines of a file without its tests.
const MAX_LINES: usize = 700;

fn metadata() -> Result<Metadata> {
    MetadataCommand::new().no_deps().exec().context("cargo metadata")
}

fn members(metadata: &Metadata) -> BTreeMap<String, &Package> {
    metadata.packages.iter().map(|p| (p.name.to_string(), p)).collect()
}

/// The folder of a package, from the root: `controlplane/api`.
fn folder(metadata: &Metadata, package: &Package) -> String {
    let root = metadata.workspace_root.as_std_path();
    let own = package.manifest_path.as_std_path().parent().unwrap_or(root);
    own.strip_prefix(root).unwrap_or(own).display().to_string()
}

fn library(package: &Package) -> PathBuf {
    package.manifest_path.as_std_path().with_file_name("src")
}

fn is_pure(package: &Package) -> Result<bool> {
    let root = library(package).join("lib.rs");
    if !root.exists() {
        return Ok(false);
    }
    Ok(fs::read_to_string(root)?.starts_with("//! pure:"))
}

/// What of ours a package uses outside its tests.
fn uses<'a>(package: &'a Package, members: &BTreeMap<String, &Package>) -> Vec<&'a str> {
    package
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal && members.contains_key(&d.name))
        .map(|d| d.name.as_str())
        .collect()
}

#[test]
fn crates_use_only_what_they_may() -> Result<()> {
    let metadata = metadata()?;
    let members = members(&metadata);
    let mut wrong = Vec::new();
    for (name, package) in &members {
        let own = folder(&metadata, package);
        let pure = is_pure(package)?;
        for used in uses(package, &members) {
            let target = members[used];
            let there = folder(&metadata, target);
            let mut refuse = |why: &str| wrong.push(format!("{name} uses {used}: {why}"));
            if own == "controlplane/api" {
                refuse("the API crate uses nothing of ours");
            }
            if pure && !is_pure(target)? {
                refuse("a pure crate uses pure crates only");
            }
            if own.starts_with("runtime/") && !there.starts_with("runtime/") {
                refuse("the runtime knows neither control plane nor agent");
            }
            let is_shared = there.starts_with("streaming/");
            if own.starts_with("controlplane/") && !there.starts_with("controlplane/") && !is_shared {
                refuse("the control plane knows no agent");
            }
            if own.starts_with("streaming/") && !is_shared {
                refuse("streaming knows nothing else of ours");
            }
            if own.starts_with("agent/") && there.starts_with("controlplane/") && there != "controlplane/api" {
                refuse("of the control plane an agent knows the API's types only");
            }
            if own == "cli" && there == "controlplane/store" {
                refuse("only the control plane touches the store");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn pure_crates_take_nothing_from_the_outside() -> Result<()> {
    const FORBIDDEN: [&str; 14] = [
        "tokio::",
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "Timestamp::now",
        "Zoned::now",
        "rand::rng()",
        "rand::random",
        "std::env::",
        "Mutex<",
        "RwLock<",
    ];
    let metadata = metadata()?;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        if !is_pure(package)? {
            continue;
        }
        for file in sources(&library(package)) {
            let text = fs::read_to_string(&file)?;
            for (number, line) in without_tests(&text).enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                if let Some(word) = FORBIDDEN.iter().find(|w| code.contains(**w)) {
                    wrong.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn files_begin_with_what_they_are_and_stay_short() -> Result<()> {
    let metadata = metadata()?;
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let root = library(package);
        for file in sources(&root) {
            let text = fs::read_to_string(&file)?;
            let shown = file.display();
            if !text.starts_with("//! ") {
                wrong.push(format!("{shown}: does not begin with what it is"));
            }
            let is_root = file.parent() == Some(root.as_path()) && file.file_name().is_some_and(|n| n == "lib.rs");
            if is_root && !(text.starts_with("//! pure: ") || text.starts_with("//! shell: ")) {
                wrong.push(format!("{shown}: does not say whether it is pure or a shell"));
            }
            let lines = without_tests(&text).count();
            if lines > MAX_LINES {
                wrong.push(format!("{shown}: {lines} lines"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn folders_have_names_that_say_something() -> Result<()> {
    const EMPTY_WORDS: [&str; 5] = ["utils", "util", "common", "helpers", "misc"];
    let metadata = metadata()?;
    let mut wrong = BTreeSet::new();
    for package in &metadata.packages {
        for file in sources(&library(package)) {
            let parts = file.with_extension("");
            if let Some(word) = parts.iter().filter_map(|p| p.to_str()).find(|p| EMPTY_WORDS.contains(p)) {
                wrong.insert(format!("{}: {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn every_kind_has_its_file_and_its_row() -> Result<()> {
    let metadata = metadata()?;
    let root = metadata.workspace_root.as_std_path().join("controlplane/api/src");
    let table = fs::read_to_string(root.join("kinds.rs"))?;
    let mut missing = Vec::new();
    let mut implemented = 0;
    for file in sources(&root.join("kinds")) {
        let text = fs::read_to_string(&file)?;
        for line in text.lines().filter_map(|l| l.strip_prefix("impl Resource for ")) {
            let name = line.split(|c: char| !c.is_alphanumeric() && c != ':').next().unwrap_or_default();
            let name = name.rsplit("::").next().unwrap_or_default();
            implemented += 1;
            if !table.contains(&format!("::{name}>()")) {
                missing.push(format!("{}: {name} has no row in the table", file.display()));
            }
        }
    }
    assert!(implemented > 30, "only {implemented} kinds found: the test looks in the wrong place");
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

/// The lines before the tests at the end of a file.
fn without_tests(text: &str) -> impl Iterator<Item = &str> {
    text.lines().take_while(|l| !l.starts_with("#[cfg(test)]\nmod") && *l != "mod tests {")
}

/// The sources below a folder, tests in files of their own apart.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return out };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "tests" {
                out.extend(sources(&path));
            }
        } else if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            out.push(path);
        }
    }
    out.sort();
    out
}
