//! `coracle check`: what this machine can and cannot do, and the command that mends it. It changes nothing.

mod probe;

use clap::Args;
use serde_json::json;

use crate::options::Options;

/// Says what this machine can do.
#[derive(Debug, Args)]
pub(crate) struct Check {
    /// json
    #[arg(long, short = 'o', value_name = "FORM", value_parser = ["json"])]
    output: Option<String>,

    /// The port the API is to listen on
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    port: u16,

    /// Where the container runtime listens
    #[arg(long, value_name = "SOCKET", default_value = "/run/containerd/containerd.sock")]
    cri_endpoint: std::path::PathBuf,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It is there.
    Fine,
    /// Something will not work; the rest will.
    Missing,
    /// Nothing will work.
    Blocking,
}

impl Weight {
    fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Missing => "missing",
            Self::Blocking => "blocked",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    weight: Weight,
    /// What was found.
    detail: String,
    /// What does not work without it, and the command that mends it.
    mend: Option<(&'static str, String)>,
}

impl Finding {
    fn fine(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, weight: Weight::Fine, detail: detail.into(), mend: None }
    }

    fn missing(
        what: &'static str,
        detail: impl Into<String>,
        without: &'static str,
        command: impl Into<String>,
    ) -> Self {
        Self { what, weight: Weight::Missing, detail: detail.into(), mend: Some((without, command.into())) }
    }

    fn blocking(self) -> Self {
        Self { weight: Weight::Blocking, ..self }
    }
}

impl Check {
    pub(crate) fn run(self, options: &Options) -> anyhow::Result<()> {
        let data_dir = options.data_dir();
        let findings = probe::all(&data_dir, self.port, &self.cri_endpoint);
        if self.output.is_some() {
            let list: Vec<_> = findings
                .iter()
                .map(|finding| {
                    let (without, command) = finding.mend.clone().unzip();
                    json!({"check": finding.what, "result": finding.weight.word(), "detail": finding.detail, "without": without, "command": command})
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&list)?);
        } else {
            print!("{}", text(&findings));
        }
        if findings.iter().any(|finding| finding.weight == Weight::Blocking) {
            return Err(crate::failure::AlreadySaid.into());
        }
        Ok(())
    }
}

fn text(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        out.push_str(&format!("{:<8} {:<16} {}\n", finding.weight.word(), finding.what, finding.detail));
        if let Some((without, command)) = &finding.mend {
            out.push_str(&format!("{:25} {without}\n{:25} mend: {command}\n", "", ""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Finding, Weight, text};

    #[test]
    fn what_is_missing_says_how_to_mend_it() {
        let findings = [
            Finding::fine("user", "root"),
            Finding::missing("nftables", "no nft", "Services have no virtual IPs", "apt-get install nftables"),
        ];
        assert_eq!(
            text(&findings),
            "ok       user             root\nmissing  nftables         no nft\n                          Services have no virtual IPs\n                          mend: apt-get install nftables\n"
        );
        assert_eq!(Finding::fine("x", "y").blocking().weight, Weight::Blocking);
    }
}
