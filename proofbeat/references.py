"""Reference values from a running workload, taken by the measurer itself: what is built is what will be measured."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import yaml

from attestation import manifest, processes
from attestation.channel import Fault, Measure, Message, Observed, Pinned, Scope
from attestation.errors import Unavailable
from attestation.layers import Layer
from policies.model.policy import Metadata
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues
from sidecar.measurement import Measurer, spawn

WITHIN_SECONDS = 60.0


@dataclass(slots=True)
class _Taken:
    """What came so far."""

    bodies: dict[Layer, bytes] = field(default_factory=dict)


async def build(name: str, pid: int, include: tuple[str, ...], volatile: tuple[str, ...] = ()) -> ReferenceValues:
    """References for the workload of this pid as it is now. Raises Unavailable, or what the measurer cannot do."""
    taken, layers = _Taken(), (Layer.FILES, Layer.PROCESSES)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def heard(message: Message, body: bytes | None) -> None:
        match message:
            case Pinned():
                measurer.send(Measure(layers, 0.0, full=True))
            case Observed(observation) if body is not None:
                taken.bodies[observation.layer] = body
            case Fault(what, where, mend):
                _settle(done, Unavailable(what, where=where, mend=mend))
            case _:
                pass
        if taken.bodies.keys() >= set(layers):
            _settle(done, None)

    measurer = Measurer(heard, lambda reason: _settle(done, Unavailable(reason, where="measurer")))
    measurer.start(asyncio.get_running_loop(), spawn())
    try:
        measurer.send(Scope(pid, include, volatile))
        async with asyncio.timeout(WITHIN_SECONDS):
            await done
    except TimeoutError as error:
        raise Unavailable(f"no measurement within {WITHIN_SECONDS:g} s", where=f"pid {pid}") from error
    finally:
        measurer.stop()
    return ReferenceValues(metadata=Metadata(name=name), spec=_spec(taken))


def merged(name: str, parts: Iterable[ReferenceValues]) -> ReferenceValues:
    """Everything that any of the parts allows."""
    files: dict[str, FileReference] = {}
    executables: dict[str, tuple[str, ...]] = {}
    for part in parts:
        files.update(part.spec.files)
        for path, digests in part.spec.executables.items():
            executables[path] = tuple(dict.fromkeys((*executables.get(path, ()), *digests)))
    return ReferenceValues(metadata=Metadata(name=name), spec=ReferenceSpec(files=files, executables=executables))


def to_yaml(document: ReferenceValues) -> str:
    """As `proofbeat authority` reads it."""
    return yaml.safe_dump(document.model_dump(mode="json", by_alias=True, exclude_none=True), sort_keys=False)


def _spec(taken: _Taken) -> ReferenceSpec:
    files = {
        entry.path: FileReference.model_validate({"digests": [entry.digest], "mode": f"{entry.mode:04o}"})
        for entry in manifest.unpack(taken.bodies[Layer.FILES])
        if entry.kind in (manifest.FILE, manifest.LINK)
    }
    executables: dict[str, set[str]] = {}
    for kind in processes.unpack(taken.bodies[Layer.PROCESSES]):
        executables.setdefault(kind.executable, set()).add(kind.digest)
        if kind.loader:
            executables.setdefault(kind.loader, set()).add(kind.loader_digest)
    return ReferenceSpec(files=files, executables={path: tuple(sorted(found)) for path, found in executables.items()})


def _settle(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
