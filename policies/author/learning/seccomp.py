"""What was called as a seccomp profile: as the OCI's runtime-spec has it, and as the Security Profiles Operator does.

What it does not hold is refused; or a measurer is asked (docs/seccomp.md), whom the runtime hands its listener.

A profile is in force before the workload's first instruction, so that what a runtime calls until then has to be in it.
It says names only, as Docker's do: what io_uring is asked for passes no filter, and is not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestation.calls import COMPAT, OTHER, RING, TABLES, X32
from policies.author.learning.always import ALWAYS, LOADER, RUNTIME, CallSet, known
from policies.author.learning.learned import Learned

API_VERSION = "security-profiles-operator.x-k8s.io/v1beta1"
REFUSED, ALLOWED, ASKED = "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_NOTIFY"
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


def asking(learned: Learned, listener: str) -> dict[str, Any]:
    """The same, but that whatever else has a name is asked for. listener: the socket where a measurer waits for it.

    Each is named, for runtimes take no profile that asks by default; what has no name is refused.
    """
    made = profile(learned)
    allowed = {name for group in made["syscalls"] for name in group["names"]}
    others = {name for run in learned.runs for name in TABLES.get(run.machine, ())} - allowed
    groups = [*made["syscalls"], {"names": sorted(others), "action": ASKED}]
    return {**made, "syscalls": groups, "listenerPath": listener}


def filtered(learned: Learned) -> frozenset[str]:
    """What a filter lets through that no runtime puts a workload under: `RUNTIME` is not in it."""
    sets = (*ALWAYS, *([LOADER] if learned.unseen else []))
    return _named(learned).union(*(each.calls for each in sets))


def operators(name: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Such a profile as the Security Profiles Operator's."""
    return {
        "apiVersion": API_VERSION,
        "kind": "SeccompProfile",
        "metadata": {"name": name},
        "spec": dict(profile),
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
