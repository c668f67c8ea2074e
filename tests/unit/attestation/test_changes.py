"""From one manifest to another: only what differs is unpacked, and nothing that differs is missed."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from attestation import manifest
from attestation.errors import MalformedEvidence
from attestation.manifest import DIRECTORY, FILE, MAGIC, Changes, Entry

PATHS = [f"/srv/{folder}/{name}" for folder in ("a", "a/b", "c" * 300) for name in ("x", "xy", "y", "\udcff", "z" * 90)]
ENTRIES = st.builds(
    Entry,
    path=st.sampled_from(PATHS),
    kind=st.sampled_from((FILE, DIRECTORY)),
    mode=st.sampled_from((0o644, 0o755)),
    uid=st.just(0),
    gid=st.just(0),
    size=st.sampled_from((1, 2)),
    digest=st.sampled_from(("a" * 64, "b" * 64)),
)
X = Entry("/srv/a/x", FILE, 0o644, 0, 0, 1, "a" * 64)
MANIFESTS = st.lists(ENTRIES, unique_by=lambda each: each.path, max_size=len(PATHS))


def by_path(entries: list[Entry]) -> dict[str, Entry]:
    return {each.path: each for each in entries}


def taken(body: bytes) -> bool:
    try:
        list(manifest.unpack(body))
    except MalformedEvidence:
        return False
    return True


@given(MANIFESTS, MANIFESTS)
@example([X], [X._replace(path="/srv/a/y")])
@example([X], [X._replace(path="/srv/a/xy")])
def test_changes_are_all_that_is_other_and_all_that_is_gone(before: list[Entry], after: list[Entry]) -> None:
    old, new = by_path(before), by_path(after)
    found = manifest.changes(manifest.pack(before), manifest.pack(after))
    assert by_path(list(found.there)) == {path: each for path, each in new.items() if old.get(path) != each}
    assert by_path(list(found.was)) == {path: each for path, each in old.items() if new.get(path) != each}
    assert len(found.there) == len(by_path(list(found.there)))


@given(MANIFESTS, st.integers(0, 200))
def test_one_change_among_many_is_found_wherever_it_is(entries: list[Entry], at: int) -> None:
    many = [*entries, *(Entry(f"/usr/lib/{number:04}", FILE, 0o644, 0, 0, 9, "c" * 64) for number in range(200))]
    before = sorted(many, key=lambda each: each.path)
    chosen = before[at % len(before)]
    other = chosen._replace(size=chosen.size + 7)
    after = [other if each is chosen else each for each in before]
    assert manifest.changes(manifest.pack(before), manifest.pack(after)) == Changes((chosen,), (other,))


@given(MANIFESTS)
def test_against_nothing_everything_is_new_and_everything_is_gone_once_nothing_is_left(entries: list[Entry]) -> None:
    packed = manifest.pack(entries)
    assert manifest.changes(MAGIC, packed) == Changes((), tuple(manifest.unpack(packed)))
    assert manifest.changes(packed, MAGIC) == Changes(tuple(manifest.unpack(packed)), ())
    assert manifest.changes(packed, packed) == Changes((), ())


@given(MANIFESTS, MANIFESTS)
def test_what_there_is_after_changes_is_counted_by_the_changes(before: list[Entry], after: list[Entry]) -> None:
    old, new = manifest.pack(before), manifest.pack(after)
    assert manifest.tally_after(manifest.tally(old), manifest.changes(old, new)) == manifest.tally(new)


@given(MANIFESTS, MANIFESTS, st.data())
@example([], [Entry("", FILE, 0, 0, 0, 0, "0" * 64)], None)
def test_what_unpack_does_not_take_is_refused_whatever_it_is_compared_with(
    before: list[Entry], after: list[Entry], data: st.DataObject | None
) -> None:
    body = manifest.pack(after)
    if data is not None:
        at = data.draw(st.integers(0, len(body)))
        body = data.draw(
            st.sampled_from(
                [
                    body[:at],
                    body[:at] + data.draw(st.binary(max_size=70)) + body[at:],
                    body[:at] + data.draw(st.binary(min_size=1, max_size=4)) + body[at + 2 :],
                    body + body[len(MAGIC) :],
                    MAGIC + body[at:],
                ]
            )
        )
    try:
        manifest.changes(manifest.pack(before), body)
        refused = False
    except MalformedEvidence:
        refused = True
    assert refused is not taken(body)
