"""Archives as file systems: one alone, or layers over each other (OCI image-spec, layer.md).

A layer is read whole before anything of it is applied: a whiteout hides what lower layers have, wherever it stands in
the archive, and never what its own layer has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from attestation.errors import InvalidInput
from policies.author.references import tar
from policies.author.references.bounds import Budget
from policies.author.references.programs import HEAD, program
from policies.author.references.streams import CHUNK, Stream
from policies.author.references.tar import Entry, Kind
from policies.author.references.tree import File, Folder, Link, Node, Parts, Special, Tree

_WHITEOUT, _OPAQUE, _RESERVED = ".wh.", ".wh..wh..opq", ".wh..wh."
_AGAIN = "Pack it again."


@dataclass
class Layer:
    """What one archive puts where, and what it takes away from the layers below.

    linked: hard links to what this layer does not have: path -> what it is a link to. removed, emptied: what whiteouts
    hide, one path or all that is in a folder.
    """

    origin: str
    nodes: dict[Parts, Node] = field(default_factory=dict)
    linked: dict[Parts, Parts] = field(default_factory=dict)
    removed: set[Parts] = field(default_factory=set)
    emptied: set[Parts] = field(default_factory=set)


def read(stream: Stream, budget: Budget, origin: str, *, whiteouts: bool = True) -> Layer:
    """Raises InvalidInput for what is no archive, or may be unpacked as different things.

    whiteouts: whether names that begin with `.wh.` mean what they mean in an image's layer.
    """
    layer = Layer(origin)
    for entry, content in tar.entries(stream, budget, origin):
        name = entry.path[-1] if entry.path else ""
        if whiteouts and name.startswith(_WHITEOUT):
            _take_away(layer, entry)
        else:
            _take(layer, entry, content)
    early = next((path for path, at in layer.linked.items() if at in layer.nodes or at in layer.linked), None)
    if early is not None:
        raise InvalidInput(f"/{'/'.join(early)} is a hard link to what comes after it", where=origin, mend=_AGAIN)
    return layer


def hashed(stream: Stream) -> tuple[str, int, bytes]:
    """Digest, size and the first bytes (policies.author.references.programs.HEAD) of all that is left in a stream."""
    state, size, head = hashlib.sha256(), 0, b""
    while chunk := stream.read(CHUNK):
        state.update(chunk)
        size += len(chunk)
        if len(head) < HEAD:
            head += chunk[: HEAD - len(head)]
    return state.hexdigest(), size, head


def file_of(stream: Stream, *, mode: int, uid: int, gid: int) -> File:
    """A file with what is left in a stream."""
    digest, size, head = hashed(stream)
    return File(digest, size, mode, uid, gid, program(head, size) if mode & 0o111 else None)


def _take(layer: Layer, entry: Entry, content: Stream) -> None:
    node = _node(layer, entry, content)
    known = layer.nodes.get(entry.path)
    if (known is not None or entry.path in layer.linked) and not (
        isinstance(known, Folder) and isinstance(node, Folder)
    ):
        raise InvalidInput(
            f"/{'/'.join(entry.path)} stands twice: who unpacks it decides which one it becomes",
            where=layer.origin,
            mend=_AGAIN,
        )
    if node is None:
        target = tar.placed(entry.target, layer.origin)
        layer.linked[entry.path] = layer.linked.get(target, target)
    else:
        layer.nodes[entry.path] = node


def _node(layer: Layer, entry: Entry, content: Stream) -> Node | None:
    """None for a hard link to what is not in this layer so far."""
    match entry.kind:
        case Kind.FILE:
            return file_of(content, mode=entry.mode, uid=entry.uid, gid=entry.gid)
        case Kind.FOLDER:
            return Folder()
        case Kind.LINK:
            return Link(entry.target, entry.uid, entry.gid)
        case Kind.HARD_LINK:
            return _shared(layer.nodes.get(tar.placed(entry.target, layer.origin)), entry.path, layer.origin)
        case Kind.DEVICE | Kind.FIFO:
            return Special(entry.kind.value)


def _shared(node: Node | None, path: Parts, origin: str) -> Node | None:
    if isinstance(node, Folder):
        raise InvalidInput(f"/{'/'.join(path)} is a hard link to a folder", where=origin, mend=_AGAIN)
    return node


def _take_away(layer: Layer, entry: Entry) -> None:
    *around, name = entry.path
    if entry.kind is not Kind.FILE or entry.size:
        raise InvalidInput(f"/{'/'.join(entry.path)}: a whiteout is an empty file", where=layer.origin, mend=_AGAIN)
    if name == _OPAQUE:
        layer.emptied.add(tuple(around))
        return
    hidden = name.removeprefix(_WHITEOUT)
    if name.startswith(_RESERVED) or hidden in ("", ".", ".."):
        raise InvalidInput(f"/{'/'.join(entry.path)}: a whiteout that hides nothing", where=layer.origin, mend=_AGAIN)
    layer.removed.add((*around, hidden))


def apply(tree: Tree, layer: Layer, mounted: Parts = ()) -> None:
    """Lays a layer over the tree. mounted: where its root is.

    Raises InvalidInput where a path leads through a link or a file: unpackers differ in where that ends up.
    """
    for path in layer.removed:
        tree.remove((*mounted, *path))
    for path in layer.emptied:
        tree.empty((*mounted, *path))
    below = {path: _below(tree, mounted, path, target, layer.origin) for path, target in layer.linked.items()}
    for path, node in sorted((layer.nodes | below).items(), key=lambda each: len(each[0])):
        # A folder of its own each time: an image may have a layer twice.
        tree.put((*mounted, *path), Folder() if isinstance(node, Folder) else node)


def _below(tree: Tree, mounted: Parts, path: Parts, target: Parts, origin: str) -> Node:
    node = _shared(tree.at((*mounted, *target)), path, origin)
    if node is None:
        raise InvalidInput(
            f"/{'/'.join(path)} is a hard link to /{'/'.join(target)}, which is not there", where=origin, mend=_AGAIN
        )
    return node


def flattened(layers: Sequence[Layer], origin: str, mounted: Parts = ()) -> Tree:
    """Layers over each other, the lowest first. mounted: where their root is."""
    tree = Tree(origin)
    tree.put(mounted, Folder())
    for layer in layers:
        apply(tree, layer, mounted)
    return tree
