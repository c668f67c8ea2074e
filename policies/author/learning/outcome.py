"""What follows from what was learned: the rules of a policy, and reference values with why each entry is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from attestation.calls import Watching
from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.layers import Layer
from policies.author.learning.always import ALWAYS, known
from policies.author.learning.learned import Amount, Contents, Learned, Origin
from policies.model.memory import amount_text
from policies.model.metadata import API_VERSION, Metadata
from policies.model.policy import AttestationPolicy, Demand, Mode
from policies.model.references import FileReference, ReferenceSpec, ReferenceValues

HEADROOM = 4
"""So many times as much code as was seen may a compiler make: what was seen may be of its first minutes."""
_LEAST = 1 << 20
Place = tuple[str, ...]
"""Of an entry in reference values, as policies.model.writing has it."""


def rules(learned: Learned, *, notified: bool = False) -> dict[str, Any]:
    """What of a policy's spec follows from it, as it is written, and nothing that does not.

    notified: it is started under a filter that asks us, so that nobody has to look at each of its calls.
    """
    said: dict[str, Any] = {}
    exempt = sorted({*learned.exempt, *learned.volatile})
    if learned.include:
        said["files"] = {"include": list(learned.include), **({"volatile": exempt} if exempt else {})}
    if learned.preload:
        said["processes"] = {"preload": list(learned.preload)}
    layers: dict[str, Any] = {}
    if learned.calls:
        layers[str(Layer.SYSCALLS)] = {}
        asked = {"watching": str(Watching.LEAN), "notified": str(Demand.REQUIRED)}
        said["syscalls"] = asked if notified else {"watching": str(Watching.STRICT)}
    if learned.mapped or learned.code:
        layers[str(Layer.MEMORY)] = {}
        allowed = [_allowed(path, each) for path, each in sorted(learned.code.items()) if path.startswith("/")]
        said["memory"] = {"jit": allowed}
    return {**said, **({"layers": layers} if layers else {})}


def document(name: str, learned: Learned, mode: Mode, *, notified: bool = False) -> dict[str, Any]:
    """A policy for the registration of that name, as it is written: what is stated stands there, also where it is so
    by default.
    """
    spec = {"selector": {"registrations": [name]}, "mode": str(mode), **rules(learned, notified=notified)}
    return {"apiVersion": API_VERSION, "kind": "AttestationPolicy", "metadata": {"name": name}, "spec": spec}


def policy(name: str, learned: Learned, mode: Mode, *, notified: bool = False) -> AttestationPolicy:
    """The same, read. Raises InvalidInput where it cannot be stated."""
    try:
        return AttestationPolicy.model_validate(document(name, learned, mode, notified=notified))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise InvalidInput(f"no policy can say what was learned: {place}: {fault['msg']}", where=name) from error


def references(name: str, learned: Learned, namespace: str = "default") -> ReferenceValues:
    """Raises ValueError for a name that no document can have."""
    files = dict(learned.files)
    executables = {path: _digests(each) for path, each in learned.executables.items()}
    for path, contents in learned.begun.items():  # where they are not measured as files
        both = {*executables.get(path, ()), *(files[path].digests if path in files else ())}
        if not contents.keys() <= both:
            executables[path] = tuple(sorted({*executables.get(path, ()), *contents}))
    for path, contents in learned.mapped.items():  # what is stated of a path already stays as it is
        if path not in files and path not in executables:
            files[path] = FileReference(digests=_digests(contents))
    spec = ReferenceSpec(
        files=dict(sorted(files.items())), executables=dict(sorted(executables.items())), syscalls=sets(learned)
    )
    return ReferenceValues(metadata=Metadata(name=name, namespace=namespace), spec=spec)


def sets(learned: Learned) -> dict[str, tuple[str, ...]]:
    """Calls by set: those that were seen, and those that a run misses by chance. None where nobody looked."""
    if not learned.calls:
        return {}
    machines = {run.machine for run in learned.runs}
    seen = {name: tuple(sorted(calls)) for name, calls in sorted(learned.calls.items())}
    return {**seen, **{each.name: tuple(sorted(known(each.calls, machines))) for each in ALWAYS}}


def origins(learned: Learned) -> dict[Place, str]:
    """Why an entry of the reference values is there, in a few words, by its place."""
    said: dict[Place, str] = {("syscalls", each.name): each.why for each in ALWAYS}
    for name, calls in learned.calls.items():
        said |= {("syscalls", name, call): _first(origin) for call, origin in calls.items()}
    for table in (learned.executables, learned.begun):
        said |= {("executables", path): _first(_earliest(table, path)) for path in table}
    return said | {("files", path): _first(_earliest(learned.mapped, path)) for path in learned.mapped}


def _earliest(table: Contents, path: str) -> Origin:
    return min(table[path].values(), key=lambda each: each.rank)


def _first(origin: Origin) -> str:
    if not origin.maker:
        return f"there already, {origin.run}"
    return f"{origin.maker}, {origin.at:.2f} s, {origin.run}"


def _digests(contents: Mapping[Digest, Origin]) -> tuple[Digest, ...]:
    return tuple(sorted(contents))


def _allowed(executable: str, amount: Amount) -> dict[str, Any]:
    """That again, and more of it."""
    return {
        "executable": executable,
        "most": amount_text(max(_LEAST, HEADROOM * amount.most)),
        "writable": amount.writable,
        "memfd": amount.memfd,
    }
