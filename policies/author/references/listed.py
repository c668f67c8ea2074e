"""What somebody else says the files are, in a format of theirs: paths with digests, and nothing of modes or links."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestation import strictjson
from attestation.digests import Digest, well_formed
from attestation.errors import InvalidInput
from policies.author.references.bounds import MOST_DOCUMENT, MOST_ENTRIES
from policies.author.references.build import Report, writable
from policies.author.references.tree import Parts


@dataclass(slots=True)
class Listed:
    """path -> digests. mounted: where relative paths begin."""

    origin: str
    mounted: Parts
    report: Report
    files: dict[str, tuple[Digest, ...]] = field(default_factory=dict)

    def add(self, name: str, digests: tuple[Digest, ...]) -> None:
        """Takes what can be stated, and reports the rest by its reason. Raises InvalidInput for two contents of a path.

        digests: those that are SHA-256, in any spelling of hexadecimal digits.
        """
        path = name if name.startswith("/") else "/".join(("", *self.mounted, name.removeprefix("./")))
        known = tuple(dict.fromkeys(each.lower() for each in digests if well_formed(each.lower())))
        if any(part in ("", ".", "..") for part in path.split("/")[1:]) or not writable(path):
            self.report.skip("unnameable", "its name is no path of a file", name)
        elif not known:
            self.report.skip("no-sha256", "no SHA-256 is stated of it, and nothing weaker is a reference", path)
        elif self.files.get(path, known) != known:
            raise InvalidInput(
                f"{path} is listed with different contents",
                where=self.origin,
                mend="List one state of the files: of an image the squashed one, not all layers.",
            )
        elif len(self.files) >= MOST_ENTRIES:
            raise InvalidInput(f"more than {MOST_ENTRIES} paths", where=self.origin)
        else:
            self.files[path] = known


def document(path: Path) -> dict[str, Any]:
    """A JSON object in a file. Raises InvalidInput."""
    with path.open("rb") as file:
        content = file.read(MOST_DOCUMENT + 1)
    if len(content) > MOST_DOCUMENT:
        raise InvalidInput(f"more than {MOST_DOCUMENT} bytes", where=str(path))
    return parsed(content, str(path))


def parsed(content: bytes, where: str) -> dict[str, Any]:
    """Raises InvalidInput for what is no JSON object."""
    try:
        value = strictjson.loads(content)
    except InvalidInput as error:
        raise InvalidInput("it is no JSON", where=where) from error
    if not isinstance(value, dict):
        raise InvalidInput("it is no JSON object", where=where)
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    """Of a list, what is an object."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """Empty for what is no text."""
    return value if isinstance(value, str) else ""
