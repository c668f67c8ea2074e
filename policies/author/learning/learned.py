"""What was learned of a workload: enough to write everything from, and to be put together with other runs.

Everything that may be has an origin: the first time that it was seen. Nothing in it says what a policy makes of it.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, ValidationError

from attestation import strictjson
from attestation.errors import InvalidInput
from policies.model.dialect import Strict
from policies.model.references import CallName, FileReference, Label, ReferenceDigest

FILE = "learned.json"
_MOST_ORIGIN = 4096


class Origin(Strict):
    """run: by its id; empty for what no run saw by itself. at: seconds after that began. maker: the executable of
    whoever did it, or of who executed it; empty where it was so before, or where nobody knows.
    """

    run: str = Field(max_length=_MOST_ORIGIN)
    at: float = Field(ge=0)
    maker: str = ""

    @property
    def rank(self) -> tuple[bool, str, float, str]:
        """Of two origins of one thing the lesser one is told."""
        return not self.run, self.run, self.at, self.maker


Origins = dict[str, Origin]
Contents = dict[str, dict[ReferenceDigest, Origin]]
"""By path, and for each the contents that it had."""


class Run(Strict):
    """One time of watching. id: of this one alone; they sort by when they began. of: whom. machine: as uname(2) has it.

    seconds: how long. quiet, needed: seconds without anything new at its end, and how many of them say that it has
    converged. running: executables that ran before it began. executed: those that were executed while it lasted. ended:
    it was seen how the workload ends. lost: things that the kernel had no room to tell.
    """

    id: str = Field(max_length=_MOST_ORIGIN)
    of: str
    machine: str
    seconds: float = Field(ge=0)
    quiet: float = Field(ge=0)
    needed: float = Field(ge=0)
    running: tuple[str, ...] = ()
    executed: tuple[str, ...] = ()
    ended: bool = False
    lost: int = Field(default=0, ge=0)

    @property
    def converged(self) -> bool:
        return self.quiet >= self.needed


class Amount(Strict):
    """Code of no file that one process had at most, as attestation.memory.rounded has it, and of which kind it was."""

    most: int = Field(ge=0)
    writable: bool = False
    memfd: bool = False
    origin: Origin


class Learned(Strict):
    """include, exempt: what was measured of files, and what of it was left out, as a policy's `files.include` and
    `files.volatile`. files: those that stayed as they were. volatile: those that did not. executables: what was run.
    begun: scripts, and libraries before a program's own. mapped: files that were mapped as code, or that an executable
    names as its libraries. preload: what has no content to be referenced, as `processes.preload`. code: by executable.
    calls: by set, and by name.
    """

    version: Literal[1] = 1
    runs: tuple[Run, ...] = Field(min_length=1)
    include: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    files: dict[str, FileReference] = Field(default_factory=dict)
    volatile: Origins = Field(default_factory=dict)
    executables: Contents = Field(default_factory=dict)
    begun: Contents = Field(default_factory=dict)
    mapped: Contents = Field(default_factory=dict)
    preload: Origins = Field(default_factory=dict)
    code: dict[str, Amount] = Field(default_factory=dict)
    calls: dict[Label, dict[CallName, Origin]] = Field(default_factory=dict)

    @property
    def called(self) -> frozenset[str]:
        """In all sets."""
        return frozenset(name for each in self.calls.values() for name in each)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Executables that ran, and of which no run saw the start."""
        started = {path for run in self.runs for path in run.executed}
        return tuple(sorted({path for run in self.runs for path in run.running} - started))

    @property
    def converged(self) -> bool:
        """Did every run?"""
        return all(run.converged for run in self.runs)


def text(learned: Learned) -> str:
    """As a file; `read` gives it back."""
    return json.dumps(learned.model_dump(mode="json", by_alias=True), indent=1, sort_keys=True) + "\n"


def read(document: str, where: str) -> Learned:
    """Raises InvalidInput for what is not of this form."""
    mend = f"Name a folder that `proofbeat policy learn` wrote, or the {FILE} in it."
    try:
        return Learned.model_validate(strictjson.loads(document.encode()))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        said = f"it is nothing that was learned: {place}: {fault['msg']}"
        raise InvalidInput(said, where=where, mend=mend) from error
    except InvalidInput as error:
        raise InvalidInput(f"it is nothing that was learned: {error.what}", where=where, mend=mend) from error
