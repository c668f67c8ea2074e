"""A running workload under the measurer's own eyes: what is stated of it is what will be measured.

What is told meanwhile goes to whoever listens (`heard`), as facts; what is there is measured when it is asked for.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from attestation import calls, manifest, memory, processes
from attestation.channel import Calls, Fault, Measure, Message, Observed, Pinned, Scope
from attestation.channel import Covered as CoverageTold
from attestation.coverage import CALLS, Coverage
from attestation.digests import Digest
from attestation.errors import Unavailable
from attestation.facts import Fact, InstanceFact
from attestation.layers import Layer
from policies.appraise.projected import by_stable_names
from policies.author.learning.outcome import references
from policies.author.learning.watched import Measured, Subject, Watched
from policies.model.memory import PERIOD
from policies.model.references import FileReference, ReferenceValues
from sidecar.measurement import Measurer, spawn

WITHIN_SECONDS = 60.0
SILENCE_SECONDS = 86_400.0
"""No Envoy is closed when nothing is heard of us: there is none."""


class Study:
    """scope: who is looked at, and how. projected: patterns of projected volumes, whose files are stated by their
    stable names. over: set when its first process has ended, unless its cgroup is its scope: then it may come again.
    """

    def __init__(self, scope: Scope, projected: tuple[str, ...] = ()) -> None:
        self.heard: Callable[[Fact], None] = lambda _: None
        self.over = asyncio.Event()
        self.coverage: Coverage | None = None
        self._scope, self._projected = scope, projected
        self._layers = _layers(scope)
        self._bodies: dict[Layer, bytes] = {}
        self._due: dict[Layer, float] = {}
        self._failed: Exception | None = None
        self._measured: asyncio.Future[None] | None = None
        self._pinned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measurer = Measurer(self._take, lambda reason: self._fail(Unavailable(reason, where="measurer")))

    @property
    def where(self) -> str:
        return f"pid {self._scope.pid}"

    @property
    def lost(self) -> int:
        """Things that the kernel had no room to tell."""
        return sum(each.lost for each in self.coverage.collectors) if self.coverage is not None else 0

    async def measure(self, *layers: Layer, full: bool = True) -> Measured:
        """What is there from now on; of these layers, or of all. full: read again, and told anew.

        Raises Unavailable, or what cannot be done.
        """
        wanted = tuple(each for each in self._layers if not layers or each in layers)
        if not wanted:
            return Measured()
        if self._failed is not None:
            raise self._failed
        not_before = boottime()
        self._due = dict.fromkeys(wanted, not_before)
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                await self._pinned
                if self._failed is not None:  # it was told meanwhile
                    raise self._failed
                self._measured = asyncio.get_running_loop().create_future()
                self._measurer.send(Measure(wanted, not_before, full))
                await self._measured
        except TimeoutError as error:
            raise Unavailable(f"no measurement within {WITHIN_SECONDS:g} s", where=self.where) from error
        return self._found({layer: self._bodies[layer] for layer in wanted if layer in self._bodies})

    def begin(self) -> None:
        self._measurer.start(asyncio.get_running_loop(), spawn())
        self._measurer.send(self._scope)

    def end(self) -> None:
        self._measurer.stop()

    def _take(self, message: Message, body: bytes | None) -> None:
        match message:
            case Pinned():
                _settle(self._pinned, None)
            case CoverageTold(coverage):
                self._covered(coverage)
            case Observed(observation):
                if body is not None:
                    self._bodies[observation.layer] = body
                if observation.began >= self._due.get(observation.layer, float("inf")):
                    del self._due[observation.layer]
                if not self._due and self._measured is not None:
                    _settle(self._measured, None)
            case Fault(what, where, mend):
                self._fail(Unavailable(what, where=where, mend=mend))
            case _ if isinstance(message, Fact):
                if isinstance(message, InstanceFact) and not self._scope.cgroup:
                    self.over.set()
                self.heard(message)

    def _covered(self, coverage: Coverage) -> None:
        self.coverage = coverage
        refused = next((each for each in coverage.collectors if each.name == CALLS and not each.running), None)
        if refused is not None:
            self._fail(
                Unavailable(
                    f"its system calls cannot be watched: {refused.detail}",
                    where=self.where,
                    mend="Run this as root, or with CAP_BPF and CAP_PERFMON; `proofbeat doctor` says what is missing.",
                )
            )

    def _found(self, said: Mapping[Layer, bytes]) -> Measured:
        return Measured(
            _files(said[Layer.FILES], self._projected) if Layer.FILES in said else None,
            tuple(processes.unpack(said[Layer.PROCESSES])) if Layer.PROCESSES in said else (),
            memory.unpack(said[Layer.MEMORY]) if Layer.MEMORY in said else (),
            calls.unpack(said[Layer.SYSCALLS]).calls if Layer.SYSCALLS in said else (),
        )

    def _fail(self, error: Exception) -> None:
        self._failed = error
        for each in (self._pinned, self._measured):
            if each is not None:
                _settle(each, error)


@asynccontextmanager
async def studied(scope: Scope, projected: tuple[str, ...] = ()) -> AsyncIterator[Study]:
    """The workload of this scope, until the block ends."""
    study = Study(scope, projected)
    study.begin()
    try:
        yield study
    finally:
        study.end()


def scope_of(
    pid: int,
    include: tuple[str, ...] = (),
    volatile: tuple[str, ...] = (),
    *,
    cgroup: str = "",
    memory: float = 0.0,
    calls: Calls | None = None,
) -> Scope:
    """What a study looks at. memory, calls: as of a Scope."""
    return Scope(pid, include, ((volatile,),), cgroup, SILENCE_SECONDS, calls=calls, memory=memory)


async def build(
    name: str,
    pid: int,
    include: tuple[str, ...],
    volatile: tuple[str, ...] = (),
    projected: tuple[str, ...] = (),
    *,
    memory: bool = False,
) -> ReferenceValues:
    """References for the workload of this pid as it is now. Raises Unavailable, or what the measurer cannot do.

    memory: the files that are mapped as code are among them, wherever they are.
    """
    scope = scope_of(pid, include, volatile, memory=PERIOD if memory else 0.0)
    began = boottime()
    watched = Watched(Subject(f"pid {pid}", f"pid {pid}", platform.machine(), include, volatile), began)
    async with studied(scope, projected) as study:
        study.heard = watched.saw
        watched.measured(await study.measure(), boottime())
        return references(name, watched.learned(boottime()))


def with_proxies(values: ReferenceValues, proxies: Mapping[str, tuple[Digest, ...]]) -> ReferenceValues:
    """The same, and these Envoys may hold the key. proxies: version -> digests."""
    return values.model_copy(update={"spec": values.spec.model_copy(update={"proxies": dict(proxies)})})


def boottime() -> float:
    """As facts have it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _layers(scope: Scope) -> tuple[Layer, ...]:
    also = ((Layer.MEMORY, scope.memory > 0), (Layer.SYSCALLS, scope.calls is not None))
    return (Layer.FILES, Layer.PROCESSES, *(layer for layer, wanted in also if wanted))


def _files(body: bytes, projected: tuple[str, ...]) -> dict[str, FileReference]:
    entries = list(manifest.unpack(body))
    capabilities = {each.owner: each.capabilities for each in entries if each.kind == manifest.CAPABILITIES}
    return {
        entry.path: FileReference.model_validate(
            {
                "digests": [entry.digest],
                "mode": f"{entry.mode:04o}",
                "capabilities": capabilities.get(entry.path, ""),
            }
        )
        for entry in by_stable_names(entries, projected)
        if entry.kind in (manifest.FILE, manifest.LINK)
    }


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
