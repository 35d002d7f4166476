//! `wasi:cli/environment`, 0.2 and 0.3, from what the container's instances share: nothing of it is copied before a guest asks.

use wasmtime::component::Linker;

use crate::guest::Guest;

/// The interfaces that are replaced, in the versions that wasmtime's bindings define, and what each calls the directory.
const INTERFACES: [(&str, &str); 2] =
    [("wasi:cli/environment@0.2.12", "initial-cwd"), ("wasi:cli/environment@0.3.0", "get-initial-cwd")];

/// Replaces both interfaces; the linker must hold wasmtime's and allow shadowing.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for (interface, working_dir) in INTERFACES {
        let mut environment = linker.instance(interface)?;
        environment.func_wrap("get-environment", |store, (): ()| Ok((store.data().config.env.clone(),)))?;
        environment.func_wrap("get-arguments", |store, (): ()| Ok((store.data().config.args.clone(),)))?;
        environment.func_wrap(working_dir, |store, (): ()| Ok((store.data().config.working_dir.clone(),)))?;
    }
    Ok(())
}
