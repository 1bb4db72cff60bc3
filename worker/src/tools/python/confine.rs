//! What `holdfast sandbox-exec` does, in processes of its own between the worker and the interpreter. Limits of a process
//! are set from inside it, so the program starts itself: once to watch over the sandbox, once more inside it to give up
//! rights and become the interpreter.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use holdfast_shared::config::Network;
use holdfast_shared::domain::limits::{PYTHON_FILES_BYTES, PYTHON_OPEN_FILES, PYTHON_THREADS};
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};

use super::seccomp;

/// The first argument of the process that watches.
pub(super) const SUPERVISE: &str = "supervise";
/// The first argument of the process that becomes the interpreter.
pub(super) const CONFINE: &str = "confine";

/// What the interpreter may not do any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Policy {
    /// Address space.
    pub(super) memory_bytes: u64,
    /// Processor time, a second line behind the worker's clock.
    pub(super) cpu_seconds: u64,
    /// Sockets.
    pub(super) network: Network,
    /// What keeps files and other processes away.
    pub(super) walls: Walls,
}

/// What keeps files and other processes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Walls {
    /// Namespaces, which exist already.
    Namespaces,
    /// Landlock: these can be read, nothing can be written.
    Landlock {
        /// Files, and directories with all that is in them.
        readable: Vec<PathBuf>,
    },
}

/// Carries `holdfast sandbox-exec ARGUMENTS` out and answers the code to exit with.
///
/// # Errors
/// The sandbox cannot be set up; nothing of the tool was executed.
pub fn sandbox_exec(arguments: &[OsString]) -> io::Result<u8> {
    let usage = || io::Error::other("only a worker uses this command");
    let (mode, rest) = arguments.split_first().ok_or_else(usage)?;
    if mode == SUPERVISE {
        let (program, arguments) = rest.split_first().ok_or_else(usage)?;
        supervise(Command::new(program).args(arguments))
    } else if mode == CONFINE {
        let [policy, program, arguments @ ..] = rest else { return Err(usage()) };
        let policy = serde_json::from_str(policy.to_str().ok_or_else(usage)?)?;
        Err(confine(&policy, Command::new(program).args(arguments)))
    } else {
        Err(usage())
    }
}

/// Runs the command and ends with it. Ends it, with all that came of it, as soon as the other end of standard input is
/// closed, which also happens when the worker is killed. Nothing of the sandbox outlives this process, no zombie either.
fn supervise(command: &mut Command) -> io::Result<u8> {
    // Signals that are meant for the worker's terminal or group do not come here.
    rustix::process::setsid()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut child = command.process_group(0).spawn().map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {error}", command.get_program().to_string_lossy()))
    })?;
    let group = Pid::from_child(&child);
    // The child is waited for only below, so that its number cannot belong to anybody else yet.
    let pidfd = rustix::process::pidfd_open(group, PidfdFlags::empty())?;
    let stdin = io::stdin();
    loop {
        let channel = stdin.as_fd();
        let mut watched = [PollFd::from_borrowed_fd(channel, PollFlags::empty()), PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut watched, None) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Whatever the reason, everything goes: what bubblewrap starts is in the same group.
    let _gone = rustix::process::kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Ok(code(status)),
        }
    }
}

/// The code of a status in the way of a shell: 128 and the signal's number, where a signal ended the process.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Gives up rights and becomes the interpreter. It returns only if that fails.
fn confine(policy: &Policy, command: &mut Command) -> io::Error {
    match give_up_rights(policy) {
        Ok(()) => command.exec(),
        Err(error) => error,
    }
}

fn give_up_rights(policy: &Policy) -> io::Result<()> {
    // The watching process has started this one; without it nobody would end the tool.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, PYTHON_FILES_BYTES),
        (Resource::Nofile, PYTHON_OPEN_FILES),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
    ] {
        limit(resource, most)?;
    }
    // At the lower limit comes a signal that tells the reason, at the upper one SIGKILL.
    let cpu = Rlimit { current: Some(policy.cpu_seconds), maximum: Some(policy.cpu_seconds.saturating_add(1)) };
    rustix::process::setrlimit(Resource::Cpu, cpu)?;
    match &policy.walls {
        // A user namespace of its own counts its own threads; without one the user's other processes would count.
        Walls::Namespaces => limit(Resource::Nproc, PYTHON_THREADS)?,
        Walls::Landlock { readable } => {
            drop_capabilities()?;
            wall_off(readable)?;
        }
    }
    limit(Resource::As, policy.memory_bytes)?;
    rustix::thread::set_no_new_privs(true)?;
    seccomp::apply(policy)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    // Not above what is allowed already.
    let most = rustix::process::getrlimit(resource).maximum.map_or(most, |maximum| maximum.min(most));
    rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    Ok(())
}

/// A worker that runs as root hands nothing of that on.
fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

fn wall_off(readable: &[PathBuf]) -> io::Result<()> {
    // Before the third version files could still be emptied.
    let needed = AccessFs::from_all(ABI::V3);
    let read = AccessFs::from_read(ABI::V3);
    let failed = |error: &dyn std::error::Error| io::Error::other(format!("Landlock: {error}"));
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(needed)
        .map_err(|error| failed(&error))?
        // What newer kernels can do besides is welcome, and not needed: seccomp refuses it too.
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .map_err(|error| failed(&error))?;
    for path in readable {
        let Ok(descriptor) = PathFd::new(path) else { continue };
        let access = if path.is_dir() { read } else { read & AccessFs::from_file(ABI::V3) };
        ruleset = ruleset.add_rule(PathBeneath::new(descriptor, access)).map_err(|error| failed(&error))?;
    }
    if let Ok(null) = PathFd::new("/dev/null") {
        let access = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        ruleset = ruleset.add_rule(PathBeneath::new(null, access)).map_err(|error| failed(&error))?;
    }
    ruleset.restrict_self().map_err(|error| failed(&error))?;
    Ok(())
}
