//! `wasi:filesystem/preopens`, 0.2 and 0.3: the directories that a container shows to its guests. They are opened once, as a
//! mount is made once, and every instance gets a handle of the same ones. What a guest does in them is wasmtime's part.

use std::{fs::File, path::PathBuf, sync::Arc};

use rustix::fs::{Mode, OFlags};
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::{
    FsPerms, OpenMode, WasiView,
    filesystem::{Descriptor, Dir},
};

use crate::guest::{Guest, SetupError};

/// The interfaces that are replaced, in the versions that wasmtime's bindings define.
const INTERFACES: [&str; 2] = ["wasi:filesystem/preopens@0.2.12", "wasi:filesystem/preopens@0.3.0"];

/// Whether a guest may write in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryAccess {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// A directory of the host that a guest sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Where it is.
    pub host_path: PathBuf,
    /// Where the guest sees it.
    pub guest_path: String,
    /// What the guest may do there.
    pub access: DirectoryAccess,
}

/// Open directories, shared by a container's instances.
#[derive(Clone, Default)]
pub struct Directories {
    opened: Arc<[(Dir, String)]>,
}

impl Directories {
    /// Opens them; the first that cannot be opened is the error.
    pub fn open(directories: &[Directory]) -> Result<Self, SetupError> {
        let open = |directory: &Directory| match open(directory) {
            Ok(opened) => Ok((opened, directory.guest_path.clone())),
            Err(error) => Err(SetupError::Directory {
                path: directory.host_path.clone(),
                guest_path: directory.guest_path.clone(),
                message: std::io::Error::from(error).to_string(),
            }),
        };
        Ok(Self { opened: directories.iter().map(open).collect::<Result<_, _>>()? })
    }
}

fn open(directory: &Directory) -> rustix::io::Result<Dir> {
    // A path alone: reading the directory is a right that only what is opened in it needs.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(&directory.host_path, flags, Mode::empty())?);
    let (perms, mode) = match directory.access {
        DirectoryAccess::ReadOnly => (FsPerms::ReadOnly, OpenMode::READ),
        DirectoryAccess::ReadWrite => (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE),
    };
    // A guest's file access is not to hold up its neighbours.
    const ON_THIS_THREAD: bool = false;
    Ok(Dir::new(file, perms, mode, ON_THIS_THREAD))
}

/// Replaces both interfaces; the linker must hold wasmtime's and allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for interface in INTERFACES {
        linker.instance(interface)?.func_wrap("get-directories", |mut store, (): ()| {
            let opened = store.data().config.directories.opened.clone();
            let table = store.data_mut().ctx().table;
            let show = |(directory, path): &(Dir, String)| -> wasmtime::Result<(Resource<Descriptor>, String)> {
                Ok((table.push(Descriptor::Dir(directory.clone()))?, path.clone()))
            };
            Ok((opened.iter().map(show).collect::<wasmtime::Result<Vec<_>>>()?,))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let directory = |name: &str| Directory {
            host_path: folder.path().join(name),
            guest_path: "/data".into(),
            access: DirectoryAccess::ReadOnly,
        };
        assert!(Directories::open(&[directory("")]).is_ok());
        for (name, words) in [("file", "Not a directory"), ("missing", "No such file or directory")] {
            let Err(error) = Directories::open(&[directory(""), directory(name)]) else { panic!("{name} was opened") };
            let text = error.to_string();
            assert!(text.contains(name) && text.contains("/data") && text.contains(words), "{text}");
        }
    }
}
