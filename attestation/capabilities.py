"""Linux's capabilities (capabilities(7)), by name and by bit."""

from __future__ import annotations

from collections.abc import Iterable

_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
CAPABILITIES = tuple(f"CAP_{each}" for each in (*_CAPABILITIES, *range(len(_CAPABILITIES), 64)))
"""By bit, as linux/capability.h names them; one that it does not name yet is called by its number: CAP_41."""


def bits(names: Iterable[str]) -> int:
    """Of these. Raises ValueError for what is none."""
    return sum({1 << CAPABILITIES.index(each) for each in names})
