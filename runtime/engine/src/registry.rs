//! One compiled component for all who run it: keyed by digest, held as long as anybody holds it. Big components start on
//! quickly compiled code and are swapped to the optimized one when that is ready.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, component::Component};

use crate::{
    CompiledCache, EngineError, Engines, Tier,
    cache::{CacheKey, load_bytes},
    compile::Compiler,
};

/// From this size on a component is compiled twice, quickly first: Cranelift takes about a second for 2 MiB.
const QUICK_FIRST_FROM_BYTES: usize = 2 << 20;

/// SHA-256 of a component's bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ComponentDigest(Arc<str>);

impl ComponentDigest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let sum = Sha256::digest(bytes);
        Self(sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// Reads `sha256:HEX`.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("sha256:")?;
        let valid = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        valid.then(|| Self(hex.into()))
    }

    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl fmt::Debug for ComponentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

type Prepare<P> = dyn Fn(Component, Tier) -> wasmtime::Result<P> + Send + Sync;

/// Tells from a component's bytes which engine it is for: [`Tier::Optimized`] or [`Tier::Concurrent`].
type Choose = fn(&[u8]) -> Tier;

/// A component's bytes, and the engine on which it is to end up.
type Better = (Arc<[u8]>, Tier);

/// One digest's place in the registry. Its lock is held while the component is loaded, so that it is loaded once.
type Slot<P> = Arc<tokio::sync::Mutex<Weak<Shared<P>>>>;

/// Loads components and shares them. `P` is what the host makes of a compiled component: its linked form.
pub struct Registry<P> {
    engines: Engines,
    cache: Option<CompiledCache>,
    compiler: Compiler,
    choose: Choose,
    prepare: Arc<Prepare<P>>,
    slots: Mutex<HashMap<ComponentDigest, Slot<P>>>,
}

/// A loaded component. Hold it as long as instances are made of it.
pub struct Shared<P> {
    digest: ComponentDigest,
    current: ArcSwap<P>,
}

impl<P> Shared<P> {
    /// The component's digest.
    pub fn digest(&self) -> &ComponentDigest {
        &self.digest
    }

    /// The best form there is at this moment.
    pub fn current(&self) -> Arc<P> {
        self.current.load_full()
    }
}

impl<P> fmt::Debug for Shared<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl<P: Send + Sync + 'static> Registry<P> {
    /// A registry that keeps compiled forms in `cache`, if there is one, tells by `choose` which engine a component ends up
    /// on, and links components with `prepare`.
    pub fn new(
        engines: Engines,
        cache: Option<CompiledCache>,
        choose: Choose,
        prepare: impl Fn(Component, Tier) -> wasmtime::Result<P> + Send + Sync + 'static,
    ) -> Self {
        Self {
            engines,
            cache,
            compiler: Compiler::new(),
            choose,
            prepare: Arc::new(prepare),
            slots: Mutex::new(HashMap::new()),
        }
    }

    /// The engines behind it.
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// The component of this digest, whose bytes are in `path`. Compiles it only when nobody has it loaded and the cache
    /// does not hold it. Callers of one digest wait for one compilation; its caller going away does not stop the others.
    pub async fn load(&self, digest: &ComponentDigest, path: &Path) -> Result<Arc<Shared<P>>, EngineError> {
        let slot = self.slot(digest);
        let mut place = slot.lock().await;
        if let Some(shared) = place.upgrade() {
            return Ok(shared);
        }
        let (component, tier, wasm) = self.obtain(digest, path).await?;
        let prepared = (self.prepare)(component, tier).map_err(EngineError::Link)?;
        let shared = Arc::new(Shared { digest: digest.clone(), current: ArcSwap::from_pointee(prepared) });
        *place = Arc::downgrade(&shared);
        drop(place);
        if let Some((wasm, best)) = wasm {
            self.improve_later(&shared, wasm, best);
        }
        Ok(shared)
    }

    /// The digest's slot; slots of components that nobody holds are dropped on the way.
    fn slot(&self, digest: &ComponentDigest) -> Slot<P> {
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|place| place.strong_count() > 0)
        });
        slots.entry(digest.clone()).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Weak::new()))).clone()
    }

    /// Loads from the cache or compiles. The bytes come back when a better form is still to be made of them.
    async fn obtain(
        &self,
        digest: &ComponentDigest,
        path: &Path,
    ) -> Result<(Component, Tier, Option<Better>), EngineError> {
        if let Some(component) = self.cached(digest, Tier::Optimized).await {
            return Ok((component, Tier::Optimized, None));
        }
        let wasm = read(path.to_owned()).await?;
        let best = (self.choose)(&wasm);
        if best != Tier::Optimized
            && let Some(component) = self.cached(digest, best).await
        {
            return Ok((component, best, None));
        }
        if wasm.len() >= QUICK_FIRST_FROM_BYTES
            && let Some(engine) = self.engines.get(Tier::Quick)
        {
            let quick = match self.cached(digest, Tier::Quick).await {
                Some(component) => Ok(component),
                None => self.compile(engine, digest, Tier::Quick, wasm.clone()).await,
            };
            match quick {
                Ok(component) => return Ok((component, Tier::Quick, Some((wasm, best)))),
                // Winch lacks some of WebAssembly's proposals.
                Err(error) => tracing::debug!("{digest} is not for the quick compiler: {error}"),
            }
        }
        let component = self.compile(self.engine(best)?, digest, best, wasm).await?;
        Ok((component, best, None))
    }

    fn engine(&self, tier: Tier) -> Result<&Engine, EngineError> {
        let missing = || EngineError::Engine(wasmtime::Error::msg("this machine has no room for it"));
        self.engines.get(tier).ok_or_else(missing)
    }

    async fn cached(&self, digest: &ComponentDigest, tier: Tier) -> Option<Component> {
        let (cache, engine) = (self.cache.clone()?, self.engines.get(tier)?.clone());
        let key = CacheKey::new(digest, &engine, tier.file_suffix());
        tokio::task::spawn_blocking(move || cache.load(&engine, &key)).await.ok().flatten()
    }

    async fn compile(
        &self,
        engine: &Engine,
        digest: &ComponentDigest,
        tier: Tier,
        wasm: Arc<[u8]>,
    ) -> Result<Component, EngineError> {
        compile(&self.compiler, self.cache.clone(), engine, digest, tier, wasm).await
    }

    /// Compiles the optimized form in the background and swaps it in.
    fn improve_later(&self, shared: &Arc<Shared<P>>, wasm: Arc<[u8]>, best: Tier) {
        let (compiler, cache, prepare) = (self.compiler.clone(), self.cache.clone(), self.prepare.clone());
        let Some(engine) = self.engines.get(best).cloned() else { return };
        let (digest, shared) = (shared.digest.clone(), Arc::downgrade(shared));
        tokio::spawn(async move {
            let better = compile(&compiler, cache, &engine, &digest, best, wasm).await;
            match better.and_then(|component| prepare(component, best).map_err(EngineError::Link)) {
                Ok(better) => {
                    if let Some(shared) = shared.upgrade() {
                        shared.current.store(Arc::new(better));
                    }
                }
                Err(error) => tracing::warn!("{digest} stays on quickly compiled code: {error}"),
            }
        });
    }
}

/// Compiles, keeps the result on disk and loads it from there, so that its pages are the file's and can be evicted.
async fn compile(
    compiler: &Compiler,
    cache: Option<CompiledCache>,
    engine: &Engine,
    digest: &ComponentDigest,
    tier: Tier,
    wasm: Arc<[u8]>,
) -> Result<Component, EngineError> {
    let code = compiler.compile(engine, wasm).await?;
    let key = CacheKey::new(digest, engine, tier.file_suffix());
    let engine = engine.clone();
    let load = move || {
        if let Some(cache) = cache {
            match cache.store(&key, &code) {
                Ok(()) => {
                    if let Some(component) = cache.load(&engine, &key) {
                        return Ok(component);
                    }
                }
                Err(error) => tracing::warn!("the compiled form of a component cannot be kept on disk: {error}"),
            }
        }
        load_bytes(&engine, &code).map_err(EngineError::Compile)
    };
    tokio::task::spawn_blocking(load).await.map_err(|error| EngineError::CompilerStopped(error.to_string()))?
}

async fn read(path: PathBuf) -> Result<Arc<[u8]>, EngineError> {
    match tokio::fs::read(&path).await {
        Ok(bytes) => Ok(bytes.into()),
        Err(source) => Err(EngineError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{CacheLimits, EngineOptions};

    /// A small component with something else in front.
    fn wasm_with(custom: &str) -> Vec<u8> {
        let module = r#"(core module $m (func (export "f"))) (core instance (instantiate $m))"#;
        wat::parse_str(format!("(component {custom} {module})")).unwrap()
    }

    fn wasm() -> Vec<u8> {
        wasm_with("")
    }

    fn engines() -> Engines {
        Engines::new(&EngineOptions::with_memories(128)).unwrap()
    }

    #[tokio::test]
    async fn one_component_is_loaded_once_for_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        std::fs::write(&path, wasm()).unwrap();
        let digest = ComponentDigest::of(&wasm());
        let prepared = Arc::new(AtomicUsize::new(0));
        let count = prepared.clone();
        let cache = CompiledCache::open(folder.path().join("cache"), CacheLimits::default()).unwrap();
        let registry = Registry::new(
            engines(),
            Some(cache),
            |_| Tier::Optimized,
            move |component, _| {
                count.fetch_add(1, Ordering::SeqCst);
                Ok(component)
            },
        );
        let (first, second) = tokio::join!(registry.load(&digest, &path), registry.load(&digest, &path));
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(prepared.load(Ordering::SeqCst), 1);
        drop((first, second));

        // Nobody holds it now. The compiled form is on disk: the component's own bytes are not needed.
        std::fs::remove_file(&path).unwrap();
        registry.load(&digest, &path).await.unwrap();
        assert_eq!(prepared.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn errors_say_what_failed_and_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let digest = ComponentDigest::of(&wasm());
        let registry = Registry::new(engines(), None, |_| Tier::Optimized, |component, _| Ok(component));
        assert!(matches!(registry.load(&digest, &path).await, Err(EngineError::Read { .. })));
        let broken = wat::parse_str("(component (core module (func unreachable local.get 7)))").unwrap();
        std::fs::write(&path, broken).unwrap();
        let error = registry.load(&digest, &path).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot compile the component: "), "{error}");
        std::fs::write(&path, wasm()).unwrap();
        registry.load(&digest, &path).await.unwrap();
    }

    #[tokio::test]
    async fn a_big_component_starts_quickly_compiled_and_improves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big.wasm");
        let filler = "x".repeat(QUICK_FIRST_FROM_BYTES);
        std::fs::write(&path, wasm_with(&format!("(@custom \"filler\" \"{filler}\")"))).unwrap();
        let digest = ComponentDigest::of(b"big");
        let engines = engines();
        let registry = Registry::new(engines.clone(), None, |_| Tier::Optimized, |component, _| Ok(component));
        let shared = registry.load(&digest, &path).await.unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while !Engine::same(shared.current().engine(), engines.optimized()) {
            assert!(std::time::Instant::now() < deadline, "never swapped");
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn digests_are_parsed_strictly() {
        let digest = ComponentDigest::of(b"x");
        assert_eq!(ComponentDigest::parse(&digest.to_string()), Some(digest.clone()));
        for bad in ["", "sha256:", "sha256:12", digest.hex(), &format!("sha256:{}", digest.hex().to_uppercase())] {
            assert_eq!(ComponentDigest::parse(bad), None, "{bad}");
        }
    }
}
