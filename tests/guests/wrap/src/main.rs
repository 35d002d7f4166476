//! shell: `wrap CORE COMPONENT` makes a component of a core module that carries its own description. It links no adapter:
//! the guests speak WASI 0.2 themselves.

use anyhow::{Context as _, bail};
use wit_component::ComponentEncoder;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [core, component] = args.as_slice() else { bail!("usage: wrap CORE COMPONENT") };
    let module = std::fs::read(core).with_context(|| format!("cannot read {core}"))?;
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .with_context(|| format!("{core} does not describe itself"))?
        .encode()
        .with_context(|| format!("cannot make a component of {core}"))?;
    std::fs::write(component, bytes).with_context(|| format!("cannot write {component}"))
}
