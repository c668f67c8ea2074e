"""What is watched and how well, put together from what was tried."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from attestation.coverage import CollectorCoverage, Coverage, Cutting, Grade, Isolation
from attestation.layers import Layer
from measurer import kernel
from measurer.processes.proc import Rights, read_rights

_MEASURED = (Layer.FILES, Layer.PROCESSES)
_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


def coverage(
    collectors: tuple[CollectorCoverage, ...], cutting: Cutting, guards: bool, isolation: Isolation
) -> Coverage:
    """guards: an Envoy is guarded and the guardian has not fired."""
    closes = guards and cutting is not Cutting.CAPPED
    return Coverage(
        collectors=collectors,
        absent=tuple(layer for layer in Layer if layer not in _MEASURED),
        cutting=cutting,
        grade=Grade.CLOSED_BY_GUARDIAN if closes else Grade.BOUNDED_NEW_CONNECTIONS_ONLY,
        isolation=isolation,
    )


def isolation(non_dumpable: bool, workload: Iterable[int]) -> Isolation:
    """How hard it is for these processes to reach this one. What cannot be read counts as the worse."""
    ours = read_rights(os.getpid())
    theirs = [read[1] for pid in workload if (read := read_rights(pid)) is not None]
    if ours is None or not theirs:
        return Isolation(non_dumpable, False, True, True)
    return judge(non_dumpable, ours[1], theirs, yama_forbids())


def judge(non_dumpable: bool, ours: Rights, theirs: list[Rights], yama: bool) -> Isolation:
    """yama: Yama forbids attaching to a process that is no descendant (ptrace(2))."""
    shared = any(set(each.uids) & set(ours.uids) for each in theirs)
    return Isolation(
        non_dumpable=non_dumpable,
        distinct_user=not shared,
        workload_can_trace=any(_may_trace(each, ours) for each in theirs) or (shared and not yama),
        shared_pid_namespace=any(_namespace(each, "pid") in (_namespace(ours, "pid"), "") for each in theirs),
    )


def yama_forbids() -> bool:
    """Without the file there is no Yama, and the classic rules hold: the same user may attach."""
    try:
        return _YAMA.read_text().strip() != "0"
    except OSError:
        return False


def _may_trace(theirs: Rights, ours: Rights) -> bool:
    capable = bool(int(theirs.capabilities, 16) >> kernel.CAP_SYS_PTRACE & 1)
    return capable and _namespace(theirs, "user") in (_namespace(ours, "user"), "")


def _namespace(rights: Rights, kind: str) -> str:
    """The link of one namespace; empty when it could not be read."""
    for link in rights.namespaces:
        if link.startswith(kind + ":"):
            return "" if link.endswith(":unreadable") else link
    return ""
