//! `holdfast openapi`

use std::io::Write as _;

/// Writes the description of the API to standard output.
pub(crate) fn run() -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(holdfast_api::openapi::text().as_bytes())?)
}
