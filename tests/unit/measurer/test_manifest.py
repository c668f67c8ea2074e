"""The packed tree is the canonical manifest, however it came about."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from attestation import manifest
from attestation.manifest import DIRECTORY, FILE, HEAD, Entry, capabilities_of
from measurer.files.manifest import STAMP, Folder, Tree, split

letters = st.binary(min_size=1, max_size=4).filter(
    lambda name: not set(name) & set(b"\0/") and name not in (b".", b"..")
)
paths = st.lists(letters, min_size=1, max_size=4).map(lambda parts: b"/top/" + b"/".join(parts))
STAMPED = STAMP.pack(1, 2, 3)


def entry(path: bytes, kind: bytes, size: int) -> Entry:
    return Entry(os.fsdecode(path), kind, 0o644, 1, 2, size, f"{size:064x}")


def record(path: bytes, kind: bytes, size: int) -> bytes:
    return HEAD.pack(len(path), kind, 0o644, 1, 2, size, bytes.fromhex(f"{size:064x}"))


VALUE = bytes.fromhex("0100000200200000000000000000000000000000")


def capabilities(size: int) -> bytes:
    """Every third file has some."""
    return b"" if size % 3 else VALUE


def grown(files: dict[bytes, int], folders: set[bytes]) -> Tree:
    """The same tree, put in entry by entry."""
    tree = Tree([b"/top"])
    for path in sorted(folders):
        parent, name = split(path)
        tree.folders[parent].put(name, record(path, DIRECTORY, 0), STAMPED)
        tree.add(path)
    for path, size in files.items():
        parent, name = split(path)
        tree.folders[parent].put(name, record(path, FILE, size) + capabilities(size), STAMPED)
    return tree


def filled(tree: Tree) -> Tree:
    """The same tree, its folders filled at once."""
    for folder in tree.folders.values():
        known = folder.parsed()
        stamps = b"".join(stamp for _, stamp in known.values())
        folder.fill([*known], [found for found, _ in known.values()], stamps)
    return tree


def parents(path: bytes) -> set[bytes]:
    found = set()
    while (path := split(path)[0]) != b"":
        found.add(path)
    return found


def shape(wanted: dict[bytes, int]) -> tuple[dict[bytes, int], set[bytes]]:
    """Files, and the folders they need; a path that is a folder of another is no file."""
    folders = {b"/top"}.union(*[parents(path) for path in wanted])
    return {path: size for path, size in wanted.items() if path not in folders}, folders


@given(st.dictionaries(paths, st.integers(0, 1 << 40), max_size=30))
def test_a_tree_packs_to_the_canonical_manifest(wanted: dict[bytes, int]) -> None:
    files, folders = shape(wanted)
    tree = grown(files, folders)
    entries = [entry(path, FILE, size) for path, size in files.items()]
    entries += [entry(path, DIRECTORY, 0) for path in folders]
    entries += [
        capabilities_of(os.fsdecode(path), value.hex()) for path, size in files.items() if (value := capabilities(size))
    ]
    passing = manifest.passing(tree.size)
    assert b"".join(passing.through(tree.pieces())) == manifest.pack(entries)
    assert passing.digest == manifest.digest(manifest.pack(entries))
    assert list(manifest.unpack(b"".join(tree.pieces()))) == list(manifest.unpack(manifest.pack(entries)))
    assert tree.entries == len(entries)
    assert b"".join(filled(tree).pieces()) == manifest.pack(entries)


@given(st.dictionaries(paths, st.integers(0, 1 << 40), min_size=1, max_size=20), st.data())
def test_taking_entries_out_again_leaves_what_was_never_put_in(wanted: dict[bytes, int], data: st.DataObject) -> None:
    files, folders = shape(wanted)
    gone = data.draw(st.sets(st.sampled_from(sorted(files))) if files else st.just(set()))
    tree = grown(files, folders)
    for path in gone:
        parent, name = split(path)
        tree.folders[parent].drop(name)
    rest = {path: size for path, size in files.items() if path not in gone}
    assert b"".join(tree.pieces()) == b"".join(grown(rest, folders).pieces())


@given(st.dictionaries(letters, st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 60)), max_size=20))
def test_what_is_put_into_a_folder_is_found_again(wanted: dict[bytes, tuple[int, int]]) -> None:
    folder = Folder(b"/some/where")
    for name, (size, inode) in wanted.items():
        folder.put(name, record(b"/some/where/" + name, FILE, 0), STAMPED)
        folder.put(name, record(b"/some/where/" + name, FILE, size), STAMP.pack(inode, 0, 0))
    for name, (size, inode) in wanted.items():
        assert folder.get(name) == (record(b"/some/where/" + name, FILE, size), STAMP.pack(inode, 0, 0))
    assert folder.listing() == sorted(wanted)
    assert folder.get(b"no such name") is None


def test_a_removed_folder_takes_all_below_it_along() -> None:
    tree = grown({b"/top/a/b/c": 1, b"/top/a-b": 2}, {b"/top", b"/top/a", b"/top/a/b"})
    assert [folder.path for folder in tree.remove(b"/top/a")] == [b"/top/a", b"/top/a/b"]
    assert b"/top/a/b" not in tree.folders
    assert tree.remove(b"/top/a") == []


def test_only_included_names_are_measured_on_the_way_to_them() -> None:
    tree = Tree([b"/srv/app", b"/srv/app/below", b"/etc/one", b"/etc/two"])
    only = {path: folder.only for path, folder in tree.folders.items()}
    assert only == {b"": frozenset(), b"/srv": {b"app"}, b"/etc": {b"one", b"two"}}
    assert Tree([b"/", b"/srv"]).folders[b""].only is None


def test_includes_in_neighbouring_folders_keep_the_canonical_order() -> None:
    tree = Tree([b"/srv/app", b"/srv/app-2/deep"])
    for path in (b"/srv/app", b"/srv/app-2/deep"):
        parent, name = split(path)
        tree.folders[parent].put(name, record(path, DIRECTORY, 0), STAMPED)
    tree.add(b"/srv/app").put(b"x", record(b"/srv/app/x", FILE, 1), STAMPED)
    body = b"".join(tree.pieces())
    assert [each.path for each in manifest.unpack(body)] == ["/srv/app", "/srv/app-2/deep", "/srv/app/x"]
