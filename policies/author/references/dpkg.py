"""What dpkg knows of the files on a root: a note on where they come from, never a reference.

What it keeps (`*.md5sums`) is MD5 only, lies beside the files, and is made by whoever makes the package: it tells an
accident from what was shipped, and no attack.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from attestation.errors import InvalidInput
from policies.author.references import folder
from policies.author.references.bounds import Budget
from policies.author.references.debian import lines
from policies.author.references.streams import Told, chunks, opened
from policies.author.references.tree import Folder, Links, Node, Parts, Place
from policies.model.references import FileReference


@dataclass(slots=True)
class Provenance:
    """What dpkg says of the files that are referenced. packaged: as they were shipped, by MD5.

    altered: with other content than was shipped. other: the root has another content than the reference. unlisted:
    of no package, or a configuration file.
    """

    packaged: int = 0
    altered: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    unlisted: int = 0

    @property
    def clean(self) -> bool:
        return not self.altered and not self.other


def provenance(root: Path, files: Mapping[str, FileReference], budget: Budget) -> Provenance:
    """Holds referenced files against the packages of a root. Raises InvalidInput where none is, or for its lists."""
    found, seen, folders, links = Provenance(), set[str](), dict[str, Parts](), _links(root)
    for path, md5 in sorted(_stated(root, links, budget).items()):
        around, _, name = path.rpartition("/")
        if around not in folders:
            folders[around] = _real(links, around)
        parts = (*folders[around], name)
        real = "/" + "/".join(parts)
        if real not in files or real in seen:
            continue
        seen.add(real)
        digests = _digests(root, parts, budget)
        if digests is None or digests[1] not in files[real].digests:
            found.other.append(real)
        elif digests[0] != md5:
            found.altered.append(real)
        else:
            found.packaged += 1
    found.unlisted = len(files.keys() - seen)
    return found


def _stated(root: Path, links: Links, budget: Budget) -> dict[str, str]:
    """Path -> MD5, of all packages."""
    parts = _real(links, "/var/lib/dpkg/info")
    names = folder.read(root.joinpath(*parts), budget).root.children if parts else ()
    lists = sorted(name for name in names if name.endswith(".md5sums"))
    if not lists:
        raise InvalidInput("no package is installed there", where=str(root), mend="Name the root of a Debian system.")
    found = {}
    for name in lists:
        with folder.file(root, (*parts, name)) as file:
            for line in lines(chunks(opened(file, budget, str(root))), name):
                md5, _, path = line.partition("  ")
                if re.fullmatch(r"[0-9a-f]{32}", md5):
                    found[f"/{path}"] = md5
    return found


def _real(links: Links, path: str) -> Parts:
    """Where a path leads within the root; the root itself where it leads nowhere."""
    place = links.follow(path)
    return () if place is None else place.parts


def _links(root: Path) -> Links:
    def look(place: Place, name: str) -> Node | None:
        try:
            return folder.look(root, (*place.parts, name))
        except OSError:
            return None

    return Links(Folder(), look)


def _digests(root: Path, parts: Parts, budget: Budget) -> tuple[str, str] | None:
    """MD5 and SHA-256; None for what is no file."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(folder.file(root, parts))
        except OSError:
            return None
        md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        for chunk in chunks(Told(file, budget)):
            md5.update(chunk)
            sha256.update(chunk)
        return md5.hexdigest(), sha256.hexdigest()
