//! Links components to the host's interfaces and tells what kind of program each one is. It runs nothing.

use std::sync::OnceLock;

use coracle_engine::{CompiledCache, Engines, Registry};
use wasmtime::{
    Engine,
    component::{Component, InstancePre, Linker},
};
use wasmtime_wasi::{p2, p3};
use wasmtime_wasi_http::{handler::ProxyPre, p2::bindings::ProxyPre as ProxyPreP2, p3::bindings::ServicePre};

use crate::{environment, guest::Guest, name_lookup, preopens, shutdown, sockets_p3, tcp, udp};

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
    let optimized = linker(engines.optimized())?;
    let quick = OnceLock::new();
    let link_with = engines.clone();
    Ok(Registry::new(engines, cache, move |component| {
        if Engine::same(component.engine(), link_with.optimized()) {
            return link(&optimized, &component);
        }
        if quick.get().is_none() {
            // Made twice when two components are the first at once: the second is dropped.
            let _ = quick.set(linker(component.engine())?);
        }
        link(quick.get().expect("it was set above"), &component)
    }))
}

/// All the host's interfaces.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    p2::add_to_linker_async(&mut linker)?;
    p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    linker.allow_shadowing(true);
    tcp::add_to_linker(&mut linker)?;
    udp::add_to_linker(&mut linker)?;
    sockets_p3::add_to_linker(&mut linker)?;
    name_lookup::add_to_linker(&mut linker)?;
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
