"""How many one drift may close: the counting, and the store that counts, on real SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, insert, select, update
from sqlalchemy.pool import StaticPool

from attestation.drift import Drift
from attestation.instance import InstanceId
from attestation.trust import Tier
from authority.holds import Entry, due, held_back, most_closed, summed
from authority.store import holds
from authority.store.causes import record
from authority.store.enrolments import Application
from authority.store.holds import Counted, Within
from authority.store.records import Accepted, Candidate, Happened, Lapsed, State
from authority.store.schema import history, instances, metadata
from authority.store.store import Store
from wire.messages import Cause

MAIN, OTHER = (Drift("file-modified", "files", f"/srv/app/{name}.py", "a" * 64) for name in ("main", "other"))
NOW = 1_000_000
LEASE = 60_000


def numbered(number: int) -> InstanceId:
    return InstanceId(f"i-{number:032x}")


def within(share: int, now_ms: int = NOW) -> Within:
    return Within("web", share, now_ms, now_ms - LEASE, now_ms - 10 * LEASE)


def row(number: int, now_ms: int, registration: str = "web") -> dict[str, object]:
    """An instance that was affirmed just now."""
    plain = {column.name: "" for column in instances.columns}
    numbers = ("sequence", "generation", "revocation", "left_ms", "since_ms")
    return {
        **plain,
        **dict.fromkeys(numbers, 0),
        "instance": numbered(number).value,
        "registration": registration,
        "public_key": b"key",
        "ended_clean": False,
        "full_required": False,
        "quarantined": False,
        "state": State.FRESH.value,
        "tier": int(Tier.AFFIRMING),
        "enrolled_ms": now_ms,
        "last_round_ms": now_ms,
        "lease_end_ms": now_ms + LEASE,
    }


@contextmanager
def mesh(count: int) -> Iterator[Connection]:
    """A store of so many instances of `web`, all of them open."""
    with _engine().connect() as db:
        db.execute(insert(instances), [row(number, NOW) for number in range(count)])
        yield db
        db.rollback()


@cache
def _engine() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    return engine


def ask(db: Connection, number: int, *drifts: Drift, share: int = 50, now_ms: int = NOW) -> bool:
    return holds.ask(db, numbered(number), drifts or (MAIN,), within(share, now_ms)).held


def change(db: Connection, number: int, **values: object) -> None:
    db.execute(update(instances).where(instances.c.instance == numbered(number).value).values(**values))


# The counting.


@pytest.mark.parametrize(
    ("share", "live", "most"),
    [(1, 1, 1), (1, 99, 1), (1, 200, 2), (25, 3, 1), (25, 8, 2), (50, 7, 3), (99, 4, 3), (100, 4, 4)],
)
def test_the_share_is_rounded_down_and_the_first_always_closes(share: int, live: int, most: int) -> None:
    assert most_closed(share, live) == most


def test_only_who_has_no_drift_with_room_is_held_back() -> None:
    assert held_back({"a": 2, "b": 3}, 2)
    assert not held_back({"a": 2, "b": 1}, 2)
    assert not held_back({}, 1), "who names nothing is not held for it"


ENTRIES = st.lists(
    st.builds(
        lambda who, drift, closed, since: Entry(f"i-{who}", drift, drift, closed, since),
        st.integers(0, 6),
        st.sampled_from("abc"),
        st.booleans(),
        st.integers(0, 9),
    ),
    max_size=20,
    unique_by=lambda each: (each.instance, each.drift),
)


@given(ENTRIES, st.integers(1, 8))
def test_whoever_is_told_to_close_has_a_drift_with_room_and_whoever_stays_has_none(
    entries: list[Entry], most: int
) -> None:
    told = due(entries, most)
    shut = {each.instance for each in entries if each.closed}
    assert not shut & {*told}
    closed = {drift: sum(each.closed for each in entries if each.drift == drift) for drift in "abc"}
    drifts = {who: [each.drift for each in entries if each.instance == who] for who in {e.instance for e in entries}}
    for who in told:
        assert any(closed[drift] < most for drift in drifts[who])
        for drift in drifts[who]:
            closed[drift] += 1
    for who in drifts.keys() - shut - {*told}:
        assert all(closed[drift] >= most for drift in drifts[who])


@given(ENTRIES, st.integers(1, 8))
def test_of_one_drift_alone_no_more_are_told_than_there_is_room_for(entries: list[Entry], most: int) -> None:
    alike = [each for each in entries if each.drift == "a"]
    closed = sum(each.closed for each in alike)
    assert closed + len(due(alike, most)) <= max(most, closed)
    assert due(sorted(alike, key=lambda each: each.instance), most) == due(alike, most), "whatever their sequence"


def test_a_sum_tells_each_drift_with_who_is_closed_and_who_is_held() -> None:
    entries = [Entry("i-1", "a", "A", True, 1), Entry("i-2", "a", "A", False, 1), Entry("i-2", "b", "B", False, 1)]
    assert [(each.name, each.closed, each.held, each.live) for each in summed(entries, 7)] == [
        ("A", 1, 1, 7),
        ("B", 0, 1, 7),
    ]


# The store.


def test_of_one_drift_the_share_closes_and_the_rest_is_held_whoever_asks_again() -> None:
    with mesh(8) as db:
        assert [ask(db, number, share=25) for number in range(8)] == [False, False, *[True] * 6]
        assert [ask(db, number, share=25) for number in range(8)] == [False, False, *[True] * 6]
        assert holds.ask(db, numbered(5), (MAIN,), within(25)) == Counted(True, 2, 8)


def test_another_drift_another_content_and_another_registration_are_counted_apart() -> None:
    with mesh(4) as db:
        db.execute(insert(instances), [row(9, NOW, "api")])
        assert [ask(db, 0), ask(db, 1), ask(db, 2)] == [False, False, True]
        assert not ask(db, 3, Drift(MAIN.kind, MAIN.layer, MAIN.subject, "b" * 64))
        api = Within("api", 50, NOW, NOW - LEASE, 0)
        assert not holds.ask(db, numbered(9), (MAIN,), api).held


def test_who_has_several_closes_for_the_one_with_room_and_then_counts_for_all() -> None:
    with mesh(4) as db:
        assert [ask(db, 0, share=25), ask(db, 1, share=25)] == [False, True]
        assert not ask(db, 2, MAIN, OTHER, share=25)
        assert ask(db, 1, MAIN, OTHER, share=25)


@pytest.mark.parametrize(
    "closed",
    [
        {"state": State.QUARANTINED.value},
        {"state": State.UNATTESTED.value},
        {"lease_end_ms": NOW},
        {"quarantined": True},
    ],
)
def test_what_is_closed_is_never_held_open_and_counts(closed: dict[str, object]) -> None:
    with mesh(4) as db:
        change(db, 0, **closed)
        assert not ask(db, 0, share=25)
        assert ask(db, 1, share=25), "somebody is closed for it already"


def test_who_was_told_to_close_stays_so_until_its_own_evidence_is_affirmed() -> None:
    with mesh(4) as db:
        assert not ask(db, 0, share=25)
        assert ask(db, 1, share=25)
        change(db, 0, state=State.FRESH.value)  # whatever it says of itself
        assert not ask(db, 0, share=25)
        holds.free(db, numbered(0).value)
        assert not ask(db, 1, share=25), "there is room now"


def test_who_leaves_or_falls_silent_makes_room_and_who_is_quarantined_does_not_by_silence() -> None:
    for left, room in (
        ({"ended_clean": True}, True),
        ({"enrolled_ms": 0, "last_round_ms": 0, "lease_end_ms": 0}, True),
        ({"enrolled_ms": 0, "last_round_ms": NOW - 2 * LEASE, "lease_end_ms": 0, "quarantined": True}, False),
    ):
        with mesh(4) as db:
            assert [ask(db, 0, share=25), ask(db, 1, share=25)] == [False, True]
            change(db, 0, **left)
            assert holds.look(db, within(25)).told == ((numbered(1),) if room else ())


def test_a_look_tells_the_one_held_longest_and_history_says_why() -> None:
    with mesh(4) as db:
        ask(db, 0, share=25)
        for number in (3, 1, 2):
            assert ask(db, number, share=25, now_ms=NOW + 10 - number)
        assert holds.look(db, within(25)).told == ()
        holds.free(db, numbered(0).value)
        ledger = holds.look(db, within(25))
        assert ledger.told == (numbered(3),)
        assert {each.instance for each in ledger.entries if each.closed} == {numbered(3).value}
        told = db.execute(select(history.c.event, history.c.state)).one()
        assert tuple(told) == (Happened.HOLD_OVER, State.QUARANTINED)
        assert holds.look(db, within(25)).told == (), "once"


def test_a_report_of_what_is_held_closes_nothing_and_any_other_closes_all() -> None:
    with mesh(4) as db:
        ask(db, 0, share=25)
        assert ask(db, 1, share=25)
        assert holds.reported(db, numbered(1), MAIN, within(25))
        assert not holds.reported(db, numbered(1), OTHER, within(25))
        assert not holds.stands(db, numbered(1).value)
        assert ask(db, 2, OTHER, share=25), "the report counts"
        assert not ask(db, 1, share=25)


def test_a_tamper_and_an_operators_quarantine_end_a_hold() -> None:
    with mesh(4) as db:
        ask(db, 0, share=25)
        assert ask(db, 1, share=25) and ask(db, 2, share=25)
        holds.reported(db, numbered(1), None, within(25))
        record(db, numbered(2), Cause("c-1", "order", "stop", NOW, 0), binding=True, now_ms=NOW)
        assert not holds.stands(db, numbered(1).value) and not holds.stands(db, numbered(2).value)


def test_where_policy_holds_nothing_any_more_everybody_held_is_told() -> None:
    with mesh(4) as db:
        for number in range(4):
            ask(db, number, share=25)
        assert set(holds.end(db, "web", NOW)) == {numbered(1), numbered(2), numbered(3)}
        assert holds.registrations(db) == ()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "affirmed", "left", "silent", "look", "tamper", "report", "later"]),
        st.integers(0, 7),
        st.sets(st.sampled_from([MAIN, OTHER]), min_size=1),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.sampled_from([1, 25, 50, 99]), st.booleans())
def test_in_any_order_nobody_is_held_for_what_has_room_and_no_more_close_than_may(
    events: list[tuple[str, int, set[Drift]]], share: int, alike: bool
) -> None:
    """alike: there is one drift alone, and then the share is never exceeded by leave of the authority."""
    permitted: set[int] = set()
    now = NOW
    with mesh(8) as db:
        for what, number, drifts in events:
            who = numbered(number)
            found = {MAIN} if alike else drifts
            before, already = holds.standing(db, within(share, now)), len(permitted)
            most = most_closed(share, before.live)
            open_here = db.execute(
                select(instances.c.instance).where(
                    instances.c.instance == who.value,
                    instances.c.state.in_([State.FRESH.value, State.HELD.value]),
                    instances.c.lease_end_ms > now,
                )
            ).first()
            if what == "ask":
                counted = holds.ask(db, who, found, within(share, now))
                closed = {each.id: _closed(before.entries, each, who) for each in found}
                assert not counted.held or all(each >= most for each in closed.values())
                assert not counted.held or (open_here and number not in permitted)
                if not counted.held and open_here:
                    assert number in permitted or any(each < most for each in closed.values())
                    permitted.add(number)
                assert holds.ask(db, who, found, within(share, now)).held == counted.held
            elif what == "affirmed":
                holds.free(db, who.value)
                change(db, number, state=State.FRESH.value, last_round_ms=now, lease_end_ms=now + LEASE)
                permitted.discard(number)
            elif what == "left":
                change(db, number, ended_clean=True, state=State.ENDED.value)
                permitted.discard(number)
            elif what == "silent":
                change(db, number, enrolled_ms=0, last_round_ms=0, lease_end_ms=0, state=State.STALE.value)
                permitted.discard(number)
            elif what == "look":
                permitted |= {int(each.value[2:], 16) for each in holds.look(db, within(share, now)).told}
            elif what == "later":
                now += LEASE // 4
            elif not holds.reported(db, who, MAIN if what == "report" else None, within(share, now)):
                change(db, number, state=State.QUARANTINED.value)  # as its cause is recorded with the report
            if alike and len(permitted) > already:
                assert len(permitted) <= most


def _closed(entries: tuple[Entry, ...], drift: Drift, apart_from: InstanceId) -> int:
    return sum(each.closed for each in entries if each.drift == drift.id and each.instance != apart_from.value)


def _candidate(sequence: int, *, held: str = "") -> Candidate:
    tier = Tier.WARNING if held else Tier.AFFIRMING
    end = NOW + LEASE
    return Candidate(numbered(1), "k", sequence, 0, f"e{sequence}", True, tier, b"", b"l", 1, end, None, held=held)


def test_many_who_ask_at_once_are_counted_one_after_the_other(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite", lambda: NOW / 1000)
        store.open()
        for number in range(40):
            await store.add_token(f"t{number}", "web", expires_ms=NOW + 1, now_ms=NOW)
            application = Application(numbered(number), "k", b"key", f"t{number}", "", f"next {number}", False)
            await store.enrol(application, {"web": ()}, NOW)
            first = _candidate(1)
            await store.accept_round(_of(first, number), NOW)
        asked = [store.ask_hold(numbered(number), (MAIN,), within(25)) for number in range(40)]
        answers = await asyncio.gather(*asked, *(store.ask_hold(numbered(n), (MAIN,), within(25)) for n in range(40)))
        assert [each.held for each in answers[:40]].count(False) == 10
        assert [each.held for each in answers[:40]] == [each.held for each in answers[40:]]
        store.close()

    asyncio.run(story())


def test_a_marked_round_counts_only_while_it_is_held_and_one_that_is_affirmed_ends_it(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite", lambda: NOW / 1000)
        store.open()
        for number in (0, 1):
            await store.add_token(f"t{number}", "web", expires_ms=NOW + 1, now_ms=NOW)
            application = Application(numbered(number), "k", b"key", f"t{number}", "", f"next {number}", False)
            await store.enrol(application, {"web": ()}, NOW)
            await store.accept_round(_of(_candidate(1), number), NOW)
        assert not (await store.ask_hold(numbered(0), (MAIN,), within(50))).held
        assert (await store.ask_hold(numbered(1), (MAIN,), within(50))).held
        marked = _candidate(2, held=MAIN.id)
        first = await store.accept_round(marked, NOW)
        assert isinstance(first, Accepted) and first.held == MAIN.id
        (state,) = [each for each in await store.instances({}) if each.instance == numbered(1)]
        assert (state.state, state.lease_end_ms) == (State.HELD, NOW + LEASE)
        await store.accept_round(_of(_candidate(3), 0), NOW)
        assert (await store.look_at_holds(within(50))).told == (numbered(1),)
        assert await store.accept_round(marked, NOW) == Lapsed(hold_over=True), "not even told again"
        assert await store.accept_round(_candidate(3, held=MAIN.id), NOW) == Lapsed(hold_over=True)
        assert isinstance(await store.accept_round(_candidate(4), NOW), Accepted)
        assert (await store.holds(within(50))).entries == ()
        store.close()

    asyncio.run(story())


def _of(each: Candidate, number: int) -> Candidate:
    return replace(each, instance=numbered(number))
