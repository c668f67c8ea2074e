"""`bench deadman`: what counts as a false trip, and which budgets its report holds the dead-man time to."""

from __future__ import annotations

import math

from proofbeat.bench.deadman import Silence, Throttling, report, trips
from proofbeat.demo.load import Record


def _records(answers: str, flow: int = 0) -> list[Record]:
    """A second each: s for served, r for refused."""
    return [Record(flow, answer == "s", float(at), at + 0.5) for at, answer in enumerate(answers)]


def test_refusals_one_after_the_other_are_one_trip() -> None:
    assert trips(_records("ssrrrssrs"), 0, 0.0, 10.0) == 2


def test_a_period_that_begins_with_a_refusal_has_tripped() -> None:
    assert trips(_records("rrss"), 0, 0.0, 10.0) == 1


def test_other_flows_and_what_lies_outside_the_period_do_not_count() -> None:
    assert trips([*_records("rsssr"), *_records("rrrrr", flow=1)], 0, 1.0, 4.0) == 0


def test_trips_are_told_by_the_minute_and_those_at_the_default_time_break_the_budget() -> None:
    short, default = Throttling("sds", 1.0, "busy", 30.0, 3, 0.9), Throttling("sds", 5.0, "idle", 30.0, 1, 0.1)
    found = report({}, [short, default])
    assert found.plain()["figures"]["sds_starved_busy_deadman_1s_false_trips"] == {"unit": "1/min", "value": 6.0}
    assert [budget.holds for budget in report({}, [short]).budgets] == []
    assert [budget.holds for budget in found.budgets] == [False]


def test_closing_is_held_to_the_dead_man_time_by_the_later_of_new_and_open_connections() -> None:
    late_new, late_open, good = Silence(1101.0, 900.0), Silence(900.0, 1101.0), Silence(900.0, 1100.0)
    holds = [
        budget.holds
        for samples in ([late_new], [late_open], [good], [Silence(900.0, math.inf)])
        for budget in report({"sds": {"stopped": samples}}, ()).budgets
    ]
    assert holds == [False, False, True, False]
