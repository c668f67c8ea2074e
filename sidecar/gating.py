"""What the workload may execute, as the measurer's gate is told: the digests of the reference values, by policy."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable

from attestation.channel import Gate
from attestation.digests import Digest
from policies.model.policy import Demand
from sidecar.governing import Governed

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Gating:
    """order: hands it to the measurer, with a descriptor beside it that stays ours."""

    def __init__(self, order: Callable[[Gate, int | None], None]) -> None:
        self._order = order
        self._allowed: frozenset[Digest] | None = None

    def rule(self, governed: Governed) -> None:
        """By this from now on. Nothing is ordered that stands already."""
        before, self._allowed = self._allowed, allowed(governed)
        if self._allowed != before:
            self._send()

    def repeat(self) -> None:
        """To a measurer that was started anew and knows of nothing."""
        if self._allowed is not None:
            self._send()

    def _send(self) -> None:
        if self._allowed is None:
            self._order(Gate(stands=False), None)
            return
        descriptor = listed(self._allowed)
        try:
            self._order(Gate(stands=True), descriptor)
        finally:
            os.close(descriptor)


def allowed(governed: Governed) -> frozenset[Digest] | None:
    """Every digest that an executable may have, whatever its path, which is the workload's to choose. None: no gate."""
    if governed.policy.spec.gate is Demand.OFF:
        return None
    return frozenset(digest for each in governed.references.spec.executables.values() for digest in each)


def listed(digests: Iterable[Digest]) -> int:
    """A memfd of them that nobody can change any more, 32 bytes each."""
    descriptor = os.memfd_create("allowed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(b"".join(bytes.fromhex(each) for each in sorted(digests)))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor
