"""Reference values from a running workload, taken by the measurer itself: what is built is what will be measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from attestation import manifest, memory, processes
from attestation.channel import Fault, Measure, Message, Observed, Pinned, Scope
from attestation.digests import Digest
from attestation.errors import Unavailable
from attestation.facts import ExecutionFact, MemoryFact, PreloadFact, ScriptFact
from attestation.layers import Layer
from policies.appraise.projected import by_stable_names
from policies.model.memory import PERIOD
from policies.model.metadata import Metadata
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues
from proofbeat.codestudy import CodeStudy
from sidecar.measurement import Measurer, spawn

WITHIN_SECONDS = 60.0
_LAYERS = (Layer.FILES, Layer.PROCESSES)


class Study:
    """One workload under a measurer's eyes. executables: what was seen to be executed, with its contents.

    preload: what the environment named to come before a program's own libraries, and has no content to be referenced.
    projected: patterns of projected volumes, whose files are stated by their stable names. memory: the most seconds
    between two looks at what is mapped as code, 0 for none; what was seen is in `code`.
    """

    def __init__(self, pid: int, projected: tuple[str, ...], memory: float = 0.0) -> None:
        self.code = CodeStudy()
        self._memory = memory
        self._layers = (*_LAYERS, Layer.MEMORY) if memory else _LAYERS
        self.executables: dict[str, set[str]] = {}
        self.preload: set[str] = set()
        self._begun: dict[str, set[str]] = {}
        self._pid, self._projected = pid, projected
        self._bodies: dict[Layer, bytes] = {}
        self._due: dict[Layer, float] = {}
        self._measured: asyncio.Future[None] | None = None
        self._pinned: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._measurer = Measurer(self._heard, lambda reason: self._fail(Unavailable(reason, where="measurer")))

    async def measure(self) -> ReferenceSpec:
        """What its files and processes are from now on, read in full. Raises Unavailable, or what cannot be done."""
        not_before = time.clock_gettime(time.CLOCK_BOOTTIME)
        self._due = dict.fromkeys(self._layers, not_before)
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                await self._pinned
                self._measured = asyncio.get_running_loop().create_future()
                self._measurer.send(Measure(self._layers, not_before, full=True))
                await self._measured
        except TimeoutError as error:
            raise Unavailable(f"no measurement within {WITHIN_SECONDS:g} s", where=f"pid {self._pid}") from error
        return _with(_spec(self._bodies, self._projected), self._begun)

    def begin(self, include: tuple[str, ...], volatile: tuple[str, ...]) -> None:
        self._measurer.start(asyncio.get_running_loop(), spawn())
        self._measurer.send(Scope(self._pid, include, ((volatile,),), memory=self._memory))

    def end(self) -> None:
        self._measurer.stop()

    def _heard(self, message: Message, body: bytes | None) -> None:
        match message:
            case Pinned():
                _settle(self._pinned, None)
            case ExecutionFact(path=path, digest=digest) if digest:
                self.executables.setdefault(path, set()).add(digest)
            case ScriptFact(path=path, digest=digest) | PreloadFact(path=path, digest=digest) if digest:
                self._begun.setdefault(path, set()).add(digest)
            case PreloadFact(entry=entry) if entry:
                self.preload.add(entry)
            case MemoryFact(code=code):
                self.code.saw(code)
            case Observed(observation):
                if body is not None:
                    self._bodies[observation.layer] = body
                if body is not None and observation.layer is Layer.MEMORY:
                    self.code.saw(*memory.unpack(body))
                if observation.began >= self._due.get(observation.layer, float("inf")):
                    del self._due[observation.layer]
                if not self._due and self._measured is not None:
                    _settle(self._measured, None)
            case Fault(what, where, mend):
                self._fail(Unavailable(what, where=where, mend=mend))
            case _:
                pass

    def _fail(self, error: Exception) -> None:
        for each in (self._pinned, self._measured):
            if each is not None:
                _settle(each, error)


@asynccontextmanager
async def studied(
    pid: int,
    include: tuple[str, ...],
    volatile: tuple[str, ...] = (),
    projected: tuple[str, ...] = (),
    memory: float = 0.0,
) -> AsyncIterator[Study]:
    """The workload of this pid, watched until the block ends. memory: as of a Study."""
    study = Study(pid, projected, memory)
    study.begin(include, volatile)
    try:
        yield study
    finally:
        study.end()


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
    async with studied(pid, include, volatile, projected, PERIOD if memory else 0.0) as study:
        spec = await study.measure()
        return ReferenceValues(metadata=Metadata(name=name), spec=study.code.referenced(spec))


def with_proxies(values: ReferenceValues, proxies: Mapping[str, tuple[Digest, ...]]) -> ReferenceValues:
    """The same, and these Envoys may hold the key. proxies: version -> digests."""
    return values.model_copy(update={"spec": values.spec.model_copy(update={"proxies": dict(proxies)})})


def _spec(bodies: Mapping[Layer, bytes], projected: tuple[str, ...]) -> ReferenceSpec:
    entries = list(manifest.unpack(bodies[Layer.FILES]))
    capabilities = {each.owner: each.capabilities for each in entries if each.kind == manifest.CAPABILITIES}
    files = {
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
    executables: dict[str, set[str]] = {}
    for kind in processes.unpack(bodies[Layer.PROCESSES]):
        executables.setdefault(kind.executable, set()).add(kind.digest)
        if kind.loader:
            executables.setdefault(kind.loader, set()).add(kind.loader_digest)
    return ReferenceSpec(files=files, executables={path: tuple(sorted(found)) for path, found in executables.items()})


def _with(spec: ReferenceSpec, begun: Mapping[str, set[str]]) -> ReferenceSpec:
    """Scripts and libraries that processes began with, where they are not measured as files."""
    executables = dict(spec.executables)
    for path, digests in begun.items():
        known = {*executables.get(path, ()), *(spec.files[path].digests if path in spec.files else ())}
        if not digests <= known:
            executables[path] = tuple(sorted({*executables.get(path, ()), *digests}))
    return spec.model_copy(update={"executables": executables})


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
