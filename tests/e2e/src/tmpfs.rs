//! A small disk of its own for a directory, gone when it is dropped.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run;

/// The file that takes up the room.
const FILLER: &str = "filler";

/// A mounted file system in memory.
#[derive(Debug)]
pub struct Tmpfs {
    path: PathBuf,
}

impl Tmpfs {
    /// Makes a directory and mounts so many MiB on it.
    ///
    /// # Errors
    /// Not root.
    pub fn mount(path: &Path, mebibytes: u32) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0700"), "tmpfs"]).arg(path);
        run(mount, None)?.ok().context("mount")?;
        Ok(Self { path: path.to_owned() })
    }

    /// Takes up all the room there is.
    ///
    /// # Errors
    /// The file cannot be written for another reason than that.
    pub fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.path.join(FILLER))?;
        // Small pieces at the end, so that nothing is left.
        for piece in [1 << 20, 4096] {
            let zeros = vec![0_u8; piece];
            loop {
                match file.write_all(&zeros) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// The file is gone.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.path.join(FILLER))?)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a server that is still ending may hold files.
        let mut umount = Command::new("umount");
        umount.arg("--lazy").arg(&self.path);
        if let Err(error) = run(umount, None).and_then(crate::Output::ok) {
            eprintln!("{} stays mounted: {error:#}", self.path.display());
        }
    }
}
