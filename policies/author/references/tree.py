"""A file system in memory: what is at each path, by digest. Nothing of it is ever on disk.

Paths are as the workload sees them. A tree that is mounted at `/srv/app` has that folder in it, and everything else
is unknown to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field

from attestation.digests import Digest
from attestation.errors import InvalidInput
from policies.author.references.bounds import MOST_ENTRIES, MOST_LINKS
from policies.author.references.programs import Program


@dataclass(frozen=True, slots=True)
class File:
    """digest: of its content. mode: permission bits with setuid, setgid, sticky. program: of what may be executed."""

    digest: Digest
    size: int
    mode: int
    uid: int
    gid: int
    program: Program | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link. target: as it is written."""

    target: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Special:
    """What has no content that is looked at. kind: `device`, `fifo`, `socket`, `mount`."""

    kind: str


@dataclass(slots=True)
class Folder:
    children: MutableMapping[str, Node] = field(default_factory=dict)


Node = File | Link | Special | Folder
Parts = tuple[str, ...]
"""A path as its names: `/srv/app` is ("srv", "app"), `/` is ()."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is somewhere, and the folders on the way there. around: None for the root, whose name is empty."""

    around: Place | None
    name: str
    node: Node

    @property
    def parts(self) -> Parts:
        names, place = list[str](), self
        while place.around is not None:
            names.append(place.name)
            place = place.around
        return tuple(reversed(names))


class Links:
    """Follows links as the kernel does: `..` at the root is the root, and more than MOST_LINKS lead nowhere.

    Each link is followed once for all paths that lead through it. So many paths cost what they are long, and what the
    links are long, whatever leads through whatever.

    below: what has this name in the folder of a place; links not followed.
    """

    def __init__(self, root: Node, below: Callable[[Place, str], Node | None]) -> None:
        self._root = Place(None, "", root)
        self._below = below
        self._known: dict[Parts, tuple[Place, int]] = {}
        self._lost: set[Parts] = set()

    def follow(self, path: str) -> Place | None:
        """Where a path leads; None where it leads nowhere."""
        found = self._walk(path, self._root, 0)
        return None if found is None else found[0]

    def more_is_there(self) -> None:
        """What led nowhere may lead there now."""
        self._lost.clear()

    def _walk(self, path: str, place: Place, around: int) -> tuple[Place, int] | None:
        """With the number of links on the way. around: links within which this is one."""
        todo, links = _names(path), 0
        while todo:
            name = todo.pop()
            if name == "..":
                place = place.around or place
                continue
            node = self._below(place, name)
            if isinstance(node, Link):
                behind = self._behind(place, name, node, around)
                if behind is None or links + behind[1] > MOST_LINKS:
                    return None
                place, links = behind[0], links + behind[1]
            elif node is not None:
                place = Place(place, name, node)
            if node is None or (todo and not isinstance(place.node, Folder)):
                return None
        return place, links

    def _behind(self, place: Place, name: str, link: Link, around: int) -> tuple[Place, int] | None:
        key = (*place.parts, name)
        if key in self._known:
            return self._known[key]
        if key in self._lost or around == MOST_LINKS:
            return None
        found = self._walk(link.target, self._root if link.target.startswith("/") else place, around + 1)
        if found is not None and found[1] < MOST_LINKS:
            self._known[key] = (found[0], found[1] + 1)
            return self._known[key]
        if not around:  # within others it was perhaps only too late to find out
            self._lost.add(key)
        return None


class Tree:
    """What is at each path. origin: what it is made from, for whoever reads an error."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.root = Folder()
        self._made = 0
        self._links: Links | None = None
        """What is known of links, until one of them may lead elsewhere."""

    def at(self, path: Sequence[str]) -> Node | None:
        """What is at this very path; links are not followed."""
        node: Node | None = self.root
        for name in path:
            if not isinstance(node, Folder):
                return None
            node = node.children.get(name)
        return node

    def put(self, path: Sequence[str], node: Node) -> None:
        """Whatever was there is gone, with all that was in it; a folder over a folder changes nothing.

        Missing folders on the way are made. Raises InvalidInput where the way leads through something else.
        """
        if not path:
            if not isinstance(node, Folder):
                raise InvalidInput("its root is no folder", where=self.origin)
            return
        *around, last = path
        folder = self._folder(around)
        known = folder.children.get(last)
        if isinstance(node, Folder) and isinstance(known, Folder):
            return
        folder.children[last] = node
        if known is not None:
            self._links = None
        elif self._links is not None:
            self._links.more_is_there()

    def remove(self, path: Sequence[str]) -> None:
        """With everything in it; nothing where it is not there."""
        if path:
            *around, last = path
            folder = self.at(around)
            if isinstance(folder, Folder):
                folder.children.pop(last, None)
                self._links = None

    def empty(self, path: Sequence[str]) -> None:
        """Take everything out of this folder; nothing where there is none."""
        folder = self.at(path)
        if isinstance(folder, Folder):
            folder.children.clear()
            self._links = None

    def walk(self, include: Sequence[str] = ()) -> Iterator[tuple[str, File | Link | Special]]:
        """Everything but folders, with its absolute path, sorted by name within each folder.

        include: absolute paths; nothing is looked at but these and what is in them. None for all.
        """
        waiting: list[tuple[str, MutableMapping[str, Node], str]] = [("", {"": self.root}, "")]
        while waiting:
            path, around, last = waiting.pop()
            if include and not any(_around(path, each) or within(path, each) for each in include):
                continue
            node = around.get(last)
            if isinstance(node, Folder):
                waiting += [(f"{path}/{name}", node.children, name) for name in sorted(node.children, reverse=True)]
            elif node is not None and not (include and not any(within(path, each) for each in include)):
                yield path, node

    def resolve(self, path: str) -> tuple[str, Node] | None:
        """Where a path leads when every link is followed, and what is there; None where it leads nowhere."""
        if self._links is None:
            self._links = Links(self.root, _below)
        place = self._links.follow(path)
        return None if place is None else ("/" + "/".join(place.parts), place.node)

    def _folder(self, path: Sequence[str]) -> Folder:
        folder = self.root
        for depth, name in enumerate(path, 1):
            below = folder.children.get(name)
            if below is None:
                below = folder.children[name] = self._on_the_way()
            if not isinstance(below, Folder):
                kind = "a link" if isinstance(below, Link) else "no folder"
                raise InvalidInput(
                    f"/{'/'.join(path)} leads through /{'/'.join(path[:depth])}, which is {kind}",
                    where=self.origin,
                    mend="Who unpacks it decides where that ends up. Pack the files at their real paths.",
                )
            folder = below
        return folder

    def _on_the_way(self) -> Folder:
        """A folder that no entry states. One long path can have thousands of them."""
        self._made += 1
        if self._made > MOST_ENTRIES:
            what = f"more than {MOST_ENTRIES} folders that it does not state itself"
            raise InvalidInput(what, where=self.origin, mend="Pack it again.")
        return Folder()


def _below(place: Place, name: str) -> Node | None:
    return place.node.children.get(name) if isinstance(place.node, Folder) else None


def within(path: str, root: str) -> bool:
    """Is this path the root, or in it?"""
    return path == root or path.startswith(root.rstrip("/") + "/")


def _around(path: str, root: str) -> bool:
    """Is this path on the way to the root?"""
    return root.startswith(f"{path}/")


def _names(path: str) -> list[str]:
    """The last first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
