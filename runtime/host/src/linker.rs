//! Links components to the host's interfaces and tells what kind of program each one is. It runs nothing.

use std::sync::OnceLock;

use coracle_engine::{CompiledCache, Engines, Registry, Tier};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::{handler::ProxyPre, p2::bindings::ProxyPre as ProxyPreP2, p3::bindings::ServicePre};

use crate::{descriptors, environment, guest::Guest, name_lookup, preopens, shutdown, sockets_p3, tcp, udp};

/// Loads programs; one compiled and linked form is shared by all who run it.
pub type ProgramRegistry = Registry<Program>;

/// What a component exports, and so how it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramKind {
    /// `wasi:cli/run`: runs once, to its end.
    Command,
    /// `wasi:http/incoming-handler` (0.2) or `wasi:http/handler` (0.3): serves requests.
    Http,
}

/// A linked component, ready to be instantiated.
pub struct Program {
    engine: Engine,
    handles_shutdown: HandlesShutdown,
    pub(crate) entry: Entry,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HandlesShutdown {
    Yes,
    No,
}

/// The linked form by what is called.
pub(crate) enum Entry {
    CommandP2(p2::bindings::CommandPre<Guest>),
    CommandP3(p3::bindings::CommandPre<Guest>),
    Http(ProxyPre<Guest>),
}

impl Program {
    /// How it is run.
    pub fn kind(&self) -> ProgramKind {
        match self.entry {
            Entry::CommandP2(_) | Entry::CommandP3(_) => ProgramKind::Command,
            Entry::Http(_) => ProgramKind::Http,
        }
    }

    /// Whether it listens to the request to end.
    pub fn handles_shutdown(&self) -> bool {
        self.handles_shutdown == HandlesShutdown::Yes
    }

    /// The engine its code was compiled for.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// A registry that links what it loads to the host's interfaces.
pub fn program_registry(engines: Engines, cache: Option<CompiledCache>) -> wasmtime::Result<ProgramRegistry> {
    let optimized = linker(engines.optimized(), Tier::Optimized)?;
    let (quick, concurrent) = (OnceLock::new(), OnceLock::new());
    Ok(Registry::new(engines, cache, tier, move |component, tier| {
        let made_later = match tier {
            Tier::Optimized => return link(&optimized, &component),
            Tier::Quick => &quick,
            Tier::Concurrent => &concurrent,
        };
        if made_later.get().is_none() {
            // Made twice when two components are the first at once: the second is dropped.
            let _ = made_later.set(linker(component.engine(), tier)?);
        }
        link(made_later.get().expect("it was set above"), &component)
    }))
}

/// What a component must do without on [`Tier::Optimized`].
const CONCURRENT_FEATURES: WasmFeatures = WasmFeatures::CM_ASYNC
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_THREADING)
    .union(WasmFeatures::CM_ERROR_CONTEXT);

/// How the imports of WASI 0.3 end, some of which have no asynchronous function.
const WASI_0_3: &str = "@0.3.";

/// The engine that a component is for. Only its types and the names of its imports are looked at, no code. What is no
/// component is left to the compiler, which says what is wrong with it.
fn tier(wasm: &[u8]) -> Tier {
    let all = WasmFeatures::all();
    let sequential = !imports_wasi_0_3(wasm) && is_valid(wasm, all.difference(CONCURRENT_FEATURES));
    if sequential || !is_valid(wasm, all) { Tier::Optimized } else { Tier::Concurrent }
}

fn imports_wasi_0_3(wasm: &[u8]) -> bool {
    Parser::new(0).parse_all(wasm).map_while(Result::ok).any(|payload| match payload {
        Payload::ComponentImportSection(imports) => {
            imports.into_iter().flatten().any(|import| import.name.name.contains(WASI_0_3))
        }
        _ => false,
    })
}

/// Whether everything but the code is valid with these features.
fn is_valid(wasm: &[u8], features: WasmFeatures) -> bool {
    let mut validator = Validator::new_with_features(features);
    Parser::new(0).parse_all(wasm).all(|payload| payload.is_ok_and(|payload| validator.payload(&payload).is_ok()))
}

/// The host's interfaces that the engine of a tier can offer.
pub(crate) fn linker(engine: &Engine, tier: Tier) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let concurrent = tier != Tier::Optimized;
    p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if concurrent {
        p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    linker.allow_shadowing(true);
    descriptors::add_p2_to_linker(&mut linker)?;
    tcp::add_to_linker(&mut linker)?;
    udp::add_to_linker(&mut linker)?;
    name_lookup::add_p2_to_linker(&mut linker)?;
    if concurrent {
        descriptors::add_p3_to_linker(&mut linker)?;
        sockets_p3::add_to_linker(&mut linker)?;
        name_lookup::add_p3_to_linker(&mut linker)?;
    }
    shutdown::add_to_linker(&mut linker)?;
    environment::add_to_linker(&mut linker)?;
    preopens::add_to_linker(&mut linker)?;
    Ok(linker)
}

pub(crate) fn link(linker: &Linker<Guest>, component: &Component) -> wasmtime::Result<Program> {
    let handles_shutdown = if shutdown::is_imported(component) { HandlesShutdown::Yes } else { HandlesShutdown::No };
    // A missing import says more than a missing export: it comes first.
    let pre = linker.instantiate_pre(component)?;
    let entry = entry(entry_export(component)?, pre)?;
    Ok(Program { engine: component.engine().clone(), handles_shutdown, entry })
}

/// The exports that can be run, the preferred one first.
const ENTRY_EXPORTS: [(Export, &str); 4] = [
    (Export::HttpP3, "wasi:http/handler@0.3"),
    (Export::HttpP2, "wasi:http/incoming-handler@0.2"),
    (Export::CommandP3, "wasi:cli/run@0.3"),
    (Export::CommandP2, "wasi:cli/run@0.2"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Export {
    HttpP3,
    HttpP2,
    CommandP3,
    CommandP2,
}

fn entry_export(component: &Component) -> wasmtime::Result<Export> {
    let ty = component.component_type();
    let names: Vec<&str> = ty.exports(component.engine()).map(|(name, _)| name).collect();
    let found = ENTRY_EXPORTS.into_iter().find(|(_, prefix)| {
        let next = |name: &str| {
            name.strip_prefix(prefix).map(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('-'))
        };
        names.iter().any(|name| next(name) == Some(true))
    });
    found.map(|(export, _)| export).ok_or_else(|| {
        let exports = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        wasmtime::format_err!(
            "the component has no entry point: it exports {exports}; \
             wanted is wasi:cli/run, wasi:http/incoming-handler (0.2) or wasi:http/handler (0.3)"
        )
    })
}

fn entry(export: Export, pre: InstancePre<Guest>) -> wasmtime::Result<Entry> {
    Ok(match export {
        Export::HttpP3 => Entry::Http(ProxyPre::P3(ServicePre::new(pre)?)),
        Export::HttpP2 => Entry::Http(ProxyPre::P2(ProxyPreP2::new(pre)?)),
        Export::CommandP3 => Entry::CommandP3(p3::bindings::CommandPre::new(pre)?),
        Export::CommandP2 => Entry::CommandP2(p2::bindings::CommandPre::new(pre)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_pays_for_concurrency_only_when_it_uses_it() {
        let guests = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/guests");
        for (path, expected) in [
            ("../../examples/hello/hello.wasm", Tier::Optimized),
            ("misbehave/misbehave.wasm", Tier::Optimized),
            ("p3-command/p3-command.wasm", Tier::Concurrent),
            ("p3-server/p3-server.wasm", Tier::Concurrent),
        ] {
            assert_eq!(tier(&std::fs::read(format!("{guests}/{path}")).unwrap()), expected, "{path}");
        }
        for not_a_component in [&b"(component)"[..], b"", b"\0asm\x0d\0\x01\0\xff"] {
            assert_eq!(tier(not_a_component), Tier::Optimized, "{not_a_component:?}");
        }
    }
}
