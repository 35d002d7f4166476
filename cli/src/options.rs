//! What every command takes: which cluster, which namespace, which data directory. It only reads the environment.

use std::{env, path::PathBuf};

use clap::Args;

/// Options of all commands that talk to a cluster or to this machine's agent.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Path to the kubeconfig file [default: $KUBECONFIG, else DATA/kubeconfig]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig file to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace of the request
    #[arg(long, short = 'n', global = true, value_name = "NAME")]
    pub namespace: Option<String>,

    /// Where this machine's state is [default: /var/lib/coracle as root, else $XDG_DATA_HOME/coracle]
    #[arg(long, global = true, value_name = "DIR", env = "CORACLE_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Options {
    /// The data directory, given or by default.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(default_data_dir)
    }
}

fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/coracle");
    }
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
    // A user without a home has nothing better than the folder it is in.
    base.unwrap_or_default().join("coracle")
}
