"""Layers over each other: what is left is what the image's builder had on disk, and nothing is guessed."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import InvalidInput
from policies.author.references import layers
from policies.author.references.tree import File, Link, Special, Tree
from tests.unit.policies.references.packing import Put, budget, digest, packed


def flattened(*archives: bytes, mounted: tuple[str, ...] = (), whiteouts: bool = True) -> Tree:
    read = [layers.read(io.BytesIO(each), budget(), "layer", whiteouts=whiteouts) for each in archives]
    return layers.flattened(read, "image", mounted)


def contents(tree: Tree) -> dict[str, Any]:
    """Path -> what is there, in words."""
    return {path: _in_words(node) for path, node in tree.walk()}


def _in_words(node: File | Link | Special) -> Any:
    match node:
        case File():
            return node.digest, node.mode
        case Link():
            return node.target
        case Special():
            return node.kind


def fault(*archives: bytes) -> str:
    with pytest.raises(InvalidInput) as raised:
        flattened(*archives)
    return raised.value.sentence


# --- whatever is built ---

NAMES = st.sampled_from(["a", "b", "c", "wh", ".x"])
FILES = st.tuples(st.binary(max_size=3), st.sampled_from([0o644, 0o755]))
LEAVES = FILES | st.sampled_from(["a", "/b/c", ".."])
FOLDERS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(NAMES, LEAVES | inner, max_size=4),
    max_leaves=10,
)


def changes(old: Any, new: dict[str, Any], path: str, chance: random.Random) -> Iterator[Put]:
    """A layer as a builder makes it from what was on disk before and what is there now."""
    before = old if isinstance(old, dict) else {}
    opaque = chance.random() < 0.3
    if opaque:
        yield Put(f"{path}.wh..wh..opq", b"")
        before = {}
    for name in before.keys() - new.keys():
        yield Put(f"{path}.wh.{name}", b"")
    for name, node in new.items():
        if isinstance(node, dict):
            if name not in before or not isinstance(before[name], dict) or chance.random() < 0.5:
                yield Put(f"{path}{name}")
            yield from changes(before.get(name), node, f"{path}{name}/", chance)
        elif before.get(name) != node or chance.random() < 0.2:
            yield (
                Put(f"{path}{name}", link=node)
                if isinstance(node, str)
                else Put(f"{path}{name}", node[0], mode=node[1])
            )


def on_disk(folder: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, node in folder.items():
        if isinstance(node, dict):
            yield from on_disk(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", node if isinstance(node, str) else (digest(node[0]), node[1])


@settings(deadline=None)
@given(st.lists(FOLDERS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_layers_give_what_was_on_disk_when_the_last_one_was_made(
    states: list[dict[str, Any]], chance: random.Random
) -> None:
    archives: list[bytes] = []
    before: dict[str, Any] = {}
    for state in states:
        puts = list(changes(before, state, "", chance))
        chance.shuffle(puts)  # a whiteout hides what is below, wherever it stands in its layer
        archives.append(packed(*puts))
        before = state
    assert contents(flattened(*archives)) == dict(on_disk(states[-1]))


@settings(deadline=None)
@given(FOLDERS, st.randoms(use_true_random=False))
def test_an_archive_alone_is_what_was_packed(state: dict[str, Any], chance: random.Random) -> None:
    puts = [each for each in changes({}, state, "", chance) if ".wh." not in each.path]
    assert contents(flattened(packed(*puts), whiteouts=False)) == dict(on_disk(state))


# --- one by one ---

BASE = packed(Put("etc/app.conf", b"1"), Put("bin/tool", b"2", mode=0o755), Put("bin/more/tool", b"3"))


def test_a_whiteout_hides_a_file_or_a_folder_below_and_nothing_of_its_own_layer() -> None:
    assert contents(flattened(BASE, packed(Put("bin/.wh.more", b"")))).keys() == {"/etc/app.conf", "/bin/tool"}
    replaced = packed(Put("bin/more/new", b"4"), Put("bin/.wh.more", b""))
    assert contents(flattened(BASE, replaced)).keys() == {"/etc/app.conf", "/bin/tool", "/bin/more/new"}


@pytest.mark.parametrize("early", [True, False])
def test_an_opaque_folder_shows_nothing_from_below_wherever_it_says_so(early: bool) -> None:
    opaque, new = Put("bin/.wh..wh..opq", b""), Put("bin/new", b"4")
    found = contents(flattened(BASE, packed(*((opaque, new) if early else (new, opaque)))))
    assert found.keys() == {"/etc/app.conf", "/bin/new"}


def test_a_whiteout_of_what_is_not_there_hides_nothing() -> None:
    assert contents(flattened(BASE, packed(Put("x/y/.wh.z", b""), Put("q/.wh..wh..opq", b"")))) == contents(
        flattened(BASE)
    )


def test_a_file_takes_the_place_of_a_folder_and_a_folder_that_of_a_file() -> None:
    found = contents(
        flattened(BASE, packed(Put("bin", b"now a file"), Put("etc/app.conf"), Put("etc/app.conf/x", b"5")))
    )
    assert found.keys() == {"/bin", "/etc/app.conf/x"}


def test_a_layer_that_is_there_twice_means_the_same_each_time() -> None:
    archives = (packed(Put("d"), Put("d/x", b"1")), packed(Put("d/y", b"2")), packed(Put(".wh.d", b"")))
    added, more, gone = (layers.read(io.BytesIO(each), budget(), "layer") for each in archives)
    assert contents(layers.flattened([added, more, gone, added], "image")).keys() == {"/d/x"}


def test_a_hard_link_is_the_same_file_and_stays_so_when_the_other_name_changes() -> None:
    first = packed(Put("a", b"1", mode=0o755), Put("b", hard="a"))
    assert contents(flattened(first)) == {"/a": (digest(b"1"), 0o755), "/b": (digest(b"1"), 0o755)}
    later = flattened(first, packed(Put("a", b"2")))
    assert contents(later) == {"/a": (digest(b"2"), 0o644), "/b": (digest(b"1"), 0o755)}


def test_a_hard_link_may_lead_to_a_lower_layer_also_over_another_one() -> None:
    found = contents(flattened(BASE, packed(Put("b", hard="bin/tool"), Put("c", hard="b"))))
    assert found["/b"] == found["/c"] == found["/bin/tool"]


def test_what_is_mounted_somewhere_is_there() -> None:
    found = contents(flattened(BASE, packed(Put("bin/.wh.more", b""), Put("new", b"")), mounted=("srv", "app")))
    assert found.keys() == {"/srv/app/etc/app.conf", "/srv/app/bin/tool", "/srv/app/new"}


def test_what_has_no_content_is_kept_as_what_it_is() -> None:
    assert contents(flattened(packed(Put("dev/null", device=True)))) == {"/dev/null": "device"}


def test_in_an_archive_alone_a_name_that_looks_like_a_whiteout_is_a_name() -> None:
    assert contents(flattened(packed(Put(".wh.a", b"1")), whiteouts=False)).keys() == {"/.wh.a"}


@pytest.mark.parametrize(
    ("archives", "words"),
    [
        ((packed(Put("a", b"1"), Put("a", b"2")),), "/a stands twice"),
        ((packed(Put("a", b"1"), Put("./a", b"1")),), "/a stands twice"),
        ((packed(Put("a", b"1"), Put("a", link="b")),), "/a stands twice"),
        ((packed(Put("a"), Put("a", b"1")),), "/a stands twice"),
        ((packed(Put("x", b"1"), Put("a", hard="x"), Put("a", b"2")),), "/a stands twice"),
        ((BASE, packed(Put("a", hard="bin/tool"), Put("a", b"2"))), "/a stands twice"),
        ((packed(Put("lib", link="usr/lib"), Put("lib/x", b"1")),), "leads through /lib, which is a link"),
        ((packed(Put("lib", link="/etc"), Put("lib/passwd", b"1")),), "leads through /lib, which is a link"),
        ((packed(Put("lib", link="usr/lib")), packed(Put("lib/x", b"1"))), "leads through /lib, which is a link"),
        ((packed(Put("a", b"1"), Put("a/b", b"2")),), "leads through /a, which is no folder"),
        ((packed(Put("a", hard="b")),), "hard link to /b, which is not there"),
        ((packed(Put("a", hard="b"), Put("b", b"1")),), "hard link to what comes after it"),
        ((packed(Put("b", b"old")), packed(Put("a", hard="b"), Put("b", b"new"))), "hard link to what comes after it"),
        ((packed(Put("a", hard="a")),), "hard link to what comes after it"),
        ((packed(Put("a", hard="b"), Put("b", hard="a")),), "hard link to what comes after it"),
        (
            (packed(Put("a", b"1")), packed(Put("b", hard="a"), Put(".wh.a", b""))),
            "hard link to /a, which is not there",
        ),
        ((packed(Put("d"), Put("a", hard="d")),), "hard link to a folder"),
        ((BASE, packed(Put("a", hard="bin"))), "hard link to a folder"),
        ((packed(Put("b", hard="../../etc/passwd")),), "leads out of the archive"),
        ((packed(Put(".wh.", b"")),), "hides nothing"),
        ((packed(Put("a/.wh..", b"")),), "hides nothing"),
        ((packed(Put("a/.wh...", b"")),), "hides nothing"),
        ((packed(Put(".wh..wh.plnk/1.2", b""), Put(".wh..wh.plnk", b"")),), "hides nothing"),
        ((packed(Put(".wh.a", b"content")),), "a whiteout is an empty file"),
        ((packed(Put(".wh.a")),), "a whiteout is an empty file"),
        ((packed(Put(".wh.a", link="b")),), "a whiteout is an empty file"),
        ((packed(Put(".", b"1")),), "root is no folder"),
    ],
)
def test_what_unpackers_would_make_different_things_of_is_refused(archives: tuple[bytes, ...], words: str) -> None:
    assert words in fault(*archives)


def test_a_folder_over_a_link_takes_its_place_with_what_is_in_it() -> None:
    found = contents(flattened(packed(Put("lib", link="usr/lib")), packed(Put("lib"), Put("lib/x", b"1"))))
    assert found.keys() == {"/lib/x"}


def test_a_loop_of_links_leads_nowhere_and_ends() -> None:
    tree = flattened(
        packed(
            Put("a", link="b"), Put("b", link="a"), Put("c", link="/c/x"), Put("d", link="../../../e"), Put("e", b"1")
        )
    )
    assert tree.resolve("/a") is None
    assert tree.resolve("/c") is None
    assert tree.resolve("/d") == ("/e", tree.at(("e",)))


def test_a_link_leads_from_where_it_is_or_from_the_root() -> None:
    tree = flattened(packed(Put("a/b/near", link="../e"), Put("a/b/far", link="/e"), Put("a/e", b"1"), Put("e", b"2")))
    assert tree.resolve("/a/b/near") == ("/a/e", tree.at(("a", "e")))
    assert tree.resolve("/a/b/far") == ("/e", tree.at(("e",)))


def test_a_very_deep_archive_is_read() -> None:
    path = "/".join(["d"] * 2000)
    assert contents(flattened(packed(Put(path, b"1")))).keys() == {f"/{path}"}


def test_folders_that_are_only_on_the_way_to_files_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.author.references.tree.MOST_ENTRIES", 4)
    assert contents(flattened(packed(Put("a/b/x", b""), Put("c/d/x", b"")))).keys() == {"/a/b/x", "/c/d/x"}
    assert "more than 4 folders" in fault(packed(Put("a/b/x", b""), Put("c/d/x", b""), Put("e/x", b"")))
