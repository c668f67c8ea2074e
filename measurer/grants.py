"""Which workload a sidecar may have measured by the node's measurer. Pure.

The measurer tells names and digests of files, and what runs: nobody may learn that of somebody else's workload. A
sidecar is known by its user and its cgroup, both from the kernel, and a workload by its cgroup. By default a sidecar
may name what is in its own pod. A pod is the outermost cgroup that carries a pod's name: what is below it, a container
may be able to name as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from attestation import cgroups
from attestation.errors import InvalidInput

POD, ANY = "pod", "any"
_UUID = "[0-9a-f]{8}([-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}"
_KUBELETS = rf"(kubepods(-[a-z]+)?-)?pod({_UUID}|[0-9a-f]{{32}})(\.slice)?"
_PODMANS = r"(machine-)?libpod_pod_[0-9a-f]{64}(\.slice)?"
_POD = re.compile(f"{_KUBELETS}|{_PODMANS}")
"""A pod's cgroup as the kubelet names it, with either driver, static pods included; and as podman does."""
MEND = "Have the sidecar run in the workload's pod, or give the node's measurer another --allow for its user."


@dataclass(frozen=True, slots=True)
class Grant:
    """uid: whose sidecars. workloads: POD, ANY, or a cgroup in which, or below which, the workload has to live."""

    uid: int
    workloads: str = POD


def parse(text: str) -> Grant:
    """`UID`, `UID:pod`, `UID:any` or `UID:/cgroup`. Raises InvalidInput."""
    uid, _, workloads = text.partition(":")
    if not uid.isdigit() or int(uid) >= 1 << 32 or (workloads and not _is_scope(workloads)):
        raise InvalidInput(
            f"{text!r} grants nothing", where="--allow", mend="Write UID:pod, UID:any, or UID:/cgroup/of/the/workload."
        )
    return Grant(int(uid), workloads.rstrip("/") or POD if workloads != "/" else ANY)


def admits(grants: Iterable[Grant], uid: int) -> bool:
    """May this user's sidecars ask for anything?"""
    return any(each.uid == uid for each in grants)


def refusal(grants: Iterable[Grant], uid: int, sidecar: bytes, workload: bytes, scope: tuple[int, str] | None) -> str:
    """Why this sidecar may not have this workload measured; empty where it may.

    sidecar, workload: their /proc/PID/cgroup texts. scope: hierarchy and path of the cgroup that is to be measured;
    None for the tree below a process.
    """
    ours = [each.workloads for each in grants if each.uid == uid]
    theirs = cgroups.memberships(workload)
    if any(_covers(each, cgroups.memberships(sidecar), theirs, scope) for each in ours):
        return ""
    wanted = f"cgroup {scope[1]}" if scope is not None else "a workload"
    return f"user {uid} may not have {wanted} measured from where its sidecar runs: not {' nor '.join(ours) or POD}"


def pods(memberships: dict[int, str]) -> dict[int, str]:
    """Hierarchy -> the cgroup of the pod, for those in which there is one."""
    found = {}
    for hierarchy, path in memberships.items():
        parts = path.split("/")
        position = next((index for index, part in enumerate(parts) if _POD.fullmatch(part)), None)
        if position is not None:
            found[hierarchy] = "/".join(parts[: position + 1])
    return found


def _covers(granted: str, sidecar: dict[int, str], workload: dict[int, str], scope: tuple[int, str] | None) -> bool:
    if granted == ANY:
        return True
    if granted == POD:
        bounds = pods(sidecar)
    else:
        bounds = {each: granted for each, path in workload.items() if _below(path, granted)}
    if not bounds or not all(_below(workload.get(each, "/"), bound) for each, bound in bounds.items()):
        return False
    return scope is None or (scope[0] in bounds and _below(scope[1], bounds[scope[0]]))


def _below(path: str, bound: str) -> bool:
    return path == bound or path.startswith(bound + "/")


def _is_scope(text: str) -> bool:
    return text in (POD, ANY) or (text.startswith("/") and ".." not in text.split("/"))
