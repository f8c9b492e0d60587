//! Which system calls a sandbox has not.
//!
//! Namespaces alone leave open what is not in a namespace: other socket families, the kernel's own keyrings, and the ways by which
//! kernels are attacked from within (io_uring, bpf, userfaultfd, namespaces in namespaces).

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter, sock_filter,
};

use super::Broken;

/// Filters this process and all that it starts, for good.
pub(super) fn apply() -> Result<(), Broken> {
    let programs = programs().map_err(|error| Broken::Seccomp { error: error.into() })?;
    for program in programs {
        apply_filter(&program).map_err(|error| Broken::Seccomp { error })?;
    }
    Ok(())
}

fn programs() -> Result<Vec<BpfProgram>, BackendError> {
    let denied = DENIED.iter().chain(DENIED_HERE).map(|call| (*call, Vec::new()));
    let mut denied: BTreeMap<i64, Vec<SeccompRule>> = denied.collect();
    denied.insert(
        libc::SYS_clone,
        NAMESPACES.iter().map(|flag| argument_has(0, *flag)).collect::<Result<_, _>>()?,
    );
    denied.insert(
        libc::SYS_ioctl,
        IOCTLS.iter().map(|call| rule([argument_is(1, *call)?])).collect::<Result<_, _>>()?,
    );
    let absent = ABSENT.iter().map(|call| (*call, Vec::new())).collect();
    Ok(vec![
        filter(denied, libc::EPERM)?,
        filter(absent, libc::ENOSYS)?,
        // An errno of its own: a test can tell it from a kernel that lacks the family or wants a capability for it.
        filter(sockets()?, libc::EACCES)?,
        unknown(),
    ])
}

/// Nobody outside has business with these.
#[rustfmt::skip]
const DENIED: &[i64] = &[
    // The file system's shape
    libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_move_mount, libc::SYS_open_tree,
    libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick, libc::SYS_mount_setattr,
    // Since Linux 6.15: open_tree_attr
    467,
    // Other namespaces, and files that are not reached by a path
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_open_by_handle_at,
    // Other processes' memory and descriptors
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_process_madvise, libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // The kernel's own keys, programs, faults and counters
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_bpf, libc::SYS_userfaultfd,
    libc::SYS_perf_event_open, libc::SYS_fanotify_init, libc::SYS_syslog, libc::SYS_lookup_dcookie,
    // The machine
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load, libc::SYS_kexec_file_load,
    libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex, libc::SYS_sethostname,
    libc::SYS_setdomainname, libc::SYS_vhangup, libc::SYS_move_pages, libc::SYS_migrate_pages,
];

#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[i64] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[i64] = &[];

/// Programs have a way without these and take it when they hear that there is no such call. The flags of clone3 stand in memory,
/// where no filter can look.
const ABSENT: &[i64] =
    &[libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Putting words into a terminal's input, the console's selection, and line disciplines.
const IOCTLS: [u32; 3] = [0x5412, 0x541C, 0x5423];

/// The newest call that was judged (file_setattr, Linux 6.17). All architectures have given new calls the same numbers since 424.
const LAST_JUDGED: u32 = 469;

/// An internet socket of this type is a packet socket: so they were called before Linux 2.2.
const SOCK_PACKET: u32 = 10;

/// Unix and internet sockets, and netlink for what asks for the addresses of loopback; nothing else.
fn sockets() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let unix = libc::AF_UNIX.unsigned_abs();
    let families =
        [unix, libc::AF_INET.unsigned_abs(), libc::AF_INET6.unsigned_abs(), libc::AF_NETLINK.unsigned_abs()];
    let route = libc::NETLINK_ROUTE.unsigned_abs();
    let other_family: Vec<_> =
        families.iter().map(|family| argument_is_not(0, *family)).collect::<Result<_, _>>()?;
    let other_netlink = [argument_is(0, libc::AF_NETLINK.unsigned_abs())?, argument_is_not(2, route)?];
    let by_its_old_name = [argument_is(0, libc::AF_INET.unsigned_abs())?, type_is(1, SOCK_PACKET)?];
    Ok(BTreeMap::from([
        (
            libc::SYS_socket,
            vec![SeccompRule::new(other_family)?, rule(other_netlink)?, rule(by_its_old_name)?],
        ),
        (libc::SYS_socketpair, vec![rule([argument_is_not(0, unix)?])?]),
    ]))
}

/// Calls that are newer than this filter, and those of the x32 interface, whose numbers begin far above, do not exist.
fn unknown() -> BpfProgram {
    // Classic BPF, as in linux/filter.h: load the call's number; at or above the limit one answer, below it the other.
    const LOAD_WORD: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let answer = |answer: u32| sock_filter { code: RETURN, jt: 0, jf: 0, k: answer };
    vec![
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: LAST_JUDGED + 1 },
        answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        answer(libc::SECCOMP_RET_ALLOW),
    ]
}

/// All other calls pass. A call of another architecture (32 bit) ends the process.
fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.unsigned_abs()), architecture)?
        .try_into()
}

fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

// The kernel reads 32 bits of each of these arguments; comparing 64 would let the upper half hide the lower.

fn argument_is(index: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
}

fn argument_is_not(index: u8, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value.into())
}

/// A socket's type without its flags.
fn type_is(index: u8, kind: u32) -> Result<SeccompCondition, BackendError> {
    const TYPES: u64 = 0xf;
    let operator = SeccompCmpOp::MaskedEq(TYPES);
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, kind.into())
}

fn argument_has(index: u8, flag: i32) -> Result<SeccompRule, BackendError> {
    let flag = u64::from(flag.unsigned_abs());
    rule([SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?])
}
