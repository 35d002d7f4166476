//! What all measurements share: the cluster under test, the server's process, and where lines go.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    client::{Connection, Endpoint},
    probe::Probe,
    process::Process,
    report::{Line, Report},
};

/// A cluster under test.
pub(crate) struct Bench {
    pub(crate) endpoint: Endpoint,
    pub(crate) server: Option<Process>,
    /// Where profiles go, if they are wanted.
    pub(crate) profiles: Option<PathBuf>,
    pub(crate) report: Report,
}

impl Bench {
    /// Begins to measure what both sides use.
    pub(crate) fn probe(&self, name: &str) -> Result<Probe> {
        Probe::start(self.server, self.profiles.as_deref(), name)
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        self.endpoint.connect().await
    }

    pub(crate) fn emit(&mut self, line: Line) -> Result<()> {
        self.report.emit(line)
    }
}
