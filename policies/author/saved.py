"""Evidence in a folder: what instances said last, and the layers behind it, to be judged again under other policies.

`<instance>.json` has the signed evidence; `<digest>.body` a packed layer, once however many instances have it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from attestation import evidence, strictjson
from attestation.bodies import DIGEST_OF
from attestation.claims import Claims
from attestation.digests import Digest
from attestation.errors import InvalidInput
from attestation.plain import build

_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Saved:
    """bodies: those that were at hand; what is missing cannot be judged."""

    registration: str
    claims: Claims
    bodies: Mapping[Digest, bytes]

    @property
    def instance(self) -> str:
        return self.claims.instance.value


@dataclass(frozen=True, slots=True)
class Entry:
    """One instance's file. evidence: the signed bytes, base64. at_ms: when it was appraised, Unix milliseconds."""

    instance: str
    registration: str
    evidence: str
    at_ms: int


def prepare(folder: Path) -> None:
    """Makes it where it is not there. For its owner alone: it says what runs on other machines. Raises InvalidInput."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"the folder cannot be made: {error.strerror}", where=str(folder)) from error


def write(folder: Path, entry: Entry) -> None:
    fields = {name: getattr(entry, name) for name in ("instance", "registration", "evidence", "at_ms")}
    _keep(folder / f"{entry.instance}.json", (json.dumps(fields, indent=1) + "\n").encode())


def write_body(folder: Path, digest: Digest, body: bytes) -> None:
    _keep(folder / f"{digest}.body", body)


def claims_of(entry: Entry) -> Claims:
    """Raises InvalidInput where it is not what an instance has signed."""
    try:
        signed = base64.b64decode(entry.evidence, validate=True)
    except ValueError as error:
        raise InvalidInput("the evidence is not base64", where=entry.instance) from error
    told = evidence.parse(signed)
    if not told.holds or told.claims.instance.value != entry.instance:
        raise InvalidInput(
            "the evidence was not signed by the key that it names, or is another instance's",
            where=entry.instance,
            mend="Save it again: `proofbeat evidence save`.",
        )
    return told.claims


def read(folder: Path) -> tuple[Saved, ...]:
    """Everything that was saved there, by instance. Raises InvalidInput, naming the file."""
    files = sorted(folder.glob("i-*.json"))
    if not files:
        raise InvalidInput(
            "no evidence is there",
            where=str(folder),
            mend="`proofbeat evidence save --admin SOCKET DIR` saves a running authority's.",
        )
    held: dict[Digest, bytes] = {}
    return tuple(_saved(file, held) for file in files)


def _saved(file: Path, held: dict[Digest, bytes]) -> Saved:
    try:
        entry = build(Entry, strictjson.loads(_bytes(file)), where=str(file))
        claims = claims_of(entry)
    except InvalidInput as error:
        raise InvalidInput(error.what, where=str(file), mend=error.mend) from error
    return Saved(entry.registration, claims, dict(_bodies(claims, file.parent, held)))


def _bodies(claims: Claims, folder: Path, held: dict[Digest, bytes]) -> Iterator[tuple[Digest, bytes]]:
    for claim in claims.layers:
        file = folder / f"{claim.digest}.body"
        if claim.layer not in DIGEST_OF or not (claim.digest in held or file.exists()):
            continue
        if claim.digest not in held:
            held[claim.digest] = _bytes(file)
            if DIGEST_OF[claim.layer](held[claim.digest]) != claim.digest:
                raise InvalidInput("the layer is not the one that the evidence claims", where=str(file))
        yield claim.digest, held[claim.digest]


def _bytes(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise InvalidInput("the file is larger than any that is saved", where=str(file))
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"the file cannot be read: {error.strerror}", where=str(file)) from error


def _keep(file: Path, content: bytes) -> None:
    try:
        file.touch(mode=0o600)
        file.write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"it cannot be written: {error.strerror}", where=str(file)) from error
