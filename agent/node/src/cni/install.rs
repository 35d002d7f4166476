//! Puts the plugin where the container runtime looks: links to our program among its plugins, and the list of plugins that
//! it reads. What is there already and right is left alone, so that the runtime does not read it again for nothing.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{LOOPBACK_TYPE, PLUGIN_TYPE};

/// Runtimes take the first file by name.
const FILE: &str = "05-coracle.conflist";
/// The version of the list: what containerd 1.6 reads; newer ones read it too.
const VERSION: &str = "1.0.0";

/// Installs the plugin; it asks the agent at `socket`.
///
/// # Errors
/// The files cannot be written, or the runtime's pods have a network already that is not ours: it would be taken from them.
pub(crate) fn install(binaries: &Path, configuration: &Path, socket: &Path) -> io::Result<()> {
    if let Some(other) = foreign(configuration)? {
        return Err(io::Error::other(format!(
            "the container runtime has another network ({}): remove that file if nothing uses it, or name a runtime of \
             Coracle's own with --cri-endpoint",
            configuration.join(other).display()
        )));
    }
    let program = program()?;
    fs::create_dir_all(binaries)?;
    link(&program, &binaries.join(PLUGIN_TYPE), Replace::Always)?;
    // Somebody's own loopback plugin does the same.
    link(&program, &binaries.join(LOOPBACK_TYPE), Replace::Broken)?;
    fs::create_dir_all(configuration)?;
    let list = json!({
        "cniVersion": VERSION,
        "name": "coracle",
        "plugins": [{"type": PLUGIN_TYPE, "socket": socket}],
    });
    let (text, path) = (format!("{list:#}\n"), configuration.join(FILE));
    if fs::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    // Renamed into place: the runtime reads whatever appears. Only names that end in `.conflist` count.
    let new = configuration.join(format!(".{FILE}.new"));
    fs::write(&new, text)?;
    fs::rename(&new, &path)
}

/// The first list or plugin, as runtimes read them, that is not ours.
fn foreign(configuration: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(configuration) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<String>>>()?;
    names.retain(|name| name != FILE && [".conf", ".conflist", ".json"].iter().any(|ending| name.ends_with(ending)));
    names.retain(|name| !name.starts_with('.'));
    names.sort_unstable();
    Ok(names.into_iter().next())
}

/// Our program's path. Of one that was replaced while it runs, the kernel says so behind the name.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    let text = path.to_string_lossy();
    Ok(text.strip_suffix(" (deleted)").map(PathBuf::from).filter(|path| path.exists()).unwrap_or(path))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    Always,
    /// Only a link to a program that is gone.
    Broken,
}

fn link(program: &Path, at: &Path, replace: Replace) -> io::Result<()> {
    if fs::read_link(at).is_ok_and(|target| target == program) || (replace == Replace::Broken && at.exists()) {
        return Ok(());
    }
    let mut new = at.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(program, &new)?;
    fs::rename(&new, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_network_is_not_taken_from_its_users() {
        let folder = tempfile::tempdir().unwrap();
        let (binaries, configuration) = (folder.path().join("bin"), folder.path().join("net.d"));
        fs::create_dir(&configuration).unwrap();
        for passed_over in ["README", ".10-old.conflist"] {
            fs::write(configuration.join(passed_over), "").unwrap();
        }
        install(&binaries, &configuration, Path::new("/data/cni.sock")).unwrap();
        fs::write(configuration.join("10-flannel.conflist"), "{}").unwrap();
        let refused = install(&binaries, &configuration, Path::new("/data/other.sock")).unwrap_err().to_string();
        assert!(refused.contains("10-flannel.conflist): remove that file"), "{refused}");
        let list = fs::read_to_string(configuration.join(FILE)).unwrap();
        assert!(list.contains("/data/cni.sock"), "what was there stays: {list}");
    }

    #[test]
    fn installing_again_changes_nothing_and_a_foreign_loopback_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (binaries, configuration) = (folder.path().join("bin"), folder.path().join("net.d"));
        let socket = Path::new("/data/cni.sock");
        install(&binaries, &configuration, socket).unwrap();
        let program = std::env::current_exe().unwrap();
        assert_eq!(fs::read_link(binaries.join("coracle")).unwrap(), program);
        assert_eq!(fs::read_link(binaries.join("loopback")).unwrap(), program);
        let list = configuration.join(FILE);
        let read: serde_json::Value = serde_json::from_str(&fs::read_to_string(&list).unwrap()).unwrap();
        assert_eq!(read["plugins"][0]["socket"], "/data/cni.sock");
        let written = fs::metadata(&list).unwrap().modified().unwrap();
        fs::remove_file(binaries.join("loopback")).unwrap();
        fs::write(binaries.join("loopback"), "somebody's").unwrap();
        install(&binaries, &configuration, socket).unwrap();
        assert_eq!(fs::metadata(&list).unwrap().modified().unwrap(), written);
        assert_eq!(fs::read_to_string(binaries.join("loopback")).unwrap(), "somebody's");
        assert_eq!(fs::read_dir(&configuration).unwrap().count(), 1);
    }
}
