"""Uses of capabilities: which are told, of which there are more than anybody meant, and by whom first."""

from __future__ import annotations

from attestation import calls
from attestation.capabilities import CAPABILITIES, bits
from measurer.bpf.watch import ALL_CAPABILITIES, Watched

ADMINISTERING = (
    *("acct", "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "fsetxattr", "fremovexattr", "ioctl"),
    *("kexec_file_load", "kexec_load", "keyctl", "lremovexattr", "lsetxattr", "mount", "mount_setattr", "move_mount"),
    *("open_tree", "open_tree_attr", "perf_event_open", "pivot_root", "prctl", "quotactl", "quotactl_fd"),
    *("removexattr", "removexattrat", "seccomp", "setdomainname", "sethostname", "setns", "setxattr", "setxattrat"),
    *("swapoff", "swapon", "syslog", "umount2", "unshare"),
)
"""Calls in which the use of CAP_SYS_ADMIN means something. The kernel asks for it in many others as well, whenever
memory is taken, and uses it for nothing there but to let root have the last of it."""


def administering() -> frozenset[int]:
    """Numbers of calls, those of the older interfaces included: whatever they are used for is told."""
    here = calls.here()
    older = (number for number, name in calls.AMONG_NUMBERS.items() if name != calls.OTHER)
    return frozenset((*(here[name] for name in ADMINISTERING if name in here), *older))


def watch(watched: Watched, allowed: tuple[str, ...] | None) -> None:
    """Tell of every use but of these; None: of none."""
    watched.allow_uses(ALL_CAPABILITIES if allowed is None else bits(allowed), administering())


def names(used: int) -> tuple[str, ...]:
    """Sorted."""
    return tuple(sorted(name for bit, name in enumerate(CAPABILITIES) if used >> bit & 1))
