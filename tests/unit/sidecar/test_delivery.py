"""What Envoy is served, whatever happens in whatever order: a closing or a denial that is under way is never lost."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.channel import Sweep
from sidecar.delivery.told import Happening
from tests.unit.sidecar.staged import DEADMAN, ESCALATE, LONG, Stage, Story, identity, identity_in, settled, told

# Closings.


async def a_closing_under_way(stage: Stage) -> None:
    """Of what was open, for an Envoy that has yet to say what it thinks of the poison."""
    await stage.opened(1)
    stage.delivery.close("file-modified")
    await settled()


def test_a_closing_is_over_when_envoy_took_the_poison_and_a_second_sweep_finds_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        stage.delivery.close("file-modified")
        assert stage.orders == [Sweep(1, verify=False)]
        await stage.envoy_takes_everything()
        await stage.measurer_answers()
        await stage.passes(0.05)
        assert stage.orders[1:] == [Sweep(2)]
        assert stage.delivery.closing
        await stage.measurer_answers()
        (closed,) = stage.closings
        assert closed is not None
        assert (closed.happening, closed.reason, closed.destroyed) == (Happening.CLOSED, "file-modified", 2)
        assert list(closed.steps) == ["began", "written", "acknowledged", "swept", "verified"]
        assert stage.served is None

    told(tmp_path, story)


def test_what_is_served_during_a_closing_waits_until_that_is_over(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        stage.delivery.serve(identity(2), stage.lease())
        stage.delivery.serve(identity(3), stage.lease())
        await settled()
        assert stage.delivery.closing
        assert stage.served is None
        await stage.verified()
        assert stage.count(Happening.CLOSED) == 1
        assert stage.served == 3

    told(tmp_path, story)


async def closes(stage: Stage) -> None:
    stage.delivery.close("workload-ended")


async def drains(stage: Stage) -> None:
    stage.delivery.drain("file-modified", DEADMAN)


async def another_envoy_comes(stage: Stage) -> None:
    await stage.envoy_ends()
    await stage.envoy_comes()


async def its_lease_ends(stage: Stage) -> None:
    await stage.sleeps(LONG)


async def delivery_stops(stage: Stage) -> None:
    stage.delivery.stop()


@pytest.mark.parametrize("happens", [closes, drains, another_envoy_comes, its_lease_ends, delivery_stops])
def test_what_waits_for_the_end_of_a_closing_is_not_served_once(tmp_path: Path, happens: Story) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        stage.delivery.serve(identity(2), stage.lease())
        await happens(stage)
        await stage.verified()
        assert stage.served is None
        assert stage.envoy is not None
        assert not [body for each in stage.envoy.news() for body in each.bodies if identity_in(body) == 2]

    told(tmp_path, story)


def test_an_envoy_that_ends_during_a_closing_ends_it_and_its_successor_is_served_what_comes_after_it(
    tmp_path: Path,
) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        await stage.envoy_ends()
        await stage.envoy_comes()
        assert stage.seats == 2
        stage.delivery.serve(identity(2), stage.lease())
        await stage.verified()
        (closed,) = stage.closings
        assert closed is not None
        assert (closed.happening, closed.detail) == (Happening.CLOSED, "Envoy ended")
        assert stage.served == 2

    told(tmp_path, story)


def test_a_closing_during_another_takes_its_place_and_what_the_other_ordered_proves_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        stage.delivery.close("workload-ended")
        await stage.swept(1)
        await stage.envoy_takes_everything()
        await stage.passes(0.05)
        await stage.swept(1)
        assert stage.delivery.closing
        await stage.verified()
        overtaken, closed = stage.closings
        assert overtaken is None
        assert closed is not None
        assert closed.reason == "workload-ended"
        # What the first sweep of the earlier closing answered is no rung of this one.
        assert closed.steps["swept"] > closed.steps["acknowledged"]
        await stage.passes(ESCALATE)
        assert stage.orders == [Sweep(1, verify=False), Sweep(2, verify=False), Sweep(3)]
        assert stage.closings == [None, closed]

    told(tmp_path, story)


def test_a_poison_that_is_rejected_ends_envoy_and_what_stays_is_bounded_and_not_closed(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        await stage.envoy_answers("no such key")
        assert stage.envoy is not None
        assert not stage.envoy.body.alive
        while stage.delivery.closing:
            await stage.measurer_answers(left=1)
            await stage.passes(0.05)
        assert [each.happening for each in stage.closings if each is not None] == [Happening.BOUNDED]

    told(tmp_path, story)


def test_an_envoy_that_does_not_take_the_poison_in_time_is_ended_whatever_times_rule_meanwhile(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        stage.retimed(DEADMAN * 10, ESCALATE * 10)
        await stage.passes(ESCALATE)
        assert stage.envoy is not None
        assert not stage.envoy.body.alive

    told(tmp_path, story)


def test_nothing_is_ordered_for_a_closing_after_delivery_has_stopped(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        stage.delivery.stop()
        await stage.envoy_takes_everything()
        await stage.passes(ESCALATE)
        assert stage.orders == [Sweep(1, verify=False)]

    told(tmp_path, story)


def test_to_be_closed_again_and_again_gives_envoy_no_new_time_to_take_the_poison(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        for _ in range(3):
            await stage.passes(ESCALATE / 4)
            stage.delivery.close("file-modified")
        await stage.passes(ESCALATE / 4)
        assert stage.envoy is not None
        assert not stage.envoy.body.alive

    told(tmp_path, story)


def test_an_envoy_that_took_the_poison_of_one_closing_has_all_its_time_for_the_next(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await a_closing_under_way(stage)
        await stage.envoy_takes_everything()
        await stage.passes(ESCALATE / 4)
        stage.delivery.close("workload-ended")
        await stage.passes(ESCALATE - 0.01)
        assert stage.envoy is not None
        assert stage.envoy.body.alive
        await stage.passes(0.01)
        assert not stage.envoy.body.alive

    told(tmp_path, story)


# Openings.


def test_an_opening_that_a_closing_overtook_lets_nothing_pass_when_it_is_settled_later(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.envoy_comes()
        await stage.envoy_takes_everything()
        stage.delivery.serve(identity(1), stage.lease())
        stage.delivery.close("file-modified")
        await settled()
        # Its end is seen before the loss of its stream, which settles what it was told.
        assert stage.envoy is not None
        stage.envoy.body.die()
        await settled()
        await stage.measurer_answers_everything()
        assert not stage.delivery.closing
        stage.delivery.serve(identity(2), stage.lease())
        await stage.envoy_ends()
        assert stage.served == 2
        assert stage.count(Happening.OPENED) == 1

    told(tmp_path, story)


def test_an_opening_that_envoy_rejects_opens_nothing(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.envoy_comes()
        await stage.envoy_takes_everything()
        stage.delivery.serve(identity(1), stage.lease())
        await settled()
        await stage.envoy_answers("no such key")
        await stage.envoy_takes_everything()
        assert stage.count(Happening.REJECTED) == 1
        assert stage.count(Happening.OPENED) == 0

    told(tmp_path, story)


def test_an_envoy_that_rejects_what_would_let_pass_is_not_called_open(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.envoy_comes()
        await stage.envoy_takes_everything()
        stage.delivery.serve(identity(1), stage.lease())
        await settled()
        await stage.envoy_answers()
        await stage.envoy_answers()
        assert stage.served == 1
        await stage.envoy_answers("no such filter")
        assert stage.count(Happening.REJECTED) == 1
        assert stage.count(Happening.OPENED) == 0

    told(tmp_path, story)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_an_identity_whose_lease_is_over_is_not_even_given(tmp_path: Path, seconds: float) -> None:
    async def story(stage: Stage) -> None:
        await stage.envoy_comes()
        stage.delivery.serve(identity(1), stage.lease(seconds))
        assert stage.served is None

    told(tmp_path, story)


# Drains.


def test_what_drains_is_cut_when_its_time_is_over(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        stage.delivery.drain("file-modified", 3.0)
        await stage.envoy_takes_everything()
        await stage.passes(2.9)
        assert stage.delivery.draining
        await stage.passes(0.1)
        assert not stage.delivery.draining
        assert stage.delivery.closing

    told(tmp_path, story)


@pytest.mark.parametrize("time_goes_on", [Stage.passes, Stage.sleeps], ids=["awake", "asleep"])
def test_what_drains_has_what_is_left_of_the_lease_by_then_and_not_by_the_last_heartbeat(
    tmp_path: Path, time_goes_on: Callable[[Stage, float], Awaitable[None]]
) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1, seconds=6.0)
        await time_goes_on(stage, 5.0)
        stage.delivery.drain("file-modified", DEADMAN)
        await stage.envoy_takes_everything()
        await stage.passes(0.9)
        assert stage.delivery.draining
        await stage.passes(0.1)
        assert stage.delivery.closing

    told(tmp_path, story)


def test_what_should_drain_when_the_lease_is_over_is_cut_at_once(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1, seconds=6.0)
        await stage.sleeps(6.0)
        stage.delivery.drain("file-modified", DEADMAN)
        assert stage.delivery.closing

    told(tmp_path, story)


@pytest.mark.parametrize("answer", [None, "no such key"], ids=["silence", "rejection"])
def test_what_drains_is_cut_where_envoy_does_not_take_the_poison(tmp_path: Path, answer: str | None) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        stage.delivery.drain("file-modified", DEADMAN)
        await settled()
        if answer is not None:
            await stage.envoy_answers(answer)
        else:
            await stage.passes(ESCALATE)
        assert stage.delivery.closing
        assert stage.envoy is not None
        assert not stage.envoy.body.alive, "it has had its time"
        assert stage.count(Happening.DRAINING) == 1

    told(tmp_path, story)


def test_what_drains_is_open_again_when_it_is_served_and_cut_by_no_timer_of_before(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.opened(1)
        stage.delivery.drain("file-modified", 3.0)
        await stage.envoy_takes_everything()
        stage.delivery.serve(identity(2), stage.lease())
        await settled()
        await stage.envoy_takes_everything()
        await stage.passes(3.0)
        assert stage.served == 2
        assert not stage.delivery.closing

    told(tmp_path, story)


# Any order.

SHORTLY = 1.0
"""Seconds of a lease that ends while a story goes on."""
EVENTS = (
    *("serve", "serve shortly", "close", "drain", "list", "retime", "heartbeat"),
    *("comes", "accepts", "accepts all", "accepts all", "rejects", "hangs up", "ends"),
    *("swept", "swept", "some left", "old number"),
    *("a moment", "too long", "a lease", "a sleep"),
)


class Served:
    """What may be given. ends: of each lease that was served, in CLOCK_BOOTTIME seconds. void: so many of them were
    served before the last closing or drain, or to an earlier Envoy.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.void = 0
        self._before: int | None = None

    @property
    def newest(self) -> int:
        return len(self.ends)

    def look(self, stage: Stage) -> None:
        """After every event."""
        given = [] if stage.served is None else [stage.served]
        if stage.envoy is not None:
            given += [found for told in stage.envoy.news() for body in told.bodies if (found := identity_in(body))]
        assert all(self.void < each <= self.newest for each in given)
        if stage.served is not None and stage.served != self._before:
            assert self.ends[stage.served - 1] > stage.now().boot, "its lease is over"
        self._before = stage.served
        under_way = bool(stage.closings) and stage.closings[-1] is None
        assert stage.delivery.closing is under_way, "it goes on until it has ended, or another took its place"
        assert stage.served is None or not (under_way or stage.delivery.draining)


async def happen(event: str, stage: Stage, served: Served) -> None:
    seats = stage.seats
    match event:
        case "serve" | "serve shortly":
            lease = stage.lease(LONG if event == "serve" else SHORTLY)
            served.ends.append(lease.boot_end)
            stage.delivery.serve(identity(served.newest), lease)
        case "close":
            stage.delivery.close("closed")
        case "drain":
            stage.delivery.drain("drained", DEADMAN)
        case "list":
            await stage.lists(stage.version + 1)
        case "retime":
            stage.retimed(DEADMAN / 2)
        case "heartbeat":
            stage.delivery.heartbeat()
        case "comes":
            await stage.envoy_comes()
        case "accepts all":
            await stage.envoy_takes_everything()
        case "accepts" | "rejects":
            await stage.envoy_answers("no such key" if event == "rejects" else None)
        case "hangs up":
            await stage.envoy_hangs_up()
        case "ends":
            await stage.envoy_ends()
        case "swept" | "some left":
            await stage.measurer_answers(left=1 if event == "some left" else 0)
        case "old number":
            await stage.swept(1)
        case "a sleep":
            await stage.sleeps(SHORTLY)
        case _:
            await stage.passes({"a moment": 0.05, "too long": ESCALATE, "a lease": SHORTLY}[event])
    await settled()
    if event in ("close", "drain") or stage.seats > seats:
        served.void = served.newest
    served.look(stage)


@settings(deadline=None)
@given(st.lists(st.sampled_from(EVENTS), min_size=4, max_size=24))
def test_in_any_order_nothing_void_is_given_every_closing_ends_once_and_what_is_served_after_it_comes(
    events: list[str],
) -> None:
    async def story(stage: Stage) -> None:
        served = Served()
        for event in ("comes", "accepts all", "serve", "accepts all", *events):
            await happen(event, stage, served)
        await stage.verified()
        served.look(stage)
        if stage.delivery.draining:
            await happen("a lease", stage, served)
            await stage.passes(DEADMAN)
            await stage.verified()
        due = served.newest > served.void and served.ends[-1] > stage.now().boot
        assert (stage.served == served.newest) if due else (stage.served is None or served.newest > served.void)

    with tempfile.TemporaryDirectory() as folder:
        told(Path(folder), story)


@settings(deadline=None)
@given(st.lists(st.sampled_from(("list", "list", "serve", "accepts", "rejects", "hangs up", "comes", "a moment"))))
def test_however_envoy_answers_what_is_open_to_the_denied_is_cut_in_time_and_once_more_when_it_refuses_them(
    events: list[str],
) -> None:
    async def story(stage: Stage) -> None:
        served, due = Served(), dict[int, float]()
        for event in ("comes", "accepts all", "serve", "accepts all", *events):
            await happen(event, stage, served)
            if event == "list":
                due[stage.version] = stage.now().boot + ESCALATE
            cut = max(stage.severed, default=0)
            assert all(version <= cut for version, end in due.items() if stage.now().boot >= end)
            assert stage.delivery.refuses == max(stage.acknowledged, default=0) <= cut
        await stage.passes(ESCALATE)
        assert max(stage.severed, default=0) == stage.version

    with tempfile.TemporaryDirectory() as folder:
        told(Path(folder), story)
