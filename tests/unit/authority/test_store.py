"""The store's decisions on rounds, over whatever order things happen in, on a real SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from sqlalchemy import Connection, insert, select

from attestation.instance import InstanceId
from attestation.trust import Tier
from authority.store.enrolments import Application
from authority.store.records import Accepted, Broken, Candidate, Lapsed, Quarantine, State, Withdrawn
from authority.store.schema import epochs
from authority.store.store import Store
from authority.store.writer import Writer
from wire.messages import Cause

Given = TypeVar("Given")
INSTANCE, OTHER = InstanceId("i-" + "0" * 32), InstanceId("i-" + "1" * 32)
KEYS = ("a" * 64, "b" * 64)


def candidate(sequence: int, evidence: str, *, key: str = KEYS[0], generation: int = 0, full: bool = True) -> Candidate:
    return Candidate(
        INSTANCE, key, sequence, generation, evidence, full, Tier.AFFIRMING, evidence.encode(), b"leaf", 1, 99, None
    )


def application(key: str, before: str, after: str, *, unclean: bool = False) -> Application:
    token = "t" if not before else ""
    return Application(INSTANCE, key, b"key", token, before, after, unclean)


@dataclass
class Model:
    """What ought to be known: written down by hand, round by round."""

    key: str
    ticket: str
    last: int = 0
    generation: int = 0
    answered: dict[int, tuple[str, Accepted]] | None = None
    binding: set[str] | None = None
    full_required: bool = False


class Rounds(RuleBasedStateMachine):
    """Evidence, retries, clones, reports, releases, enrolments and restarts in any order."""

    sequences = Bundle("sequences")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(self._temporary())
        self.store = Store(self.folder / "store.sqlite")
        self.store.open()
        self.model = Model(KEYS[0], "ticket 0", answered={}, binding=set())
        self.count = 0
        self.time = 10

    def _temporary(self) -> str:
        import tempfile

        return tempfile.mkdtemp()

    def now_ms(self) -> int:
        """Time goes on: the second clone is not the first one's, however alike they are."""
        self.time += 1
        return self.time

    @initialize()
    def enrolled(self) -> None:
        self.run(self.store.add_token("t", "web", expires_ms=10, now_ms=1))
        self.run(self.store.enrol(application(KEYS[0], "", "ticket 0"), {"web": ()}, 1))

    def run(self, work: Awaitable[Given]) -> Given:
        return self.loop.run_until_complete(work)

    def send(self, sent: Candidate) -> None:
        """Gives the round to the store, and holds its decision against the model's."""
        decision = self.run(self.store.accept_round(sent, self.now_ms()))
        model = self.model
        assert model.answered is not None
        assert model.binding is not None
        before = model.answered.get(sent.sequence)
        if sent.thumbprint != model.key:
            assert decision == Lapsed(key_replaced=True)
        elif model.binding:
            assert decision == Quarantine(None, cloned=False)
        elif before is not None and before[0] == sent.evidence:
            assert decision == replace(before[1], repeated=True)
        elif before is not None:
            assert isinstance(decision, Quarantine)
            assert decision.cloned
            assert decision.cause is not None
            model.binding.add(decision.cause.id)
            model.generation = max(model.generation, sent.generation)
        elif sent.sequence <= model.last:
            assert decision == Lapsed(sequence_passed=True)
        elif sent.generation < model.generation:
            assert decision == Lapsed(generation_past=True)
        elif model.full_required and not sent.full:
            assert decision == Lapsed(full_required=True)
        else:
            assert isinstance(decision, Accepted)
            assert not decision.repeated
            model.answered[sent.sequence] = (sent.evidence, decision)
            model.last, model.generation, model.full_required = sent.sequence, sent.generation, False

    @rule(step=st.integers(1, 3), evidence=st.sampled_from("xyz"), full=st.booleans(), target=sequences)
    def a_new_nonce_is_answered(self, step: int, evidence: str, full: bool) -> int:
        sequence = self.model.last + step
        self.send(candidate(sequence, evidence, key=self.model.key, generation=self.model.generation, full=full))
        return sequence

    @rule(sequence=sequences, evidence=st.sampled_from("xyz"), generation=st.integers(0, 3))
    def an_earlier_nonce_is_answered(self, sequence: int, evidence: str, generation: int) -> None:
        self.send(candidate(sequence, evidence, key=self.model.key, generation=generation))

    @precondition(lambda self: self.model.last > 0)
    @rule(evidence=st.sampled_from("xyz"))
    def the_last_nonce_is_answered_again(self, evidence: str) -> None:
        self.send(candidate(self.model.last, evidence, key=self.model.key, generation=self.model.generation))

    @rule(key=st.sampled_from(KEYS), sequence=st.integers(1, 20))
    def some_key_answers(self, key: str, sequence: int) -> None:
        self.send(candidate(sequence, "x", key=key, generation=self.model.generation))

    @rule(binding=st.booleans(), name=st.sampled_from(("c1", "c2", "c3")), generation=st.integers(0, 3))
    def a_violation_is_reported(self, binding: bool, name: str, generation: int) -> None:
        cause = Cause(f"{name} {binding} {generation}", "tamper", name, 1, generation)
        known = cause.id in self.seen
        standing = self.run(self.store.record_cause(INSTANCE, cause, binding=binding, now_ms=self.now_ms()))
        self.seen.add(cause.id)
        assert self.model.binding is not None
        if not known:
            self.model.generation = max(self.model.generation, generation)
            if binding:
                self.model.binding.add(cause.id)
        assert standing.quarantined == bool(self.model.binding)

    @property
    def seen(self) -> set[str]:
        self.__dict__.setdefault("_seen", set())
        found: set[str] = self.__dict__["_seen"]
        return found

    @rule(all_named=st.booleans())
    def an_operator_releases(self, all_named: bool) -> None:
        assert self.model.binding is not None
        named = sorted(self.model.binding)[: None if all_named else -1]
        later = self.run(self.store.release(INSTANCE, named, "order"))
        assert {cause.id for cause in later} == self.model.binding - set(named)
        if not later:
            self.model.binding.clear()
            self.model.full_required = True

    @rule(key=st.sampled_from(KEYS), unclean=st.booleans(), goodbye=st.booleans())
    def the_sidecar_starts_again(self, key: str, unclean: bool, goodbye: bool) -> None:
        if goodbye:
            self.run(self.store.end_run(INSTANCE, self.model.key, clean=True))
        self.count += 1
        after = f"ticket {self.count}"
        enrolled = self.run(
            self.store.enrol(application(key, self.model.ticket, after, unclean=unclean), {"web": ()}, 6)
        )
        self.model.ticket, self.model.key, self.model.generation = after, key, 0
        self.model.full_required = self.model.full_required or unclean or not goodbye
        assert enrolled.full_required == self.model.full_required
        assert enrolled.standing.quarantined == bool(self.model.binding)

    @rule()
    def the_authority_starts_again(self) -> None:
        self.store.close()
        self.store = Store(self.folder / "store.sqlite")
        self.store.open()

    @precondition(lambda self: bool(self.model.answered))
    @rule(target=sequences)
    def old_rounds_are_forgotten_but_not_the_last(self) -> MultipleResults[int]:
        self.run(self.store.forget_rounds(1_000_000, over_ms=1_000_000))
        assert self.model.answered is not None
        self.model.answered = {at: kept for at, kept in self.model.answered.items() if at >= self.model.last}
        return multiple()

    @invariant()
    def serials_are_never_given_twice(self) -> None:
        assert self.model.answered is not None
        serials = [accepted.serial for _, accepted in self.model.answered.values()]
        assert len(set(serials)) == len(serials)

    @invariant()
    def a_serial_is_known_as_long_as_its_round_and_no_other_ever_is(self) -> None:
        assert self.model.answered is not None
        for _, accepted in self.model.answered.values():
            assert self.run(self.store.issued(INSTANCE, accepted.serial))
            assert not self.run(self.store.issued(OTHER, accepted.serial))
            assert not self.run(self.store.issued(INSTANCE, accepted.serial ^ 1))

    def teardown(self) -> None:
        self.store.close()
        self.loop.close()


TestRounds = Rounds.TestCase
TestRounds.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def test_the_certificate_that_was_served_last_is_known_when_its_round_is_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite")
        store.open()
        await store.add_token("t", "web", expires_ms=10, now_ms=1)
        await store.enrol(application(KEYS[0], "", "ticket"), {"web": ()}, 1)
        first = await store.accept_round(candidate(1, "1"), 5)
        second = await store.accept_round(candidate(2, "2"), 5)
        assert isinstance(first, Accepted) and isinstance(second, Accepted)
        await store.accept_round(replace(candidate(3, "3"), served=first.serial), 5)
        await store.forget_rounds(1_000_000, over_ms=1_000_000)
        assert await store.issued(INSTANCE, first.serial)
        assert not await store.issued(INSTANCE, second.serial)
        store.close()

    asyncio.run(story())


def test_what_an_order_let_through_does_not_count_once_the_order_has_ended(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite")
        store.open()
        await store.add_token("t", "web", expires_ms=10, now_ms=1)
        await store.enrol(application(KEYS[0], "", "ticket"), {"web": ()}, 1)
        let_through = replace(candidate(1, "1"), tier=Tier.WARNING, break_glass="bg-1")
        assert await store.accept_round(let_through, 5) == Lapsed(exception_over=True)
        await store.apply_break_glass(Broken("bg-1", "order", ("web",), ("ada",), applied_ms=4, seen_ms=4))
        accepted = await store.accept_round(let_through, 5)
        assert isinstance(accepted, Accepted) and accepted.break_glass == "bg-1"
        assert (await store.history(INSTANCE))[-1].state is State.EXCEPTED
        await store.end_break_glass("bg-1", "it is mended")
        assert (await store.history(INSTANCE))[-1].state is State.STALE
        assert await store.accept_round(replace(let_through, sequence=2), 6) == Lapsed(exception_over=True)
        store.close()

    asyncio.run(story())


def test_an_order_that_is_withdrawn_from_a_registration_lets_nothing_through_there_and_goes_on_elsewhere(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite", lambda: 0.007)
        store.open()
        await store.add_token("t", "web", expires_ms=10, now_ms=1)
        await store.enrol(application(KEYS[0], "", "ticket"), {"web": ()}, 1)
        let_through = replace(candidate(1, "1"), tier=Tier.WARNING, break_glass="bg-1")
        applied = Broken("bg-1", "order", ("api", "db", "web"), ("ada",), applied_ms=4, seen_ms=4)
        await store.apply_break_glass(applied)
        assert isinstance(await store.accept_round(let_through, 5), Accepted)
        await store.narrow_break_glass("bg-1", {"api": "its policy forbids it"})
        assert (await store.history(INSTANCE))[-1].state is State.EXCEPTED
        assert isinstance(await store.accept_round(replace(let_through, sequence=2), 6), Accepted)
        await store.narrow_break_glass("bg-1", {"web": "its policy forbids it", "api": "once more"})
        last = (await store.history(INSTANCE))[-1]
        assert (last.state, last.text) == (State.STALE, "bg-1 ended: its policy forbids it")
        assert await store.accept_round(replace(let_through, sequence=3), 7) == Lapsed(exception_over=True)
        withdrawn = tuple(Withdrawn(name, "its policy forbids it", 7) for name in ("api", "web"))
        kept = replace(applied, registrations=("db",), withdrawn=withdrawn)
        assert await store.broken() == (kept,) == (await store.apply_break_glass(applied),)
        store.close()

    asyncio.run(story())


def test_an_order_that_was_applied_is_kept_as_it_was_and_its_end_is_final(tmp_path: Path) -> None:
    async def story() -> None:
        store = Store(tmp_path / "store.sqlite")
        store.open()
        first = Broken("bg-1", "order", ("web",), ("ada",), applied_ms=4, seen_ms=4)
        assert await store.apply_break_glass(first) == first
        assert await store.apply_break_glass(replace(first, registrations=("web", "db"), applied_ms=9)) == first
        await store.end_break_glass("bg-1", "it is mended")
        await store.end_break_glass("bg-1", "its time is over")
        await store.saw_break_glass(99)
        kept = await store.apply_break_glass(first)
        assert kept.ended_ms and (kept.ended, kept.seen_ms) == ("it is mended", 4)
        assert await store.broken() == (kept,)
        store.close()

    asyncio.run(story())


def opened(path: Path) -> Writer:
    writer = Writer(path / "store.sqlite")
    writer.open()
    return writer


def _epoch(db: Connection, number: int) -> int:
    db.execute(insert(epochs), {"epoch": number, "digest": "d", "at_ms": 1})
    return number


def test_what_arrives_together_shares_a_commit(tmp_path: Path) -> None:
    async def story() -> None:
        writer = opened(tmp_path)
        found = await asyncio.gather(*(writer.run(partial(_epoch, number=n)) for n in range(200)))
        assert found == list(range(200))
        assert writer.commits < 50
        writer.close()

    asyncio.run(story())


def test_work_that_fails_takes_nothing_else_with_it(tmp_path: Path) -> None:
    def broken(db: Connection) -> int:
        _epoch(db, 1000)
        raise LookupError("broken")

    async def story() -> None:
        writer = opened(tmp_path)
        work: list[Callable[[Connection], int]] = [partial(_epoch, number=n) for n in range(20)]
        work.insert(10, broken)
        given = await asyncio.gather(*map(writer.run, work), return_exceptions=True)
        assert sum(isinstance(each, LookupError) for each in given) == 1
        kept = await writer.run(lambda db: db.execute(select(epochs.c.epoch)).scalars().all())
        assert sorted(kept) == list(range(20))
        # The same where it is alone in its commit.
        with pytest.raises(LookupError):
            await writer.run(broken)
        assert len(await writer.run(lambda db: db.execute(select(epochs.c.epoch)).scalars().all())) == 20
        writer.close()

    asyncio.run(story())


def test_what_was_handed_in_before_the_end_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        writer = opened(tmp_path)
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(writer.run(partial(_epoch, number=n))) for n in range(50)]
            await asyncio.sleep(0)
            await asyncio.to_thread(writer.close)
        assert [task.result() for task in waiting] == list(range(50))

    asyncio.run(story())


def test_the_epoch_of_policies_never_goes_back(tmp_path: Path) -> None:
    async def story() -> list[int]:
        store = Store(tmp_path / "store.sqlite")
        store.open()
        found = [await store.policy_epoch(digest, 1, {}) for digest in ("a", "a", "b", "a", "a")]
        store.close()
        return found

    assert asyncio.run(story()) == [1, 1, 2, 3, 3]
