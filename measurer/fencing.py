"""The fence in the kernel, shared by all workloads of this measurer: there once, and only while somebody asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from measurer import kernel as k
from measurer.bpf.fence import Barrier, Fenced, Refusal
from measurer.loop import Loop
from measurer.scope import Pinned, top_group

_MOST_OF_ONE, _MOST_OF_MANY = 1, 512
_PASS = bytes.fromhex("b7000000010000009500000000000000")
"""r0 = 1; return r0 (bpf(2))."""


@dataclass(eq=False, slots=True)
class Raised:
    """Around one workload. own: what stands at its own control group, for it alone."""

    fenced: Fenced
    loop: Loop
    told: Callable[[Refusal], None]
    own: Barrier | None = None


class Fencing:
    """many: around several workloads. Raises nothing until somebody asks."""

    def __init__(self, loop: Loop, *, many: bool) -> None:
        self._loop, self._most = loop, _MOST_OF_MANY if many else _MOST_OF_ONE
        self._barrier: Barrier | None = None
        self._group: os.stat_result | None = None
        self._raised: dict[int, Raised] = {}

    def put_up(self, pinned: Pinned, loop: Loop, told: Callable[[Refusal], None]) -> Raised:
        """Around who is marked, or lives in the workload's own group where the kernel knows no marks; everything passes
        at first. Raises OSError where the kernel takes none.
        """
        try:
            return self._above(pinned, loop, told)
        except OSError:
            if not has_own_group(pinned):
                raise
        return self._at_its_own(pinned, loop, told)

    def take_down(self, raised: Raised) -> None:
        """The last one takes the programs along."""
        raised.fenced.end()
        if raised.own is not None:
            self._forget(raised.own)
            return
        del self._raised[raised.fenced.number]
        if self._barrier is not None and not self._raised:
            self._forget(self._barrier)
            self._barrier = None

    def lost(self, raised: Raised) -> int:
        """Refusals that could not be told, of whichever workload."""
        barrier = raised.own or self._barrier
        return barrier.lost if barrier is not None else 0

    def _above(self, pinned: Pinned, loop: Loop, told: Callable[[Refusal], None]) -> Raised:
        if len(self._raised) >= self._most:
            raise OSError(0, f"more than {self._most} workloads")
        raised = Raised(self._shared(pinned.cgroups).begin(), loop, told)
        self._raised[raised.fenced.number] = raised
        return raised

    def _shared(self, membership: bytes) -> Barrier:
        group = top_group(membership)
        try:
            status = os.fstat(group)
            if self._barrier is None:
                self._barrier, self._group = Barrier(group, self._most), status
                self._loop.watch(self._barrier.descriptor, self._read)
            elif self._group is not None and not os.path.samestat(status, self._group):
                raise OSError(0, "it lives below another group than the workload before it")
        finally:
            os.close(group)
        return self._barrier

    def _at_its_own(self, pinned: Pinned, loop: Loop, told: Callable[[Refusal], None]) -> Raised:
        barrier = Barrier(pinned.cgroup.folder if pinned.cgroup is not None else -1, 0)
        raised = Raised(barrier.begin(), loop, told, barrier)
        self._loop.watch(barrier.descriptor, lambda: _tell(barrier, {raised.fenced.number: raised}))
        return raised

    def _read(self) -> None:
        if self._barrier is not None:
            _tell(self._barrier, self._raised)

    def _forget(self, barrier: Barrier) -> None:
        self._loop.forget(barrier.descriptor)
        barrier.close()


def has_own_group(pinned: Pinned) -> bool:
    """Was it named by a control group of version 2, which we see?"""
    group = pinned.cgroup
    return group is not None and group.hierarchy == 0 and group.path != "/" and group.folder >= 0


def _tell(barrier: Barrier, raised: Mapping[int, Raised]) -> None:
    """What there is, to whom it is about."""
    for refusal in barrier.read():
        whose = raised.get(refusal.workload)
        if whose is not None:
            whose.loop.within(whose.told, refusal)


def trial(pinned: Pinned) -> None:
    """Whether the kernel would take one, without any that stands: by a program of two instructions. Raises OSError."""
    if not has_own_group(pinned):
        os.close(top_group(pinned.cgroups))
    program = k.bpf_load(_PASS, k.BPF_CGROUP_INET4_CONNECT, _TRIAL, k.BPF_PROG_TYPE_CGROUP_SOCK_ADDR)
    try:
        k.bpf_try_attaching(program, k.BPF_CGROUP_INET4_CONNECT)
    finally:
        os.close(program)


_TRIAL = b"proofbeat_trial"
