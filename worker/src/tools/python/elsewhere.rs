//! Where there is no Linux there is no sandbox.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use holdfast_shared::config::PythonSettings;

use super::SandboxLevel;
use super::execution::{End, Sent};

const WHY: &str = "Python tools are executed on Linux only; run a worker there";

/// There is none.
#[derive(Debug)]
pub(super) enum Sandbox {}

impl Sandbox {
    pub(super) async fn candidates(_: &PythonSettings, _: PathBuf) -> Result<Vec<(SandboxLevel, Self)>, String> {
        Err(WHY.to_owned())
    }

    pub(super) async fn call(&self, _: &[u8], _: Duration, _: usize) -> io::Result<(End, Sent)> {
        match *self {}
    }
}

/// Refuses.
///
/// # Errors
/// Always.
pub fn sandbox_exec(_: &[OsString]) -> io::Result<u8> {
    Err(io::Error::other(WHY))
}
