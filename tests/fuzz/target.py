"""What a fuzz target is: a parser, the property it must have on every input, and inputs that reach its depths."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")


@dataclass(frozen=True, slots=True)
class Target:
    """One parser under attack.

    check: returns where the property holds and raises where it does not; what a parser declares it swallows, so
    that anything that leaves is a finding. seeds: made by the real encoders. words: what a mutation may insert
    whole. most_bytes: the longest input tried; above the parser's own limit, where it has a near one.
    """

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], tuple[bytes, ...]]
    words: tuple[bytes, ...] = ()
    most_bytes: int = 4096

    @property
    def folder(self) -> Path:
        """Inputs kept as files: findings of earlier runs, and texts that read better as a file."""
        return CORPUS / self.name

    def corpus(self) -> dict[str, bytes]:
        """Every input worth replaying, by a name that a failed test can show."""
        made = {f"seed {number}": seed for number, seed in enumerate(self.seeds())}
        kept = {path.name: path.read_bytes() for path in sorted(self.folder.glob("*"))} if self.folder.is_dir() else {}
        return made | kept


@cache
def scratch() -> Path:
    """A folder for what can only be read from a file; a hunt gives it a place in memory by TMPDIR."""
    folder = tempfile.mkdtemp(prefix="proofbeat-fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
