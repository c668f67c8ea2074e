"""Forensic bundles in the sidecar's state folder: written aside and signed, the newest few kept.

Written in a thread: nothing that closes or opens waits for a disk, or for secrets to be taken out of ten thousand
command lines.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation import forensics, strictjson
from attestation.channel import Bundled
from attestation.coverage import Coverage
from attestation.errors import InvalidInput
from attestation.facts import Fact
from attestation.forensics import ABOUT, MANIFEST, SIGNATURE, WORKLOAD, Manifest, Part
from attestation.instance import InstanceId
from attestation.jws import Signer
from attestation.keys import public_der
from attestation.plain import plain
from attestation.violation import Violation
from sidecar.config import ForensicsSettings
from telemetry import redaction

_MOST_ABOUT = 1 << 20
_SETTLES_WITHIN = 5.0


Written = tuple[Path, Manifest, str]
"""Folder, manifest, and the digest of that."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the sidecar itself knows at that moment. facts: the latest, of every kind, the oldest first."""

    instance: InstanceId
    spiffe_id: str
    policy_epoch: int
    phase: str
    generation: int
    contained: str
    causes: tuple[Violation, ...]
    coverage: Coverage
    facts: tuple[Fact, ...]


class Forensics:
    """kept: told of each bundle that is on disk, with its manifest's digest. failed: why one is not."""

    def __init__(
        self,
        folder: Path,
        settings: ForensicsSettings,
        *,
        kept: Callable[[Path, Manifest, str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._folder = folder / "forensics"
        self._settings = settings
        self._kept, self._failed = kept, failed
        self._writer = ThreadPoolExecutor(1, "forensics")

    def keep(self, cause: Violation, told: Bundled, body: bytes | None, known: Known, signer: Signer) -> None:
        """Begin to write it. Inside a running loop."""
        loop = asyncio.get_running_loop()
        written = self._writer.submit(write, self._folder, cause, told, body or b"", known, signer, self._settings)
        written.add_done_callback(lambda done: loop.call_soon_threadsafe(self._written, done))

    async def settled(self) -> None:
        """Until all is written, or so late that nobody waits for it any more."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SETTLES_WITHIN):
                await asyncio.to_thread(self._writer.shutdown)
        await asyncio.sleep(0)  # what it has left for this loop to tell

    def _written(self, done: Future[Written]) -> None:
        try:
            self._kept(*done.result())
        except OSError as error:
            self._failed(f"{error.strerror}: {error.filename}")


def write(
    folder: Path,
    cause: Violation,
    told: Bundled,
    body: bytes,
    known: Known,
    signer: Signer,
    settings: ForensicsSettings,
) -> Written:
    """One bundle: its folder, its manifest, and the digest of that. Raises OSError."""
    made_ms = time.time_ns() // 1_000_000
    folder.mkdir(mode=0o700, exist_ok=True)
    new = folder / f".{made_ms}"
    new.mkdir(mode=0o700)
    try:
        lines = list(_lines(body, settings.most_bytes))
        parts = (
            _part(new, ABOUT, _about(known)),
            _part(new, WORKLOAD, b"".join(lines)),
        )
        manifest = Manifest(
            known.instance,
            known.spiffe_id,
            made_ms,
            cause.kind,
            cause.violation_class,
            redaction.safe(cause.subject),
            known.policy_epoch,
            known.contained,
            told.complete and sum(map(len, lines)) > 0,
            public_der(signer.public_key).hex(),
            parts,
            told.refusal,
        )
        content = forensics.packed(manifest)
        _part(new, MANIFEST, content)
        _part(new, SIGNATURE, signer.sign(content, kind=forensics.KIND).encode())
        where = folder / name_of(manifest)
        new.rename(where)
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _forget_the_oldest(folder, settings.keep)
    return where, manifest, hashlib.sha256(content).hexdigest()


def name_of(manifest: Manifest) -> str:
    """Of its folder; the names of bundles are in the sequence in which they were made."""
    at = time.strftime("%Y%m%dT%H%M%S", time.gmtime(manifest.made_ms // 1000))
    return f"{at}.{manifest.made_ms % 1000:03}Z-{manifest.kind}"


def _about(known: Known) -> bytes:
    """The oldest facts give way to its bound."""
    fields: dict[str, Any] = plain(known)
    facts = fields["facts"]
    fields["facts"] = [{"is": type(fact).__name__, **shown} for fact, shown in zip(known.facts, facts, strict=True)]
    while len(content := json.dumps(fields, indent=1).encode()) > _MOST_ABOUT and fields["facts"]:
        fields["facts"] = fields["facts"][len(fields["facts"]) // 2 + 1 :]
    return content


def _lines(body: bytes, most: int) -> Iterator[bytes]:
    """Those that are whole, each without what looks like a secret in its arguments."""
    for line in body.split(b"\n"):
        with suppress(InvalidInput):
            record = strictjson.loads(line)
            if isinstance(record, dict) and isinstance(record.get("arguments"), list):
                record["arguments"] = redaction.command_line([str(each) for each in record["arguments"]])
                line = json.dumps(record, separators=(",", ":")).encode()
            most -= len(line) + 1
            if most < 0:
                return
            yield line + b"\n"


def _part(folder: Path, name: str, content: bytes) -> Part:
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return Part(name, len(content), hashlib.sha256(content).hexdigest())


def _forget_the_oldest(folder: Path, keep: int) -> None:
    """And what a run that ended half-way has left."""
    found = sorted(each for each in folder.iterdir() if each.is_dir())
    whole = [each for each in found if not each.name.startswith(".")]
    for each in (*whole[:-keep], *(each for each in found if each.name.startswith("."))):
        shutil.rmtree(each, ignore_errors=True)
