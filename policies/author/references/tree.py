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


class Tree:
    """What is at each path. origin: what it is made from, for whoever reads an error."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.root = Folder()
        self._made = 0

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
        if not (isinstance(node, Folder) and isinstance(folder.children.get(last), Folder)):
            folder.children[last] = node

    def remove(self, path: Sequence[str]) -> None:
        """With everything in it; nothing where it is not there."""
        if path:
            *around, last = path
            folder = self.at(around)
            if isinstance(folder, Folder):
                folder.children.pop(last, None)

    def empty(self, path: Sequence[str]) -> None:
        """Take everything out of this folder; nothing where there is none."""
        folder = self.at(path)
        if isinstance(folder, Folder):
            folder.children.clear()

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
        real = resolved(path, self.at)
        found = None if real is None else self.at(real)
        return None if real is None or found is None else ("/" + "/".join(real), found)

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


def within(path: str, root: str) -> bool:
    """Is this path the root, or in it?"""
    return path == root or path.startswith(root.rstrip("/") + "/")


def _around(path: str, root: str) -> bool:
    """Is this path on the way to the root?"""
    return root.startswith(f"{path}/")


def resolved(path: str, at: Callable[[Sequence[str]], Node | None]) -> Parts | None:
    """Where a path leads when every link is followed, as the kernel does it: `..` at the root is the root.

    at: what is at a path, links not followed.
    """
    todo, done, links = _names(path), list[str](), 0
    while todo:
        name = todo.pop()
        if name == "..":
            done = done[:-1]
            continue
        node = at([*done, name])
        if isinstance(node, Link):
            links += 1
            if links > MOST_LINKS:
                return None
            if node.target.startswith("/"):
                done = []
            todo += _names(node.target)
        elif node is None or (todo and not isinstance(node, Folder)):
            return None
        else:
            done.append(name)
    return tuple(done)


def _names(path: str) -> list[str]:
    """The last first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
