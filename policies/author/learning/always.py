"""Calls that a run misses by chance, and calls that others make in a program's name: sets of their own, each with why.

What a workload does rarely is what raises false alarms, and most of that its own kernel and C library do for it. In a
baseline stands of this only what reaches nothing beyond the process itself: no file, no program, no address, no other
process, no memory that becomes code. What does (mprotect, openat, execve, clone, tgkill by abort(3)) has to be seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attestation.calls import TABLES


@dataclass(frozen=True, slots=True)
class CallSet:
    """name: as reference values label it. why: for people, one sentence."""

    name: str
    why: str
    calls: frozenset[str]


def _set(name: str, why: str, calls: str) -> CallSet:
    return CallSet(name, why, frozenset(calls.split()))


ALWAYS = (
    _set(
        "always.kernel",
        "How the kernel ends a thread, lets a signal's handler return, and goes on with a call that was interrupted: "
        "it depends on the moment whether a run sees them.",
        "exit exit_group restart_syscall rt_sigreturn",
    ),
    _set(
        "always.clock",
        "The time is read without a call (vdso(7)) until the machine's clock source changes, as it does when a virtual "
        "machine moves.",
        "clock_getres clock_gettime getcpu gettimeofday time",
    ),
    _set(
        "always.memory",
        "Memory is grown and given back by how much is asked for at a time: its own, none of it made executable.",
        "brk madvise mremap munmap",
    ),
    _set(
        "always.threads",
        "What the C library does around locks, sleeps and the beginning and end of a thread, when threads get in each "
        "other's way.",
        "clock_nanosleep futex getpid getrandom gettid nanosleep rseq rt_sigprocmask sched_yield set_robust_list "
        "set_tid_address",
    ),
)
"""Of every baseline that is learned."""

RUNTIME = _set(
    "runtime",
    "What runc and crun call between the moment at which they put a container under its filter and the execution of "
    "its program: dropping privileges, closing descriptors, looking for the program, telling their parent.",
    "access capget capset chdir clone clone3 close close_range dup2 epoll_ctl epoll_pwait execve faccessat faccessat2 "
    "fchdir fchown fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpid getppid gettid getuid "
    "lseek mmap nanosleep newfstatat openat openat2 prctl pselect6 read readlinkat rt_sigaction rt_sigprocmask "
    "rt_sigreturn sched_yield setgid setgroups setresgid setresuid setuid sigaltstack statx tgkill umask write",
)
"""Of every seccomp profile, since it is in force before the workload is, and of no baseline: there nobody is watched
before the program runs."""

LOADER = _set(
    "loader",
    "What a program's loader and its C library (glibc, musl) call before the program's own first line.",
    "access arch_prctl brk close faccessat fstat futex getrandom ioctl mmap mprotect munmap newfstatat open openat "
    "pread64 prlimit64 read readlink readlinkat rseq rt_sigaction rt_sigprocmask set_robust_list set_tid_address "
    "writev",
)
"""Of a seccomp profile where nobody saw the program start, or it would never start under it. Of no baseline."""


def known(calls: Iterable[str], machines: Iterable[str]) -> frozenset[str]:
    """Those of them that one of these machines has. machines: as uname(2) calls them."""
    return frozenset(name for name in calls if any(name in TABLES.get(each, ()) for each in machines))
