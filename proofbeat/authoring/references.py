"""`proofbeat references`: builds, merges, signs and verifies, and says what it did. Each answers yes or no."""

from __future__ import annotations

import asyncio
import json
import posixpath
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from attestation.errors import InvalidInput
from attestation.quantities import instant, seconds
from attestation.wording import shown
from policies.author.references import debian, dpkg, rollout, sources
from policies.author.references.bounds import DEFAULT_BYTES, Budget
from policies.author.references.build import Report, Wishes
from policies.author.references.dpkg import Provenance
from policies.author.references.images import Wanted
from policies.author.references.sources import Built, Source, Terms
from policies.model import dialect
from policies.model.inheritance import Inheritance
from policies.model.metadata import Metadata
from policies.model.origin import Origin
from policies.model.reading import read
from policies.model.references import ReferenceSpec, ReferenceValues
from policies.model.selection import ROOT_NAMESPACE
from policies.model.signing import beside, signed_by
from policies.model.signing import sign as detached
from policies.model.writing import reference_values
from proofbeat import envoy, keyfiles, study
from proofbeat.authoring.writing import write, write_references

Outcome = TypeVar("Outcome")

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """The command line of `build`, as it was typed."""

    name: str
    namespace: str
    sources: tuple[Path, ...]
    pid: int | None
    include: tuple[str, ...]
    volatile: tuple[str, ...]
    projected: tuple[str, ...]
    mapped: bool
    executables: tuple[str, ...]
    at: str
    kind: str
    platform: str
    ref: str
    packages: Path | None
    check_dpkg: Path | None
    signed_by: Path | None
    owners: bool
    inherits: str | None
    policies: tuple[Path, ...]
    expires: str | None
    version: str | None
    also: Path | None
    envoy: Path | None
    most_bytes: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where the document goes, None for stdout, and how it is told what was done."""

    output: Path | None
    as_json: bool


# --- build ---


async def build(asked: Asked, place: Place) -> bool:
    """False where dpkg knows other contents than are stated. Raises InvalidInput, Unavailable."""
    metadata = _metadata(asked)
    held = envoy.referenced(asked.envoy) if asked.envoy is not None else {}
    if asked.pid is not None:
        taken = await study.build(
            asked.name, asked.pid, asked.include, asked.volatile, asked.projected, memory=asked.mapped
        )
        built, spec = None, taken.spec
    else:
        built = await _in_thread(lambda budget: _built(asked, budget), asked)
        spec = built.spec
    found = await _provenance(asked, spec)
    values = ReferenceValues(
        metadata=metadata,
        spec=spec.model_copy(update={"proxies": held, "expires": _ends(asked.expires)}),
    )
    if asked.inherits is not None:
        values = _beyond(values, asked.inherits, asked.policies)
    if asked.also is not None:
        values = rollout.merged([*_labelled(asked.also), *_label(values, "--version")])
    _put(values, place.output)
    _tell(values, built, found, place)
    return found is None or found.clean


def _metadata(asked: Asked) -> Metadata:
    labels = {} if asked.version is None else {rollout.LABEL: asked.version}
    try:
        return Metadata(name=asked.name, namespace=asked.namespace, labels=labels)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InvalidInput(
            f"{fault['input']!r} is no name: {fault['msg']}", where=str(fault["loc"][0]), mend="Use a-z, 0-9, . and -."
        ) from error


def _built(asked: Asked, budget: Budget) -> Built:
    wishes = Wishes(asked.include, asked.volatile, asked.executables, asked.owners)
    terms = Terms(
        wishes,
        _mounted(asked.at),
        Wanted(asked.platform, asked.ref),
        None if asked.packages is None else debian.index(asked.packages, budget),
        None if asked.signed_by is None else _signer(asked.signed_by),
    )
    return sources.build(asked.sources, Source(asked.kind) if asked.kind else None, terms, budget)


def _mounted(at: str) -> tuple[str, ...]:
    if not at.startswith("/") or posixpath.normpath(at) != at:
        raise InvalidInput(f"{at!r} is no absolute path in its shortest form", where="--at", mend="Write it: /srv/app")
    return tuple(name for name in at.split("/") if name)


def _signer(path: Path) -> ec.EllipticCurvePublicKey:
    key = keyfiles.public(path)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InvalidInput("Keylime signs with keys on P-256", where=str(path))
    return key


def _ends(text: str | None) -> int | None:
    if text is None:
        return None
    now = time.time()
    try:
        ends = instant(text) if text.endswith("Z") else int(now + seconds(text))
    except InvalidInput as error:
        raise InvalidInput(f"{text!r} is no time", where="--expires", mend=_EXPIRES) from error
    if ends <= now:
        raise InvalidInput(f"{text} is over", where="--expires", mend="Such reference values affirm nothing.")
    return ends


_EXPIRES = "Write a duration, 30d, or a point in time, 2026-12-31T00:00:00Z."


async def _provenance(asked: Asked, spec: ReferenceSpec) -> Provenance | None:
    root = asked.check_dpkg
    if root is None:
        return None
    return await _in_thread(lambda budget: dpkg.provenance(root, spec.files, budget), asked)


def _beyond(values: ReferenceValues, parent: str, policies: Sequence[Path]) -> ReferenceValues:
    """What differs from the base that is named, which is looked up as an authority would do it."""
    known: dict[tuple[str, str], tuple[ReferenceValues, Origin]] = {
        (document.metadata.namespace, document.metadata.name): (document, at)
        for document, at in read(policies)
        if isinstance(document, ReferenceValues)
    }
    namespace, _, name = parent.rpartition("/")
    key = (namespace or values.metadata.namespace, name)
    if key not in known:
        names = ", ".join(sorted(document.metadata.qualified for document, _ in known.values())) or "none"
        raise InvalidInput(f"no ReferenceValues {parent!r} is there", where="--policies", mend=f"There are: {names}.")
    base = Inheritance(known, ROOT_NAMESPACE).whole(key).references
    return rollout.beyond(values, base, parent)


# --- merge ---


async def merge(files: Sequence[Path], drop: Sequence[str], output: Path | None) -> bool:
    """Raises InvalidInput."""
    found = [each for file in files for each in _labelled(file)]
    values = rollout.merged(found) if len(found) > 1 else found[0][1]
    _put(rollout.without(values, drop), output)
    return True


def _labelled(file: Path) -> list[tuple[str, ReferenceValues]]:
    return _label(dialect.read(file, ReferenceValues), str(file))


def _label(values: ReferenceValues, where: str) -> list[tuple[str, ReferenceValues]]:
    """With the version that it is of. Raises InvalidInput where that is not said."""
    label = values.metadata.labels.get(rollout.LABEL, "")
    if not label and not values.spec.versions:
        raise InvalidInput(
            "it does not say of which version it is",
            where=where,
            mend="Build it with --version, or give it the label: metadata: {labels: {version: ...}}",
        )
    return [(label, values)]


# --- sign, verify ---


async def sign(files: Sequence[Path], key_file: Path) -> bool:
    """Raises InvalidInput for what is no document of ours: nobody is to vouch for what cannot be read."""
    key = keyfiles.private(key_file)
    for file in files:
        content = dialect.read_text(file).encode()
        found = [document for document, _ in read([file]) if isinstance(document, ReferenceValues)]
        if not found:
            raise InvalidInput("no reference values are in it", where=str(file))
        write(beside(file), detached(content, key) + "\n")
        print(f"{beside(file)}: signed, with {len(found)} ReferenceValues in {file.name}")
        for endless in (each for each in found if each.spec.expires is None):
            print(f"{endless.metadata.qualified} never expires: no authority with trusted keys reads it so")
    return True


async def verify(files: Sequence[Path], key_files: Sequence[Path], *, as_json: bool) -> bool:
    """True where each file is signed by one of the keys."""
    known = [keyfiles.public(path) for path in key_files]
    by: dict[str, str] = {}
    for file in files:
        content = dialect.read_text(file).encode()
        token = dialect.read_text(beside(file)) if beside(file).exists() else ""
        key = signed_by(content, token, known)
        by[str(file)] = "" if key is None else str(key_files[known.index(key)])
    if as_json:
        signers = {name: signer or None for name, signer in by.items()}
        print(json.dumps({"signed": all(by.values()), "files": signers}, indent=1))
    else:
        for name, signer in by.items():
            print(f"{name}: {f'signed by {signer}' if signer else 'NOT signed as it is by any of these keys'}")
    return all(by.values())


# --- what is written, and what is said ---


def _put(values: ReferenceValues, output: Path | None) -> None:
    write_references(output, reference_values(values), values.metadata.qualified)


def _tell(values: ReferenceValues, built: Built | None, found: Provenance | None, place: Place) -> None:
    if place.as_json:
        print(json.dumps(document(values, built, found, place.output), indent=1))
    else:
        print("\n".join(_lines(values, built, found)), file=sys.stderr)


def document(
    values: ReferenceValues, built: Built | None, found: Provenance | None, output: Path | None
) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (docs/references.md)."""
    report = built.report if built is not None else Report()
    return {
        "name": values.metadata.qualified,
        "source": "pid" if built is None else built.source.value,
        "platform": (built.platform if built is not None else "") or None,
        "digest": (built.digest if built is not None else "") or None,
        "files": len(values.spec.files),
        "executables": len(values.spec.executables),
        "versions": list(values.spec.versions),
        "inherits": list(values.spec.inherits),
        "without": len(values.spec.without),
        "started": [shown(each) for each in report.started],
        "skipped": {what: _shown(each.why, each.count, each.examples) for what, each in report.skipped.items()},
        "proposed": {name: [shown(each) for each in patterns] for name, patterns in report.proposed.items()},
        "notes": [shown(each) for each in report.notes],
        "dpkg": None if found is None else asdict(found),
        "written": None if output is None else str(output),
    }


def _shown(why: str, count: int, examples: Iterable[str]) -> dict[str, Any]:
    return {"why": why, "count": count, "examples": [shown(each) for each in examples]}


def _lines(values: ReferenceValues, built: Built | None, found: Provenance | None) -> Iterator[str]:
    told = document(values, built, found, None)
    source = " ".join(str(told[key]) for key in ("source", "platform", "digest") if told[key])
    yield f"{told['name']}: {told['files']} files and {told['executables']} executables from {source}"
    if told["inherits"]:
        yield f"  beyond    {told['inherits'][0]}, without {told['without']} of its files"
    for label in told["versions"]:
        of = values.spec.versions[label]
        yield f"  version   {label}: {len(of.files)} files and {len(of.executables)} executables of its own"
    for path in told["started"]:
        yield f"  starts    {path}"
    for what, each in told["skipped"].items():
        more = ", ..." if each["count"] > _SHOWN else ""
        yield f"  skipped   {each['count']} {what}: {each['why']} ({', '.join(each['examples'][:_SHOWN])}{more})"
    for name, patterns in told["proposed"].items():
        yield f"  proposed  as {name}, and not applied: {', '.join(patterns)}"
    for note in told["notes"]:
        yield f"  note      {note}"
    if found is not None:
        yield f"  dpkg      {found.packaged} as packaged (MD5), {found.unlisted} of no package"
        yield from (f"  ALTERED   {shown(path)}: other content than was packaged" for path in found.altered)
        yield from (f"  OTHER     {shown(path)}: other content there than is stated here" for path in found.other)


# --- long work ---


async def _in_thread(work: Callable[[Budget], Outcome], asked: Asked) -> Outcome:
    """In a thread, so that it can be ended by a signal; with progress where somebody looks on."""
    ended = threading.Event()
    with _progress() as told:

        def counted(count: int) -> None:
            if ended.is_set():
                raise InvalidInput("ended before it was done")
            told(count)

        try:
            return await asyncio.to_thread(work, Budget(asked.most_bytes or DEFAULT_BYTES, counted))
        finally:
            ended.set()


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), TextColumn("reading"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda count: progress.advance(task, count)
