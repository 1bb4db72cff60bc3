//! `holdfast sandbox-exec`

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

/// Arguments of the worker to itself.
#[derive(Args)]
pub(crate) struct Options {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Sets a sandbox up and ends as the tool in it ends.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let code = holdfast_worker::tools::python::sandbox_exec(&options.arguments).context("sandbox-exec")?;
    Ok(ExitCode::from(code))
}
