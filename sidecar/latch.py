"""The latch: what only a new instance or a release heals, kept where kill -9 does not wash it off.

Appended before the state changes (the kernel has it then, whatever happens to this process), made durable after
the closing. The authority keeps its own record; this one also holds while the authority is out of reach.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from attestation import strictjson
from attestation.errors import InvalidConfiguration, InvalidInput
from attestation.instance import InstanceId
from attestation.plain import build, plain
from sidecar.states import Closings, Sticky


@dataclass(frozen=True, slots=True)
class Latched:
    """One line of the file. at_ms: as reported, Unix milliseconds; 0 in lines of before it was kept."""

    instance: InstanceId
    cause_id: str
    cause: Sticky
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Counted:
    """Closings that policy still looks back at, and whose they are."""

    instance: InstanceId
    closings: Closings


class Latch:
    """One file for each state folder; lines of other instances are history and stay. Beside it, the closings of one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "latch.jsonl"
        self._counted = folder / "closings.json"
        self._descriptor: int | None = None

    def open(self, instance: InstanceId) -> tuple[Latched, ...]:
        """What earlier processes latched for this instance.

        Raises InvalidConfiguration when the file cannot be used: an unreadable latch never counts as an empty one.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(self._path, flags, 0o600)
            lines = self._path.read_text().splitlines()
            found = tuple(build(Latched, strictjson.loads(line), str(self._path)) for line in lines)
        except (OSError, ValueError, InvalidInput) as error:
            raise _unusable(self._path, error) from error
        return tuple(entry for entry in found if entry.instance == instance)

    def write(self, entry: Latched) -> None:
        """Appends one line; a single write(2), not yet synced."""
        if self._descriptor is None:
            raise InvalidConfiguration("the latch was not opened", where=str(self._path))
        os.write(self._descriptor, json.dumps(plain(entry)).encode() + b"\n")

    def sync(self) -> None:
        """Makes every line durable (fdatasync)."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def counted(self, instance: InstanceId) -> Closings:
        """The closings that `count` kept for this instance. Raises InvalidConfiguration, as `open` does."""
        try:
            kept = build(Counted, strictjson.loads(self._counted.read_bytes()), str(self._counted))
        except FileNotFoundError:
            return Closings()
        except (OSError, ValueError, InvalidInput) as error:
            raise _unusable(self._counted, error) from error
        return kept.closings if kept.instance == instance else Closings()

    def count(self, instance: InstanceId, closings: Closings) -> None:
        """Replaces what was kept, in one step. Raises OSError."""
        new = self._counted.with_suffix(".new")
        new.write_text(json.dumps(plain(Counted(instance, closings))))
        new.replace(self._counted)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _unusable(path: Path, error: Exception) -> InvalidConfiguration:
    return InvalidConfiguration(
        f"the latch cannot be used: {error}",
        where=str(path),
        mend="Give the sidecar a state folder of its own. A damaged latch is removed by an operator, "
        "who thereby vouches for the instance.",
    )
