//! Writes `generated/` from the published definitions of the container runtime interface. `--check` changes nothing and
//! fails when the committed files differ.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const SOURCES: [&str; 5] =
    ["runtime.v1.proto", "events.v1.proto", "content.v1.proto", "images.v1.proto", "leases.v1.proto"];

fn main() -> Result<()> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument {other:?}: the only one is --check"),
    };
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = here.join("../generated");
    let made = std::env::temp_dir().join(format!("coracle-cri-{}", std::process::id()));
    fs::create_dir_all(&made)?;
    let outcome = generate(here, &made).and_then(|()| settle(&made, &committed, check));
    fs::remove_dir_all(&made)?;
    outcome
}

fn generate(here: &Path, out: &Path) -> Result<()> {
    let definitions = protox::compile(SOURCES, [here]).context("the definitions do not compile")?;
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(out)
        .disable_comments(["."])
        // Passwords must never reach a log.
        .skip_debug([".runtime.v1.AuthConfig", ".runtime.v1.PullImageRequest"])
        .compile_fds(definitions)
        .context("no code can be made of the definitions")
}

fn settle(made: &Path, committed: &Path, check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for entry in fs::read_dir(made)? {
        let file = entry?.file_name();
        let text = fs::read(made.join(&file))?;
        let target = committed.join(&file);
        if fs::read(&target).ok().as_ref() == Some(&text) {
            continue;
        }
        if check {
            stale.push(target.display().to_string());
        } else {
            fs::create_dir_all(committed)?;
            fs::write(&target, text)?;
        }
    }
    if stale.is_empty() { Ok(()) } else { bail!("not what the definitions give: {}", stale.join(", ")) }
}
