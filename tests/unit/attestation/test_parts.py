"""A manifest in parts: joined they are the manifest, and what is alike in two has the same parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import manifest, parts
from attestation.errors import MalformedEvidence
from attestation.manifest import FILE, Entry

names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)


def entry(path: str, digest: str = "a" * 64) -> Entry:
    return Entry(path, FILE, 0o644, 0, 0, 1, digest)


def many(count: int) -> dict[str, Entry]:
    return {path: entry(path) for path in (f"/srv/app/{number // 100}/{number}" for number in range(count))}


@given(st.sets(names, max_size=60))
def test_the_parts_of_a_manifest_joined_are_the_manifest(paths: set[str]) -> None:
    body = manifest.pack(entry(f"/{path}") for path in paths)
    assert b"".join(parts.cut(body)) == body
    found = parts.cut(body)
    assert parts.read_outline(parts.outline(found)) == [parts.digest(each) for each in found]


@pytest.mark.parametrize("change", ["modify", "add", "remove"])
def test_one_change_leaves_all_other_parts_as_they_are(change: str) -> None:
    files = many(5000)
    before = {parts.digest(each) for each in parts.cut(manifest.pack(files.values()))}
    path = "/srv/app/25/2500"
    if change == "modify":
        files[path] = entry(path, "b" * 64)
    elif change == "add":
        files[f"{path}.orig"] = entry(f"{path}.orig")
    else:
        del files[path]
    after = {parts.digest(each) for each in parts.cut(manifest.pack(files.values()))}
    assert len(before) > 10
    assert len(after - before) <= 2


def test_what_is_cut_into_too_many_parts_has_no_outline() -> None:
    assert parts.outline([bytes([1])] * (parts.MOST_PARTS + 1)) == b""


@pytest.mark.parametrize("text", [b"", bytes(31), bytes(33), bytes(32 * (parts.MOST_PARTS + 1))])
def test_what_is_no_outline_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        parts.read_outline(text)
