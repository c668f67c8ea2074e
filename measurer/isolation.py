"""How hard it is for the workload to reach us and the guarded Envoy. What cannot be read counts as the worse.

ptrace(2) says who may attach and read memory, capabilities(7) what else leads there, user_namespaces(7) whose
capabilities count.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from attestation.coverage import Isolation
from measurer import kernel
from measurer.processes.held import Held
from measurer.processes.proc import Rights, read_rights, read_small
from measurer.scope import alive

_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
Named = tuple[int, int]
"""Pid and pidfd."""
_MOST_LEVELS = 32  # the kernel's limit on nested user namespaces

READS_MEMORY = (
    1 << kernel.CAP_SYS_PTRACE
    | 1 << kernel.CAP_SYS_ADMIN
    | 1 << kernel.CAP_SYS_MODULE
    | 1 << kernel.CAP_SYS_RAWIO
    | 1 << kernel.CAP_PERFMON
)
BECOMES_ANYBODY = (
    READS_MEMORY
    | 1 << kernel.CAP_CHOWN
    | 1 << kernel.CAP_DAC_OVERRIDE
    | 1 << kernel.CAP_DAC_READ_SEARCH
    | 1 << kernel.CAP_FOWNER
    | 1 << kernel.CAP_SETUID
    | 1 << kernel.CAP_SETFCAP
    | 1 << kernel.CAP_MKNOD
)
"""Takes another user, reads the secrets in its files, or overwrites what it runs."""


@dataclass(frozen=True, slots=True)
class Ward:
    """A process that must not be reached: the sidecar, the measurer, Envoy."""

    rights: Rights
    dumpable: bool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A process of the workload. below: user namespaces (their links) that its own is proven to lie below.

    users: ranges (first, count) of our user ids that its user namespace maps.
    """

    rights: Rights
    below: frozenset[str] = frozenset()
    users: tuple[tuple[int, int], ...] = ()

    def powerful(self, ward: Ward, capabilities: int) -> bool:
        """Has it one of these, and does that count against the ward? Below the ward's user namespace it does not."""
        there = namespace(ward.rights, "user")
        return bool(self.rights.attainable & capabilities) and not (there and there in self.below)

    def shares_user(self, ward: Ward) -> bool:
        return bool(set(self.rights.uids) & set(ward.rights.uids))

    def becomes(self, ward: Ward) -> bool:
        mapped = any(first <= uid < first + count for uid in ward.rights.uids for first, count in self.users)
        return self.shares_user(ward) or mapped or self.powerful(ward, BECOMES_ANYBODY)

    def traces(self, ward: Ward, yama: bool) -> bool:
        return self.powerful(ward, READS_MEMORY) or (self.becomes(ward) and ward.dumpable and not yama)


def judge(ours: list[Ward | None], envoy: Ward | None, workload: list[Suspect], yama: bool) -> Isolation:
    """None: it could not be looked at. yama: Yama forbids attaching to a process that is no descendant."""
    us = [ward for ward in ours if ward is not None]
    if len(us) < len(ours) or not workload:
        return Isolation()
    shared = {namespace(ward.rights, "pid") for ward in us} | {""}
    return Isolation(
        non_dumpable=not any(ward.dumpable for ward in us),
        distinct_user=not any(each.shares_user(ward) for each in workload for ward in us),
        workload_can_trace=any(each.traces(ward, yama) for each in workload for ward in us),
        shared_pid_namespace=any(namespace(each.rights, "pid") in shared for each in workload),
        workload_can_become_us=any(each.becomes(ward) for each in workload for ward in us),
        envoy_non_dumpable=envoy is not None and not envoy.dumpable,
        envoy_distinct_user=envoy is not None and not any(each.shares_user(envoy) for each in workload),
        workload_can_trace_envoy=envoy is None or any(each.traces(envoy, yama) for each in workload),
    )


def look(ours: tuple[Named, ...], envoy: Named | None, workload: Iterable[Held]) -> Isolation:
    """ours: the sidecar and ourselves."""
    wards = [_ward(*each) for each in ours]
    guarded = _ward(*envoy) if envoy is not None else None
    targets = {namespace(ward.rights, "user") for ward in (*wards, guarded) if ward is not None} - {""}
    suspects = [_suspect(each, rights, targets) for each in workload if (rights := each.rights()) is not None]
    return judge(wards, guarded, suspects, yama_forbids())


def yama_forbids() -> bool:
    """Without the file there is no Yama, and the classic rules hold: the same user may attach."""
    try:
        return _YAMA.read_text().strip() != "0"
    except OSError:
        return False


def namespace(rights: Rights, kind: str) -> str:
    """The link of one namespace; empty when it could not be read."""
    for link in rights.namespaces:
        if link.startswith(kind + ":"):
            return "" if link.endswith(":unreadable") else link
    return ""


def _ward(pid: int, pidfd: int) -> Ward | None:
    rights = read_rights(pid)
    if rights is None:
        return None
    told = kernel.dumpable(pidfd)
    ward = Ward(rights, told if told is not None else _owner_may_dump(pid, rights))
    return ward if alive(pidfd) else None


def _owner_may_dump(pid: int, rights: Rights) -> bool:
    """Before Linux 6.16: what is non-dumpable belongs to root below /proc (proc(5)). Of root's own nothing shows."""
    try:
        return Path(f"/proc/{pid}/mem").stat().st_uid == rights.uids[1]
    except OSError:
        return True


def _suspect(process: Held, rights: Rights, targets: set[str]) -> Suspect:
    if namespace(rights, "user") in targets:
        return Suspect(rights)
    above = _above(process)
    return Suspect(rights, frozenset(targets & above), _users(process) if above else ())


def _above(process: Held) -> frozenset[str]:
    """Links of the user namespaces around that of a process, as far as we may see."""
    found: set[str] = set()
    here = process.read(lambda folder: os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder))
    if here is None:
        return frozenset()
    for _ in range(_MOST_LEVELS):
        try:
            around = kernel.parent_namespace(here)
        except OSError:
            break
        finally:
            os.close(here)
        here = around
        found.add(f"user:[{os.fstat(here).st_ino}]")
    else:
        os.close(here)
    return frozenset(found)


def _users(process: Held) -> tuple[tuple[int, int], ...]:
    """The second and third column of uid_map: which of our users exist in there (user_namespaces(7))."""
    text = process.read(lambda folder: read_small(folder, "uid_map"))
    if text is None:
        return ((0, 1 << 32),)
    return tuple((int(first), int(count)) for _, first, count in (line.split() for line in text.splitlines()))
