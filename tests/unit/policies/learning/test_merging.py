"""Several runs put together."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from policies.author.learning.learned import Amount, Learned, read, text
from policies.author.learning.merging import BETWEEN, merged
from tests.unit.policies.learning.samples import CONTENTS, learned, origin, reference, run

SEVERAL = st.lists(learned(), min_size=1, max_size=3)
few = settings(max_examples=40)
"""Each is dear to make, and of few names, so that runs meet soon."""


@few
@given(SEVERAL.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))))
def test_the_order_does_not_matter(both: tuple[list[Learned], list[Learned]]) -> None:
    found, shuffled = both
    assert merged(shuffled) == merged(found)


@few
@given(SEVERAL, st.integers(0, 3))
def test_nor_does_what_was_put_together_before(found: list[Learned], at: int) -> None:
    first, rest = found[:at], found[at:]
    assert merged([*([merged(first)] if first else []), *rest]) == merged(found)


@few
@given(SEVERAL)
def test_nor_how_often_each_is(found: list[Learned]) -> None:
    assert merged([*found, *found]) == merged(found)
    assert merged([merged(found)]) == merged(found)


@few
@given(SEVERAL)
def test_what_was_put_together_can_be_written_and_read(found: list[Learned]) -> None:
    assert read(text(merged(found)), "here") == merged(found)


@few
@given(SEVERAL)
def test_nothing_that_was_called_executed_or_mapped_is_left_out(found: list[Learned]) -> None:
    whole = merged(found)
    assert whole.called == {name for each in found for name in each.called}
    for name in ("executables", "begun", "mapped"):
        every = {
            (path, digest) for each in found for path, contents in getattr(each, name).items() for digest in contents
        }
        assert {(path, digest) for path, known in getattr(whole, name).items() for digest in known} == every


@few
@given(SEVERAL)
def test_a_file_is_as_it_was_wherever_it_was_looked_at_or_its_content_is_nobodys_to_judge(found: list[Learned]) -> None:
    whole = merged(found)
    assert not whole.files.keys() & whole.volatile.keys()
    for path, stated in whole.files.items():
        assert {each.files[path] for each in found if path in each.files} == {stated}
        assert not any(path in each.volatile for each in found)


def one(number: int, **said: object) -> Learned:
    return Learned.model_validate({"runs": (run(number),), "include": ("/srv",), **said})


def test_a_file_that_one_run_had_and_another_had_not_is_volatile() -> None:
    with_it, without = one(0, files={"/srv/pid": reference()}), one(1)
    assert merged([with_it, without]).volatile == {"/srv/pid": BETWEEN}


def test_a_run_that_did_not_measure_a_file_says_nothing_of_it() -> None:
    with_it, elsewhere = one(0, files={"/srv/a": reference()}), one(1, include=("/etc",))
    assert merged([with_it, elsewhere]).files == {"/srv/a": reference()}


def test_what_one_run_saw_changing_is_told_by_that_and_not_as_differing_between_them() -> None:
    saw = one(0, volatile={"/srv/a": origin(0, 3.0)})
    others = one(1, files={"/srv/a": reference(0)}), one(2, files={"/srv/a": reference(1)})
    assert merged([*others, saw]).volatile == {"/srv/a": origin(0, 3.0)}


def test_of_code_of_no_file_the_most_counts_and_every_kind_of_it() -> None:
    small = Amount(most=4096, writable=True, origin=origin(0))
    large = Amount(most=8192, memfd=True, origin=origin(1))
    (found,) = merged([one(0, code={"/bin/vm": small}), one(1, code={"/bin/vm": large})]).code.values()
    assert found == Amount(most=8192, writable=True, memfd=True, origin=origin(1))


def test_the_earlier_of_two_runs_says_where_something_came_from() -> None:
    later, earlier = {"/bin/a": {CONTENTS[0]: origin(1, 0.5)}}, {"/bin/a": {CONTENTS[0]: origin(0, 9.0)}}
    whole = merged([one(1, executables=later), one(0, executables=earlier)])
    assert whole.executables == earlier


def test_a_start_that_any_run_saw_was_seen() -> None:
    attached = Learned(runs=(run(0, running=("/bin/app", "/bin/sh"), executed=("/bin/sh",)),))
    assert attached.unseen == ("/bin/app",)
    assert merged([attached, Learned(runs=(run(1, executed=("/bin/app",)),))]).unseen == ()
