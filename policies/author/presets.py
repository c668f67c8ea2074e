"""The policies that come with Proofbeat: ordinary documents, each value with its reason beside it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from attestation.errors import InvalidInput

_FOLDER = resources.files("policies") / "presets"
_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class Preset:
    """about: what it is for, in a sentence. text: the document as it is written."""

    name: str
    about: str
    text: str


def presets() -> tuple[Preset, ...]:
    """All of them, by name."""
    names = (each.name.removesuffix(_SUFFIX) for each in _FOLDER.iterdir() if each.name.endswith(_SUFFIX))
    return tuple(preset(name) for name in sorted(names))


def preset(name: str) -> Preset:
    """Raises InvalidInput for a name that none has."""
    file = _FOLDER / f"{name}{_SUFFIX}"
    if "/" in name or not file.is_file():
        known = ", ".join(each.name for each in presets())
        raise InvalidInput(f"no preset {name!r}", where="policy preset", mend=f"There are: {known}.")
    text = file.read_text(encoding="utf-8")
    return Preset(name, _about(text), text)


def _about(text: str) -> str:
    """The first sentence of the comment that it begins with."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    first, stop, _ = " ".join(lines).partition(". ")
    return first + stop.strip()
