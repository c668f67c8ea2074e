"""The policies that come with Proofbeat: ordinary documents, each value with its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InvalidInput

_FOLDER = Path(__file__).parents[1] / "presets"


@dataclass(frozen=True, slots=True)
class Preset:
    """file: where it stands, a document as any other."""

    name: str
    file: Path

    @property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    @property
    def about(self) -> str:
        """What it is for: the first sentence of the comment that it begins with."""
        lines = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.removeprefix("#").strip())
        first, stop, _ = " ".join(lines).partition(". ")
        return first + stop.strip()


def presets() -> tuple[Preset, ...]:
    """All of them, by name."""
    return tuple(Preset(each.stem, each) for each in sorted(_FOLDER.glob("*.yaml")))


def preset(name: str) -> Preset:
    """Raises InvalidInput for a name that none has."""
    found = next((each for each in presets() if each.name == name), None)
    if found is None:
        known = ", ".join(each.name for each in presets())
        raise InvalidInput(f"no preset {name!r}", where="policy preset", mend=f"There are: {known}.")
    return found
