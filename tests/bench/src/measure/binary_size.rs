//! The size of the program, which is all that a machine needs to have.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::report::{Line, Report};

/// Measures a file.
pub(crate) fn run(report: &mut Report, program: &Path) -> Result<()> {
    let bytes = fs::metadata(program).with_context(|| format!("cannot read {}", program.display()))?.len();
    report.emit(Line::new("binary-size", bytes as f64 / 1e6, "MB").with("path", program.display().to_string()))
}
