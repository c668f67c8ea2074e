"""What was called as a seccomp profile: as the OCI's runtime-spec has it, and as the Security Profiles Operator does.

A profile is in force before the workload's first instruction, so that what a runtime calls until then has to be in it.
It says names only, as Docker's do: what io_uring is asked for passes no filter, and is not in it.
"""

from __future__ import annotations

from typing import Any

from attestation.calls import COMPAT, OTHER, RING, X32
from policies.author.learning.always import ALWAYS, LOADER, RUNTIME, CallSet, known
from policies.author.learning.learned import Learned

API_VERSION = "security-profiles-operator.x-k8s.io/v1beta1"
REFUSED, ALLOWED = "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW"
_ARCHITECTURES = {
    "x86_64": {"": "SCMP_ARCH_X86_64", COMPAT: "SCMP_ARCH_X86", X32: "SCMP_ARCH_X32"},
    "aarch64": {"": "SCMP_ARCH_AARCH64", COMPAT: "SCMP_ARCH_ARM"},
}
"""By machine, and for its older interfaces."""


def profile(learned: Learned) -> dict[str, Any]:
    """The OCI's. Each call stands once, in the first group that it belongs to: the workload's own come last."""
    machines = {run.machine for run in learned.runs}
    groups, listed = [], set[str]()
    for calls in (*(each.calls for each in groups_of(learned)), _named(learned)):
        names = sorted(known(calls, machines) - listed)
        listed.update(names)
        groups += [{"names": names, "action": ALLOWED}] if names else []
    return {"defaultAction": REFUSED, "architectures": architectures(learned), "syscalls": groups}


def operators(name: str, learned: Learned) -> dict[str, Any]:
    """The Security Profiles Operator's."""
    return {
        "apiVersion": API_VERSION,
        "kind": "SeccompProfile",
        "metadata": {"name": name},
        "spec": profile(learned),
    }


def groups_of(learned: Learned) -> tuple[CallSet, ...]:
    """What is in it beside what was seen."""
    return (RUNTIME, *ALWAYS, *([LOADER] if learned.unseen else []))


def architectures(learned: Learned) -> list[str]:
    """Of the machines that it was seen on; those of older interfaces where somebody called by one."""
    wanted = ("", *(each for each in (COMPAT, X32) if each in learned.called))
    known_here = (_ARCHITECTURES.get(run.machine, {}) for run in learned.runs)
    return sorted({each[interface] for each in known_here for interface in wanted if interface in each})


def _named(learned: Learned) -> frozenset[str]:
    return frozenset(each for each in learned.called if each not in (COMPAT, X32, OTHER) and not each.startswith(RING))
