"""Which version of the wire two peers speak with each other (docs/wire.md has the rules).

The sidecar's requests carry the range it speaks, the answers the one version chosen: in an HTTP header, which a peer
from before there were versions neither sends nor minds. Whoever says nothing speaks 1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestation.errors import InvalidInput, Refused
from wire.problems import Kind

HEADER = "Proofbeat-Wire"
_RANGE = re.compile(r"(\d{1,4})\.(\d{1,4})(?:-(\d{1,4})\.(\d{1,4}))?")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """major: peers of two majors do not understand each other. minor: adds what the older peer is never sent."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


@dataclass(frozen=True, slots=True)
class Spoken:
    """Every version from `lowest` to `highest`, both included."""

    lowest: Version
    highest: Version

    def __contains__(self, version: Version) -> bool:
        return self.lowest <= version <= self.highest

    def __str__(self) -> str:
        return str(self.lowest) if self.lowest == self.highest else f"{self.lowest}-{self.highest}"


FIRST = Version(1, 0)
OURS = Spoken(FIRST, Version(1, 9))
FILE_CAPABILITIES = 6
"""The minor from which on an authority reads capabilities in a manifest of files; before, it refuses them."""
CALLS = 7
"""The minor from which on an authority reads the layer of system calls."""
DETECTORS = 8
"""The minor from which on an authority reads of somebody else's detectors in coverage, and passes on their alerts."""
CAPABILITY_USES = 8
"""The minor from which on it reads in that layer which capabilities were used."""
NOTIFICATIONS = 9
"""The minor from which on it reads in coverage of calls that wait for an answer."""


def read(header: str | None) -> Spoken:
    """A header's range, or its single version; 1.0 where there is no header. Raises InvalidInput for anything else."""
    if header is None:
        return Spoken(FIRST, FIRST)
    found = _RANGE.fullmatch(header)
    if found is None:
        raise InvalidInput("a version that does not parse", where=HEADER, mend=f"Written like {OURS}.")
    lowest = Version(int(found[1]), int(found[2]))
    return Spoken(lowest, lowest if found[3] is None else Version(int(found[3]), int(found[4])))


def agreed(theirs: Spoken, ours: Spoken = OURS) -> Version:
    """The highest version that both speak. Raises Refused (version-unsupported) where there is none."""
    highest = min(theirs.highest, ours.highest)
    if highest not in theirs or highest not in ours:
        older = "sidecar" if theirs.highest < ours.lowest else "authority"
        raise Refused(
            f"the sidecar speaks wire {theirs}, this authority {ours}",
            kind=Kind.VERSION_UNSUPPORTED,
            where=HEADER,
            mend=f"Bring the {older} to a release that speaks the other's version.",
        )
    return highest


def chosen(header: str | None) -> Version:
    """The one version in an answer. Raises InvalidInput when it is none of those we offered."""
    told = read(header)
    if told.lowest != told.highest or told.highest not in OURS:
        raise InvalidInput(
            f"the authority chose wire {told}, which was not offered",
            where=HEADER,
            mend=f"This sidecar speaks {OURS}: update whichever of the two is older.",
        )
    return told.highest
