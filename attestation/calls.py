"""System calls by name and number, and the layer of those that a workload made.

Numbers are those of Linux 6.18 (arch/x86/entry/syscalls/syscall_64.tbl, scripts/syscall.tbl).

Policies and evidence name calls, because numbers are an architecture's; a kernel counts by number.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from attestation import digests, strictjson
from attestation.capabilities import CAPABILITIES
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.plain import build

_X86_64 = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl
dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg
recvmsg shutdown bind listen getsockname getpeername socketpair setsockopt getsockopt clone fork vfork execve exit
wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync fdatasync truncate ftruncate
getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown
umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid
getppid getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid
setfsgid getsid capget capset rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod
uselib personality ustat statfs fstatfs sysfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler
sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall
munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot sync acct settimeofday
mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead
setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr
fremovexattr tkill time futex sched_setaffinity sched_getaffinity set_thread_area io_setup io_destroy io_getevents
io_submit io_cancel get_thread_area lookup_dcookie epoll_create epoll_ctl_old epoll_wait_old remap_file_pages
getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime timer_gettime
timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl
tgkill utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
mq_getsetattr kexec_load waitid add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch
inotify_rm_watch migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat
readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list get_robust_list splice tee sync_file_range
vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate timerfd_settime timerfd_gettime
accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo perf_event_open
recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom
memfd_create kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect
pkey_alloc pkey_free statx io_pgetevents rseq
"""
"""From 0 on."""
_ARM64 = """
io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr getcwd lookup_dcookie eventfd2 epoll_create1
epoll_ctl epoll_pwait dup dup3 fcntl inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get
flock mknodat mkdirat unlinkat symlinkat linkat renameat umount2 mount pivot_root nfsservctl statfs fstatfs truncate
ftruncate fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat fchown openat close vhangup pipe2 quotactl
getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll signalfd4 vmsplice
splice tee readlinkat newfstatat fstat sync fsync fdatasync sync_file_range timerfd_create timerfd_settime
timerfd_gettime utimensat acct capget capset personality exit exit_group waitid set_tid_address unshare futex
set_robust_list get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module timer_create
timer_gettime timer_getoverrun timer_settime timer_delete clock_settime clock_gettime clock_getres clock_nanosleep
syslog ptrace sched_setparam sched_setscheduler sched_getscheduler sched_getparam sched_setaffinity sched_getaffinity
sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval restart_syscall kill tkill tgkill
sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigreturn
setpriority getpriority reboot setregid setgid setreuid setuid setresuid getresuid setresgid getresgid setfsuid
setfsgid times setpgid getpgid getsid setsid getgroups setgroups uname sethostname setdomainname getrlimit setrlimit
getrusage umask prctl getcpu gettimeofday settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid
sysinfo mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget
semctl semtimedop semop shmget shmctl shmat shmdt socket socketpair bind listen accept connect getsockname getpeername
sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg readahead brk munmap mremap add_key request_key keyctl
clone execve mmap fadvise64 swapon swapoff mprotect msync mlock munlock mlockall munlockall mincore madvise
remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4
recvmmsg - - - - - - - - - - - - - - - - wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at
open_by_handle_at clock_adjtime syncfs setns sendmmsg process_vm_readv process_vm_writev kcmp finit_module
sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd membarrier mlock2
copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq kexec_file_load
"""
"""From 0 on; a line instead of a name where there is none."""
_BOTH = """
pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick
pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd
landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv
set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
open_tree_attr file_getattr file_setattr
"""
"""From 424 on, since when they are the same everywhere."""
_FIRST_OF_BOTH = 424

OTHER, X32, COMPAT = "unknown", "x32", "compat"
"""In place of a name: a number that has none here; any call by one of the older interfaces."""
AMONG_NUMBERS: Mapping[int, str] = MappingProxyType({509: OTHER, 510: X32, 511: COMPAT})
"""What the kernel's program counts in places of numbers that no call has (measurer/bpf/programs/watch.bpf.c)."""
_OPERATIONS = """
nop readv writev fsync read_fixed write_fixed poll_add poll_remove sync_file_range sendmsg recvmsg timeout
timeout_remove accept async_cancel link_timeout connect fallocate openat close files_update statx read write fadvise
madvise send recv openat2 epoll_ctl splice provide_buffers remove_buffers tee shutdown renameat unlinkat mkdirat
symlinkat linkat msg_ring fsetxattr setxattr fgetxattr getxattr socket uring_cmd send_zc sendmsg_zc read_multishot
waitid futex_wait futex_wake futex_waitv fixed_fd_install ftruncate bind listen recv_zc epoll_wait readv_fixed
writev_fixed pipe
"""
"""Of io_uring, from 0 on (linux/io_uring.h): they pass no call's entry."""
RING = "io_uring:"
"""Before the name of an operation."""


def _numbered(text: str, first: int = 0) -> dict[str, int]:
    return {name: number for number, name in enumerate(text.split(), first) if name != "-"}


def _table(own: str) -> Mapping[str, int]:
    return MappingProxyType({**_numbered(own), **_numbered(_BOTH, _FIRST_OF_BOTH)})


TABLES: Mapping[str, Mapping[str, int]] = MappingProxyType({"x86_64": _table(_X86_64), "aarch64": _table(_ARM64)})
"""Architecture, as uname(2) calls it -> name -> number."""
NAMES = frozenset(name for table in TABLES.values() for name in table)
"""Whatever may be named anywhere."""


def here() -> Mapping[str, int]:
    """Name -> number on this machine; nothing where its table is not known."""
    return TABLES.get(platform.machine(), MappingProxyType({}))


def operation(number: int) -> str:
    """Of io_uring: its name among those of calls."""
    return RING + (OPERATIONS[number] if number < len(OPERATIONS) else str(number))


class Watching(StrEnum):
    """How calls are looked at, least first."""

    LEAN = "lean"
    """No call as such, but what there is a rarer trace of: at no cost for what the machine does otherwise."""
    SAMPLED = "sampled"
    """Every call, for some seconds of each minute or so."""
    STRICT = "strict"
    """Every call."""


@dataclass(frozen=True, slots=True)
class CallsMade:
    """calls: names, sorted, since the instance began or what was outside of the baseline was last told anew. How often
    each was made is volatile, and stays outside. capabilities: those that were used and may not be, likewise; None
    where uses are not looked at (wire 1.8).
    """

    watching: Watching
    calls: tuple[str, ...] = ()
    capabilities: tuple[str, ...] | None = None


def well_formed(name: str) -> bool:
    """May it stand in a baseline?"""
    return name in NAMES or name in (OTHER, X32, COMPAT) or _OPERATION.fullmatch(name) is not None


def pack(made: CallsMade) -> bytes:
    """The canonical bytes."""
    told = {name: value for name, value in asdict(made).items() if value is not None}
    return json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


def unpack(body: bytes) -> CallsMade:
    """Raises MalformedEvidence for bytes that `pack` cannot have made."""
    try:
        made = build(CallsMade, strictjson.loads(body), where=_WHERE)
    except InvalidInput as error:
        raise MalformedEvidence("the calls do not parse", where=_WHERE) from error
    ordered, used = tuple(sorted(set(made.calls))), tuple(sorted(set(made.capabilities or ())))
    if made.calls != ordered or (made.capabilities or ()) != used or pack(made) != body:
        raise MalformedEvidence("the calls are not in their canonical form", where=_WHERE)
    if not all(map(well_formed, ordered)) or not set(used) <= set(CAPABILITIES):
        raise MalformedEvidence("the calls are not in their canonical form", where=_WHERE)
    return made


def digest(body: bytes) -> Digest:
    """The layer digest of packed calls."""
    return digests.tagged("layer/syscalls", body)


def names(numbers: Iterable[int], operations: int) -> tuple[str, ...]:
    """Sorted. operations: bits of io_uring's."""
    found = set(map(named(), numbers))
    found |= {operation(bit) for bit in range(64) if operations >> bit & 1}
    return tuple(sorted(found))


@cache
def named() -> Callable[[int], str]:
    """What a number of the kernel's program is called here. Made once: it is asked for with each call that is told."""
    known = {**{number: name for name, number in here().items()}, **AMONG_NUMBERS}
    return lambda number: known.get(number, OTHER)


@cache
def _numbers() -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Of calls and of io_uring's operations, by name."""
    return (
        {**here(), **{name: number for number, name in AMONG_NUMBERS.items()}},
        {operation(bit): bit for bit in range(64)},
    )


def numbers(listed: Iterable[str]) -> tuple[frozenset[int], int]:
    """`names` reversed, as far as there are such calls here: numbers, and bits of io_uring's operations."""
    known, operations = _numbers()
    wanted = set(listed)
    return (
        frozenset(known[name] for name in wanted if name in known),
        sum(1 << operations[name] for name in wanted if name in operations),
    )


OPERATIONS = tuple(_OPERATIONS.split())
_OPERATION = re.compile(rf"{RING}([a-z][a-z0-9_]{{0,31}}|[0-9]{{1,2}})")
_WHERE = "syscalls layer"
