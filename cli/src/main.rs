//! shell: the `coracle` program: a cluster's server and the commands that talk to one. It reads the command line and hands on.

mod allocator;
mod apply;
mod check;
mod cluster;
mod create;
mod delete;
mod describe;
mod discovery;
mod failure;
mod get;
mod image;
mod logs;
mod manifest;
mod memory;
mod options;
mod output;
mod print;
mod rollout;
mod scale;
mod server;
mod target;
mod time;
mod version;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser, Subcommand};

use cluster::Cluster;
use options::Options;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// A small Kubernetes in one program.
#[derive(Debug, Parser)]
#[command(name = "coracle", version, max_term_width = 110, propagate_version = false)]
struct Line {
    #[command(flatten)]
    options: Options,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Server(server::Run),
    Get(get::Get),
    Apply(apply::Apply),
    Create(create::Create),
    Delete(delete::Delete),
    Describe(describe::Describe),
    Logs(logs::Logs),
    Scale(scale::Scale),
    Rollout(rollout::Rollout),
    Image(image::Image),
    Check(check::Check),
    /// Makes and removes the network of a pod: container runtimes run this program as a CNI plugin
    #[command(hide = true)]
    Cni,
    ApiResources(version::ApiResources),
    Version(version::Version),
    /// Writes a shell's completions to the standard output
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    // A container runtime runs this program as its network plugin, without arguments.
    if coracle_node::is_cni_plugin() && std::env::args_os().len() == 1 {
        return coracle_node::run_cni_plugin();
    }
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let bad_form =
                std::error::Error::source(&error).and_then(|source| source.downcast_ref::<output::BadForm>());
            if let Some(bad_form) = bad_form {
                let _ = writeln!(io::stderr(), "error: {bad_form}");
                return ExitCode::FAILURE;
            }
            // Help goes to the standard output and is no error.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    if matches!(line.command, Command::Cni) {
        return coracle_node::run_cni_plugin();
    }
    match run(line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = io::stdout().flush();
            if let Some(text) = failure::explain(&error) {
                let _ = writeln!(io::stderr(), "{text}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of the output went away, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

fn run(line: Line) -> anyhow::Result<()> {
    match line.command {
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Line::command(), "coracle", &mut io::stdout());
            Ok(())
        }
        Command::Check(check) => check.run(&line.options),
        Command::Server(server) => {
            tracing_subscriber::fmt()
                .with_env_filter(
                    tracing_subscriber::EnvFilter::try_from_env("CORACLE_LOG").unwrap_or_else(|_| "warn".into()),
                )
                .with_ansi(io::stderr().is_terminal())
                .with_writer(io::stderr)
                .init();
            let _ = rustls::crypto::ring::default_provider().install_default();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(server.run(&line.options))
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(client(command, &line.options))
        }
    }
}

/// The commands that talk to a cluster or an agent.
async fn client(command: Command, options: &Options) -> anyhow::Result<()> {
    let connect = || {
        // Needed once before the first connection; a second time it says that it is there.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Cluster::connect(options)
    };
    match command {
        Command::Get(get) => get.run(&connect().await?).await,
        Command::Apply(apply) => apply.run(&connect().await?).await,
        Command::Create(create) => create.run(&connect().await?).await,
        Command::Delete(delete) => delete.run(&connect().await?).await,
        Command::Describe(describe) => describe.run(&connect().await?).await,
        Command::Logs(logs) => logs.run(&connect().await?).await,
        Command::Scale(scale) => scale.run(&connect().await?).await,
        Command::Rollout(rollout) => rollout.run(&connect().await?).await,
        Command::ApiResources(resources) => resources.run(&connect().await?).await,
        Command::Version(version) => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            version.run(options).await
        }
        Command::Image(image) => image.run(options).await,
        Command::Check(_) | Command::Cni | Command::Completion { .. } | Command::Server(_) => {
            unreachable!("they need no client")
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::Line;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn lines_are_kubectls() {
        for line in [
            "get pods -A -o wide",
            "get po,svc -n x -l app=y",
            "get deploy/x -ojson",
            "get pods -w --show-labels",
            "get pods -o jsonpath={.items[*].metadata.name}",
            "get nodes --no-headers -o custom-columns=N:.metadata.name",
            "apply -f a.yaml -f b/ -R --dry-run=server",
            "apply -f -",
            "create -f x --save-config",
            "delete -f x --ignore-not-found",
            "delete pods --all --grace-period=0 --force",
            "delete pod x --wait=false --cascade=orphan",
            "delete pod x --timeout=30s",
            "logs -f x --tail=5 --since=1m -c y",
            "logs -l app=x --prefix --all-containers",
            "logs x --previous --timestamps",
            "scale deploy/x --replicas=3",
            "rollout status deploy/x --watch=false",
            "rollout undo deploy/x --to-revision=2",
            "rollout history deploy/x",
            "image import a.wasm --name x:v1",
            "image ls",
            "check",
            "completion bash",
            "version --client",
            "server --apply a.yaml --import hello:v1=a.wasm --port 0",
            "describe pod x",
            "describe node/x --show-events=false",
        ] {
            let words = std::iter::once("coracle").chain(line.split(' '));
            if let Err(error) = Line::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
        assert!(Line::try_parse_from(["coracle", "get", "--nonsense"]).is_err());
        assert!(Line::try_parse_from(["coracle", "scale", "deploy/x"]).is_err());
    }
}
