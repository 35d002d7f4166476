//! The compiled form of components on disk: one file per component digest and engine settings, with a checksum beside it.
//! A file that is torn, foreign or of another build is never loaded. The directory's size is bounded.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use crate::registry::ComponentDigest;

/// Bounds of the directory.
#[derive(Debug, Clone, Copy)]
pub struct CacheLimits {
    /// Most bytes of all files together.
    pub max_bytes: u64,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

/// A use is noted on a file at most this often: flash wears.
const NOTE_USE_EVERY: Duration = Duration::from_secs(24 * 3600);

/// The cache's directory. All methods block on the disk.
#[derive(Debug, Clone)]
pub struct CompiledCache {
    directory: PathBuf,
    limits: CacheLimits,
}

impl CompiledCache {
    /// Opens the directory, making it when it is missing, and clears what a crash left half-written.
    pub fn open(directory: impl Into<PathBuf>, limits: CacheLimits) -> io::Result<Self> {
        let directory = directory.into();
        fs::create_dir_all(&directory)?;
        restrict(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { directory, limits })
    }

    /// The component, when a sound file of it is there. A file that is not sound is removed.
    pub(crate) fn load(&self, engine: &Engine, key: &CacheKey) -> Option<Component> {
        let path = self.code_path(key);
        let code = fs::read(&path).ok()?;
        let sum = fs::read_to_string(self.sum_path(key)).unwrap_or_default();
        if sum != checksum(&code) {
            tracing::warn!("the compiled form {} is damaged: it is made again", path.display());
            self.remove(key);
            return None;
        }
        drop(code);
        match load_file(engine, &path) {
            Ok(component) => {
                note_use(&path);
                Some(component)
            }
            Err(error) => {
                tracing::info!("the compiled form {} cannot be used: {error:#}", path.display());
                self.remove(key);
                None
            }
        }
    }

    /// Keeps a compiled form. The checksum comes last: without it the code counts as torn.
    pub(crate) fn store(&self, key: &CacheKey, code: &[u8]) -> io::Result<()> {
        self.make_room(code.len() as u64)?;
        write_atomically(&self.code_path(key), code)?;
        write_atomically(&self.sum_path(key), checksum(code).as_bytes())
    }

    fn remove(&self, key: &CacheKey) {
        for path in [self.sum_path(key), self.code_path(key)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    fn code_path(&self, key: &CacheKey) -> PathBuf {
        self.directory.join(format!("{}.cwasm", key.0))
    }

    fn sum_path(&self, key: &CacheKey) -> PathBuf {
        self.directory.join(format!("{}.sum", key.0))
    }

    /// Removes the files used longest ago until `wanted` more bytes fit. A file in use stays mapped where it is used.
    fn make_room(&self, wanted: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "cwasm") {
                let meta = entry.metadata()?;
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files {
            if total.saturating_add(wanted) <= self.limits.max_bytes {
                break;
            }
            fs::remove_file(&path)?;
            let _ = fs::remove_file(path.with_extension("sum"));
            total -= bytes;
        }
        Ok(())
    }
}

/// Names a compiled form: which component, by which compiler, under which settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheKey(String);

impl CacheKey {
    pub(crate) fn new(digest: &ComponentDigest, engine: &Engine, compiler: &str) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(format!("{}.{compiler}.{:016x}", digest.hex(), hasher.finish()))
    }
}

fn checksum(code: &[u8]) -> String {
    let sum = Sha256::digest(code);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// Only the owner may write what is later run as code.
fn restrict(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

fn note_use(path: &Path) {
    let stale = fs::metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > NOTE_USE_EVERY));
    if stale && let Ok(file) = fs::File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

#[expect(unsafe_code, reason = "compiled code can only be loaded on trust")]
fn load_file(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by this program from its own compiler's output: its checksum has just been compared,
    // the directory is writable by its owner alone, and files in it are replaced by renaming, never changed in place.
    unsafe { Component::deserialize_file(engine, path) }
}

/// A component from a compiled form that this process has just made, where there is no disk to keep it on.
#[expect(unsafe_code, reason = "compiled code can only be loaded on trust")]
pub(crate) fn load_bytes(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` comes straight from `precompile_component` of this process.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EngineOptions, Engines};

    /// A small component.
    fn wasm() -> Vec<u8> {
        wat::parse_str(r#"(component (core module $m (func (export "f"))) (core instance (instantiate $m)))"#).unwrap()
    }

    fn setup() -> (Engines, CompiledCache, tempfile::TempDir, CacheKey, Vec<u8>) {
        let engines = Engines::new(&EngineOptions::with_memories(128)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cache = CompiledCache::open(folder.path(), CacheLimits::default()).unwrap();
        let key = CacheKey::new(&ComponentDigest::of(&wasm()), engines.optimized(), "cranelift");
        let code = engines.optimized().precompile_component(&wasm()).unwrap();
        (engines, cache, folder, key, code)
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let (engines, cache, _folder, key, code) = setup();
        assert!(cache.load(engines.optimized(), &key).is_none());
        cache.store(&key, &code).unwrap();
        assert!(cache.load(engines.optimized(), &key).is_some());
    }

    #[test]
    fn damaged_and_torn_files_are_refused_and_removed() {
        let (engines, cache, _folder, key, code) = setup();
        let damages: [fn(&CompiledCache, &CacheKey); 4] = [
            |cache, key| {
                let mut code = fs::read(cache.code_path(key)).unwrap();
                let middle = code.len() / 2;
                code[middle] ^= 1;
                fs::write(cache.code_path(key), code).unwrap();
            },
            |cache, key| {
                let code = fs::read(cache.code_path(key)).unwrap();
                fs::write(cache.code_path(key), &code[..code.len() / 2]).unwrap();
            },
            |cache, key| fs::remove_file(cache.sum_path(key)).unwrap(),
            |cache, key| {
                // Sound, but no compiled component at all.
                fs::write(cache.code_path(key), b"hello").unwrap();
                fs::write(cache.sum_path(key), checksum(b"hello")).unwrap();
            },
        ];
        for damage in damages {
            cache.store(&key, &code).unwrap();
            damage(&cache, &key);
            assert!(cache.load(engines.optimized(), &key).is_none());
            assert!(!cache.code_path(&key).exists());
        }
    }

    #[test]
    fn another_engine_s_code_is_refused() {
        let (engines, cache, _folder, key, code) = setup();
        cache.store(&key, &code).unwrap();
        let quick = engines.get(crate::Tier::Quick).unwrap();
        assert!(cache.load(quick, &key).is_none());
        let quick_key = CacheKey::new(&ComponentDigest::of(&wasm()), quick, "winch");
        assert_ne!(key, quick_key);
    }

    #[test]
    fn the_oldest_go_when_room_is_short() {
        let (_, cache, folder, _, _) = setup();
        let cache = CompiledCache { limits: CacheLimits { max_bytes: 250 }, ..cache };
        let keys: Vec<CacheKey> = ["a", "b", "c"].map(|name| CacheKey(name.to_owned())).into();
        for (age, key) in keys.iter().enumerate() {
            cache.store(key, &[0; 100]).unwrap();
            let file = fs::File::options().append(true).open(cache.code_path(key)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(age as u64)).unwrap();
        }
        assert!(!cache.code_path(&keys[0]).exists());
        assert!(cache.code_path(&keys[1]).exists() && cache.code_path(&keys[2]).exists());
        fs::write(folder.path().join("left.cwasm.tmp"), b"x").unwrap();
        CompiledCache::open(folder.path(), CacheLimits::default()).unwrap();
        assert!(!folder.path().join("left.cwasm.tmp").exists());
    }
}
