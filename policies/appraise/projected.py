"""Projected volumes: what their stable names lead to now.

Kubernetes writes each state of such a volume into a folder of its own beside the last (`..2026_11_24_09_30_00.1234`),
and then renames a link over `..data`, which leads there. Every other name in the volume is a link through `..data`, so
that all of them change in one instant (pkg/volume/util/atomic_writer.go in Kubernetes). Only these names are stable,
and nothing but them is opened by anybody; what lies beside them, half-written or left over, does not matter.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from attestation.digests import Digest
from attestation.manifest import FILE, LINK, OTHER, Entry
from attestation.patterns import matches

_DATA = "..data"


def hidden(path: str) -> bool:
    """Is it one of the names that come and go with each swap, or below one?"""
    return "/.." in path


def leads_to_now(entry: Entry) -> bool:
    """Is it the link by which a stable name leads through `..data`?"""
    return entry.kind == LINK and entry.digest == _of_text(f"{_DATA}/{entry.path.rpartition('/')[2]}")


class Volumes:
    """The links and the hidden names of one manifest. The text of a link is known by its digest only, which is enough
    to tell whether it is the one that it has to be."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._names: set[str] = set()
        self._states: dict[str, dict[Digest, str]] = defaultdict(dict)

    def add(self, entry: Entry) -> None:
        """Each entry of the manifest."""
        if hidden(entry.path):
            self._entries[entry.path] = entry
            volume, _, name = entry.path.rpartition("/")
            if name.startswith(".."):
                self._states[volume][_of_text(name)] = name
        elif leads_to_now(entry):
            self._names.add(entry.path)

    def seen_through(self, paths: Iterable[str]) -> Iterator[tuple[str, Entry | None]]:
        """Those of the paths that lead into a volume, each with what is there under that name; None for nothing.

        What is there and no file is of kind OTHER: nobody follows links any further.
        """
        roots = tuple({name.rpartition("/")[0] + "/" for name in self._names})
        for path in paths:
            name = self._stable_name(path) if path.startswith(roots) else ""
            if name:
                found = self._now(path, name.rpartition("/")[0])
                yield path, found and found._replace(path=path, kind=FILE if found.kind == FILE else OTHER)

    def shown(self) -> Iterator[Entry]:
        """Every file that a stable name leads to, under that name."""
        for entry in self._entries.values():
            volume, _, within = entry.path.partition("/..")
            _, _, below = within.partition("/")
            path = f"{volume}/{below}"
            if entry.kind == FILE and self._stable_name(path) and self._now(path, volume) is entry:
                yield entry._replace(path=path)

    def _stable_name(self, path: str) -> str:
        """The path, or the nearest folder around it, that leads through `..data`; empty for none."""
        while path and path not in self._names:
            path, _, _ = path.rpartition("/")
        return path

    def _now(self, path: str, volume: str) -> Entry | None:
        data = self._entries.get(f"{volume}/{_DATA}")
        if data is None or data.kind != LINK:
            return None
        state = self._states.get(volume, {}).get(data.digest)
        return self._entries.get(f"{volume}/{state}{path.removeprefix(volume)}") if state else None


def by_stable_names(entries: Iterable[Entry], patterns: Sequence[str]) -> Iterator[Entry]:
    """The entries of a manifest, as reference values state them: where the patterns match, by what never changes."""
    volumes = Volumes()
    for entry in entries:
        volumes.add(entry)
        if not matches(entry.path, patterns) or not (hidden(entry.path) or leads_to_now(entry)):
            yield entry
    yield from (entry for entry in volumes.shown() if matches(entry.path, patterns))


def _of_text(text: str) -> Digest:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
