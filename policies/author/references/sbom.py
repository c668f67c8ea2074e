"""Bills of materials that list files: CycloneDX (1.2 and later) and SPDX 2.x, both as JSON.

Most name packages, and files only when they were asked to. What they say of a file is its digest: neither its mode nor
that it is a link.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from attestation.errors import InvalidInput
from policies.author.references.build import Report
from policies.author.references.listed import Listed, objects, text
from policies.author.references.tree import Parts

_MEND = "Have it made with the digests of files (syft: `SYFT_FILE_METADATA_SELECTION=all`)."
_MOST_NESTED = 64


def cyclonedx(document: dict[str, Any], origin: str, report: Report, mounted: Parts = ()) -> Listed:
    """Components of the type `file`, wherever they are nested. Raises InvalidInput."""
    listed = Listed(origin, mounted, report)
    for component in _components(document, origin):
        if component.get("type") == "file":
            digests = (
                text(each.get("content")) for each in objects(component.get("hashes")) if each.get("alg") == "SHA-256"
            )
            _add(listed, text(component.get("name")), tuple(digests))
        else:
            report.skip("no-file", "it is a component, of whose files nothing is said", text(component.get("name")))
    return _some(listed)


def _components(document: dict[str, Any], origin: str) -> Iterator[dict[str, Any]]:
    waiting = [(each, 0) for each in reversed(objects(document.get("components")))]
    while waiting:
        component, depth = waiting.pop()
        if depth > _MOST_NESTED:
            raise InvalidInput(f"components nested deeper than {_MOST_NESTED}", where=origin)
        yield component
        waiting += [(each, depth + 1) for each in reversed(objects(component.get("components")))]


def spdx(document: dict[str, Any], origin: str, report: Report, mounted: Parts = ()) -> Listed:
    """Raises InvalidInput, also for SPDX 3, whose documents are something else altogether."""
    version = text(document.get("spdxVersion"))
    if not version.startswith("SPDX-2."):
        raise InvalidInput(f"an SPDX document of version {version!r}", where=origin, mend="SPDX 2 is known here.")
    listed = Listed(origin, mounted, report)
    for file in objects(document.get("files")):
        stated = objects(file.get("checksums"))
        digests = (text(each.get("checksumValue")) for each in stated if each.get("algorithm") == "SHA256")
        _add(listed, text(file.get("fileName")), tuple(digests))
    return _some(listed)


def _add(listed: Listed, name: str, digests: tuple[str, ...]) -> None:
    """One content is one digest: what states two SHA-256 states none."""
    listed.add(name, digests if len(digests) == 1 else ())


def _some(listed: Listed) -> Listed:
    if not listed.files:
        raise InvalidInput("no file with a SHA-256 is listed in it", where=listed.origin, mend=_MEND)
    return listed
