//! Puts the plugin where the container runtime looks: links to our program among its plugins, and the list of plugins that
//! it reads. What is there already and right is left alone, so that the runtime does not read it again for nothing.

use std::{fs, io, os::unix::fs::symlink, path::Path};

use serde_json::json;

use super::{LOOPBACK_TYPE, PLUGIN_TYPE};

/// Runtimes take the first file by name.
const FILE: &str = "05-coracle.conflist";
/// The version of the list: what containerd 1.6 reads; newer ones read it too.
const VERSION: &str = "1.0.0";

/// Installs the plugin; it asks the agent at `socket`.
pub(crate) fn install(binaries: &Path, configuration: &Path, socket: &Path) -> io::Result<()> {
    let program = std::env::current_exe()?;
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
