//! The PyPI `kubernetes` package: one script of `python/` each, against a cluster of its own.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use coracle_e2e::Cluster;
use coracle_test_clients::python;

fn check(script: &str, flags: &[&str]) -> Result<()> {
    let mut cluster = Cluster::prepare()?;
    cluster.launch(flags)?;
    let printed = python(&cluster, script)?;
    // A script that leaves early says nothing.
    ensure!(printed.lines().last() == Some("all is well"), "{script}.py printed:\n{printed}");
    Ok(())
}

macro_rules! scripts {
    ($($name:ident $flags:expr),+ $(,)?) => {
        $(#[test]
        fn $name() -> Result<()> {
            check(stringify!($name), &$flags)
        })+

        /// The scripts that have a test.
        const SCRIPTS: &[&str] = &[$(stringify!($name)),+];
    };
}

scripts! {
    objects [],
    watches [],
    history ["--history", "1s"],
    manifests [],
    leader_election [],
    dynamic_client [],
    errors [],
    logs [],
    streams [],
    informers [],
}

#[test]
fn every_script_is_run() -> Result<()> {
    let folder = Cluster::file("tests/clients/python");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).context(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(script) = name.strip_suffix(".py") {
            found.insert(script.to_owned());
        }
    }
    let known: BTreeSet<String> = SCRIPTS.iter().map(|script| (*script).to_owned()).collect();
    ensure!(found == known, "there are {found:?}, run are {known:?}");
    Ok(())
}
