"""Where the workload runs, as detectors name it: by its control group, and by what settings add."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from attestation import cgroups
from attestation.detectors.alerts import Whereabouts
from attestation.detectors.fields import pod_uid_of
from sidecar.config import KnownAs, WorkloadSettings

_CONTAINER = re.compile(r"[0-9a-f]{64}", re.ASCII)
_POD = re.compile(r"pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})", re.ASCII)
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""PROC_PID_INIT_INO of linux/proc_ns.h: the machine's own."""


def whereabouts(workload: WorkloadSettings, known: KnownAs, *, of_the_node: bool) -> Whereabouts:
    """known: what settings say, which goes before what is found. of_the_node: by the node's measurer, which numbers
    processes as the machine does.
    """
    groups = [workload.cgroup] if workload.cgroup else _groups_of(workload.pid)
    container, pod_uid = named_by(groups)
    pids = of_the_node or _numbers_as_the_machine()
    return Whereabouts(
        container=known.container or container,
        pod_uid=pod_uid_of(known.pod_uid) or known.pod_uid or pod_uid,
        namespace=known.namespace,
        pod=known.pod,
        node=known.node or (os.uname().nodename if pids else ""),
        pids=pids,
    )


def named_by(groups: Iterable[str]) -> tuple[str, str]:
    """Container and pod in the paths of control groups, as containerd, CRI-O, Docker and Podman call them: the
    innermost container, and the pod around it. Empty where there is none.
    """
    container = pod = ""
    for group in groups:
        for step in group.split("/"):
            if (found := _CONTAINER.search(step)) is not None:
                container = found[0]
            if (of_pod := _POD.search(step)) is not None:
                pod = pod_uid_of(of_pod[1])
    return container, pod


def _groups_of(pid: int) -> list[str]:
    try:
        return list(cgroups.memberships(Path(f"/proc/{pid}/cgroup").read_bytes()).values())
    except OSError:
        return []


def _numbers_as_the_machine() -> bool:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PID_NAMESPACE
    except OSError:
        return False
