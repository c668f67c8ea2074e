"""Where paths lead through links: as the kernel has it, and at the price of what the links say, each once."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from measurer import kernel
from policies.author.references.bounds import MOST_LINKS
from policies.author.references.tree import File, Folder, Link, Links, Node, Place, Tree

CONTENT = File("0" * 64, 0, 0o644, 0, 0)


def tree(*entries: tuple[str, Node]) -> Tree:
    made = Tree("a test")
    for path, node in entries:
        made.put(path.split("/"), node)
    return made


def link(target: str) -> Link:
    return Link(target, 0, 0)


def chain(length: int, target: str = "{}") -> Tree:
    """`/0` leads to `/1`, and so on, to a folder with one file."""
    links = [(str(number), link(target.format(number + 1))) for number in range(length)]
    return tree(*links, (f"{length}/file", CONTENT))


class Counting:
    """Follows links of a tree, and counts what it looks at."""

    def __init__(self, made: Tree) -> None:
        self.looks = 0
        self.links = Links(made.root, self._below)

    def _below(self, place: Place, name: str) -> Node | None:
        self.looks += 1
        return place.node.children.get(name) if isinstance(place.node, Folder) else None


def test_as_many_links_are_followed_as_the_kernel_follows_and_not_one_more() -> None:
    assert chain(MOST_LINKS).resolve("/0/file") == (f"/{MOST_LINKS}/file", CONTENT)
    longer = chain(MOST_LINKS + 1)
    assert longer.resolve("/0/file") is None
    assert longer.resolve("/1/file") == (f"/{MOST_LINKS + 1}/file", CONTENT)
    assert longer.resolve("/0/file") is None


def test_links_beside_each_other_count_together() -> None:
    made = tree(("a/back", link("..")), ("a/file", CONTENT))
    assert made.resolve("/" + "a/back/" * MOST_LINKS + "a/file") == ("/a/file", CONTENT)
    assert made.resolve("/" + "a/back/" * (MOST_LINKS + 1) + "a/file") is None


def test_a_link_that_many_paths_lead_through_is_followed_once() -> None:
    made = chain(MOST_LINKS, "x/../" * 500 + "{}")
    made.put(["x"], Folder())
    counting = Counting(made)
    assert counting.links.follow("/0/file") is not None
    first = counting.looks
    assert first == MOST_LINKS * 501 + 2
    assert None not in [counting.links.follow("/0/file") for _ in range(1000)]
    assert counting.looks == first + 1000 * 2


def test_a_loop_is_found_out_once_however_many_paths_lead_into_it() -> None:
    counting = Counting(tree(("x", Folder()), ("a", link("x/../" * 500 + "b")), ("b", link("x/../" * 500 + "a"))))
    assert counting.links.follow("/a/0") is None
    first = counting.looks
    assert first <= (MOST_LINKS + 1) * 501
    assert [counting.links.follow(f"/a/{number}") for number in range(1000)] == [None] * 1000
    assert counting.looks == first + 1000


def test_a_deep_path_is_walked_name_by_name() -> None:
    path = "/".join(["d"] * 2000)
    counting = Counting(tree((path, CONTENT)))
    assert counting.links.follow(path) is not None
    assert counting.looks == 2000


def test_what_is_put_or_taken_away_later_is_seen() -> None:
    made = tree(("near", link("far/file")))
    assert made.resolve("/near") is None
    made.put(["far", "file"], CONTENT)
    assert made.resolve("/near") == ("/far/file", CONTENT)
    made.put(["near"], link("else"))
    assert made.resolve("/near") is None
    made.put(["near"], link("far/file"))
    made.put(["far", "file"], link("../else"))
    made.put(["else"], CONTENT)
    assert made.resolve("/near") == ("/else", CONTENT)
    made.remove(["far", "file"])
    assert made.resolve("/near") is None
    made.put(["far", "file"], CONTENT)
    assert made.resolve("/near") == ("/far/file", CONTENT)
    made.empty(["far"])
    assert made.resolve("/near") is None


NAMES = st.sampled_from(["a", "b", "c"])
TARGETS = st.builds(
    lambda root, steps: ("/" if root else "") + "/".join(steps),
    st.booleans(),
    st.lists(NAMES | st.just(".."), min_size=1, max_size=5),
)
FOLDERS = st.recursive(
    st.dictionaries(NAMES, TARGETS | st.none(), max_size=3),
    lambda inner: st.dictionaries(NAMES, TARGETS | st.none() | inner, max_size=3),
    max_leaves=8,
)


def made_of(folder: dict[str, object], here: Path) -> Folder:
    """In memory, and on disk. Text is a link, None a file."""
    here.mkdir(exist_ok=True)
    made = Folder()
    for name, what in folder.items():
        if isinstance(what, dict):
            made.children[name] = made_of(what, here / name)
        elif isinstance(what, str):
            (here / name).symlink_to(what)
            made.children[name] = link(what)
        else:
            (here / name).touch()
            made.children[name] = CONTENT
    return made


def by_the_kernel(root: int, top: Path, path: str) -> str | None:
    try:
        found = kernel.open_below(root, os.fsencode(path), os.O_PATH)
    except OSError:
        return None
    try:
        return str(Path(f"/proc/self/fd/{found}").readlink()).removeprefix(str(top)) or "/"
    finally:
        os.close(found)


@settings(deadline=None)
@given(FOLDERS, st.lists(TARGETS, min_size=1, max_size=6))
def test_a_path_leads_where_the_kernel_leads_it(folders: dict[str, object], paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder, "root").resolve()
        made = Tree("a test")
        made.root = made_of(folders, top)
        links = Counting(made).links
        root = os.open(top, os.O_PATH | os.O_DIRECTORY)
        try:
            for path in paths:
                place = links.follow(path)
                assert (None if place is None else "/" + "/".join(place.parts)) == by_the_kernel(root, top, path)
        finally:
            os.close(root)
