"""What a service may call where nobody has watched it for long: written by hand, wider than what one of them calls.

`proofbeat policy learn` writes such a list from what a workload does (docs/learning.md). The demo's has to hold with
every build of Python and of the C library that somebody has, that of `up --acts` with any program, at the first try.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SETS = {
    "memory": "brk madvise membarrier mlock mmap mprotect mremap munmap",
    "files": """
        access close close_range dup dup2 dup3 faccessat faccessat2 fadvise64 fcntl flock fstat fstatfs getcwd
        getdents64 ioctl lseek lstat newfstatat open openat pread64 read readlink readlinkat readv stat statfs statx
        umask write writev
    """,
    "network": """
        accept accept4 bind connect epoll_create1 epoll_ctl epoll_pwait epoll_wait eventfd2 getpeername getsockname
        getsockopt listen pipe pipe2 poll ppoll pselect6 recvfrom recvmsg select sendmsg sendto setsockopt shutdown
        socket socketpair
    """,
    "processes": """
        arch_prctl capget clone clone3 execve exit exit_group fork getegid geteuid getgid getgroups getpgrp getpid
        getppid getresgid getresuid getsid gettid getuid kill pidfd_open pidfd_send_signal prctl prlimit64
        set_robust_list set_tid_address setgroups setpgid setresgid setresuid setsid tgkill vfork wait4 waitid
    """,
    "threads": "futex get_robust_list rseq sched_getaffinity sched_yield",
    "signals": """
        pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack
    """,
    "machine": """
        clock_getres clock_gettime clock_nanosleep getcpu getrandom getrlimit getrusage gettimeofday nanosleep sysinfo
        time timerfd_create timerfd_settime times uname
    """,
}
BASELINE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {name: tuple(sorted(calls.split())) for name, calls in _SETS.items()}
)
"""By set, as reference values have them."""
