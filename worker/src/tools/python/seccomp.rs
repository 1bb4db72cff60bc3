//! The system calls that are left to a tool.
//!
//! Two filters work together. The first lets through what is listed here and answers everything else as a kernel does
//! that does not know the call, so that libraries fall back on older calls and calls of future kernels are closed. The
//! second answers the calls that a tool may try with “operation not permitted”; of two answers the kernel takes the
//! stricter one.

use std::collections::BTreeMap;
use std::io;

use holdfast_shared::config::Network;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::confine::{Policy, Walls};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that concern only the process itself or what it has open.
const OWN: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_yield,
    libc::SYS_sendfile,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setitimer,
    libc::SYS_setrlimit,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_splice,
    libc::SYS_sysinfo,
    libc::SYS_tee,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls that name files. Mounts or Landlock decide about them.
const FILES: &[c_long] = &[
    libc::SYS_chdir,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchdir,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_truncate,
    libc::SYS_unlinkat,
];

/// Calls that change what is known of a file. Landlock does not decide about them, so there they stay closed.
const ATTRIBUTES: &[c_long] =
    &[libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown, libc::SYS_fchownat, libc::SYS_utimensat];

/// The older names of calls above, which only this architecture has.
#[cfg(target_arch = "x86_64")]
mod older {
    use libc::c_long;

    pub(super) const OWN: &[c_long] = &[
        libc::SYS_alarm,
        libc::SYS_arch_prctl,
        libc::SYS_dup2,
        libc::SYS_epoll_create,
        libc::SYS_epoll_wait,
        libc::SYS_eventfd,
        libc::SYS_getpgrp,
        libc::SYS_pause,
        libc::SYS_pipe,
        libc::SYS_poll,
        libc::SYS_select,
        libc::SYS_time,
    ];
    pub(super) const FILES: &[c_long] = &[
        libc::SYS_access,
        libc::SYS_creat,
        libc::SYS_link,
        libc::SYS_lstat,
        libc::SYS_mkdir,
        libc::SYS_open,
        libc::SYS_readlink,
        libc::SYS_rename,
        libc::SYS_rmdir,
        libc::SYS_stat,
        libc::SYS_symlink,
        libc::SYS_unlink,
    ];
    pub(super) const ATTRIBUTES: &[c_long] =
        &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes];
    pub(super) const FORKS: &[c_long] = &[libc::SYS_fork, libc::SYS_vfork];
}
#[cfg(not(target_arch = "x86_64"))]
mod older {
    use libc::c_long;

    pub(super) const OWN: &[c_long] = &[];
    pub(super) const FILES: &[c_long] = &[];
    pub(super) const ATTRIBUTES: &[c_long] = &[];
    pub(super) const FORKS: &[c_long] = &[];
}

/// Calls by which one program reaches another through the network.
const NETWORK: &[c_long] =
    &[libc::SYS_accept, libc::SYS_accept4, libc::SYS_bind, libc::SYS_connect, libc::SYS_listen, libc::SYS_socket];
/// More of them, which are only of use with addresses.
const NETWORK_BATCHES: &[c_long] = &[libc::SYS_recvmmsg, libc::SYS_sendmmsg];

/// Calls that reach for other processes or the machine, refused in words.
const FOREIGN: &[c_long] = &[
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setns,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_tkill,
    libc::SYS_umount2,
    libc::SYS_unshare,
];

/// Requests about a descriptor that change nothing for others; the rest of `ioctl` is closed.
#[allow(clippy::unnecessary_cast, reason = "the type of these differs between C libraries")]
const IOCTLS: &[u64] = &[
    libc::FIOCLEX as u64,
    libc::FIONBIO as u64,
    libc::FIONCLEX as u64,
    libc::FIONREAD as u64,
    libc::TCGETS as u64,
    libc::TIOCGWINSZ as u64,
];

/// Names of threads; the rest of `prctl` is closed, above all what would outlive the worker.
const PRCTLS: &[u64] = &[libc::PR_SET_NAME as u64, libc::PR_GET_NAME as u64, libc::PR_GET_DUMPABLE as u64];

/// Requests that let the kernel signal somebody.
const FCNTLS_REFUSED: &[u64] = &[libc::F_SETOWN as u64, 10 /* F_SETSIG */, 15 /* F_SETOWN_EX */];

/// Flags of a new thread, of which a new process has none.
const THREAD: u64 = libc::CLONE_THREAD as u64;
/// The bits of a socket's type that are not flags, and the types that can name another peer than their own.
const SOCKET_TYPE: u64 = 0xf;
const NOT_STREAMS: [u64; 4] =
    [libc::SOCK_DGRAM as u64, libc::SOCK_RAW as u64, libc::SOCK_RDM as u64, libc::SOCK_SEQPACKET as u64];

/// Puts the filters on this process, for good.
pub(super) fn apply(policy: &Policy) -> io::Result<()> {
    let pid = u64::from(std::process::id());
    let (refused, allowed) = filters(policy, pid).map_err(io::Error::other)?;
    seccompiler::apply_filter(&refused).map_err(io::Error::other)?;
    seccompiler::apply_filter(&allowed).map_err(io::Error::other)
}

fn filters(policy: &Policy, pid: u64) -> Result<(BpfProgram, BpfProgram), seccompiler::BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let refused = refused(policy, pid)?;
    let allowed = allowed(policy, &refused)?;
    let not_permitted = SeccompAction::Errno(libc::EPERM as u32);
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    Ok((
        SeccompFilter::new(refused, SeccompAction::Allow, not_permitted, architecture)?.try_into()?,
        SeccompFilter::new(allowed, unknown, SeccompAction::Allow, architecture)?.try_into()?,
    ))
}

fn refused(policy: &Policy, pid: u64) -> Result<Rules, seccompiler::BackendError> {
    let mut rules = Rules::new();
    for call in FOREIGN.iter().chain(older::FORKS) {
        rules.insert(*call, Vec::new());
    }
    rules.insert(libc::SYS_clone, vec![rule([(0, SeccompCmpOp::MaskedEq(THREAD), 0)])?]);
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![rule([(0, SeccompCmpOp::Ne, pid)])?]);
    }
    rules.insert(libc::SYS_prlimit64, vec![rule([(0, SeccompCmpOp::Ne, 0), (0, SeccompCmpOp::Ne, pid)])?]);
    let requests = FCNTLS_REFUSED.iter().map(|request| rule([(1, SeccompCmpOp::Eq, *request)]));
    rules.insert(libc::SYS_fcntl, requests.collect::<Result<_, _>>()?);
    // A pair of streams knows only itself; event loops wake themselves with one.
    let mut pairs = vec![rule([(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)])?];
    for kind in NOT_STREAMS {
        pairs.push(rule([(1, SeccompCmpOp::MaskedEq(SOCKET_TYPE), kind)])?);
    }
    rules.insert(libc::SYS_socketpair, pairs);
    match policy.network {
        Network::Deny => rules.extend(NETWORK.iter().map(|call| (*call, Vec::new()))),
        // Addresses of the internet, and nothing that is spoken on one machine only.
        Network::Allow => {
            let [v4, v6] = [libc::AF_INET, libc::AF_INET6].map(|family| (0, SeccompCmpOp::Ne, family as u64));
            rules.insert(libc::SYS_socket, vec![rule([v4, v6])?]);
        }
    }
    Ok(rules)
}

fn allowed(policy: &Policy, refused: &Rules) -> Result<Rules, seccompiler::BackendError> {
    let mut calls: Vec<c_long> = [OWN, FILES, older::OWN, older::FILES].concat();
    if policy.walls == Walls::Namespaces {
        calls.extend(ATTRIBUTES.iter().chain(older::ATTRIBUTES));
    }
    if policy.network == Network::Allow {
        calls.extend(NETWORK.iter().chain(NETWORK_BATCHES));
    }
    // The other filter decides about these.
    calls.extend(refused.keys());
    let mut rules: Rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    for (call, argument, values) in [(libc::SYS_ioctl, 1, IOCTLS), (libc::SYS_prctl, 0, PRCTLS)] {
        let listed = values.iter().map(|value| rule([(argument, SeccompCmpOp::Eq, *value)]));
        rules.insert(call, listed.collect::<Result<_, _>>()?);
    }
    Ok(rules)
}

/// Arguments, each of which has to compare like this. They are compared by their lower half, which is what the kernel
/// reads of them.
fn rule<const N: usize>(conditions: [(u8, SeccompCmpOp, u64); N]) -> Result<SeccompRule, seccompiler::BackendError> {
    let conditions = conditions
        .into_iter()
        .map(|(argument, operator, value)| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}
