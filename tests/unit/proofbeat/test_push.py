"""`bench xds-push`: what its report compares, and that its own server and load hold the same conversation."""

from __future__ import annotations

import asyncio

from proofbeat.bench import peers
from proofbeat.bench.push import run
from proofbeat.bench.push.run import DELTA, OURS, PEER, Course, Tally, report


def _tally(cpu_seconds: float, rotations: list[float]) -> Tally:
    return Tally(Course(DELTA, 200, 1, len(rotations)), rotations, cpu_seconds, 30_000_000)


def test_servers_are_compared_by_what_a_push_costs_in_cpu_time_and_not_by_cores_taken() -> None:
    ours, theirs = _tally(0.06, [20.0, 20.0, 20.0]), _tally(0.02, [20.0, 20.0, 20.0])
    found = report({OURS: [ours], PEER: [theirs]})
    share = next(budget for budget in found.budgets if PEER in budget.what)
    assert (share.measured, share.holds) == (0.333, False)
    assert found.plain()["peers"][PEER]["delta_200_server_cpu_a_push"] == {"unit": "us", "value": 33.3}


def test_pushes_are_counted_by_streams_and_rotation_time() -> None:
    found = report({OURS: [_tally(0.06, [20.0, 30.0])]})
    assert found.plain()["figures"]["delta_200_pushes_acknowledged"] == {"unit": "1/s", "value": 8000}
    assert [budget.holds for budget in found.budgets] == [True, True]


def test_a_peer_that_is_not_built_is_named_with_the_target_that_builds_it() -> None:
    found = report({OURS: [_tally(0.06, [20.0])]}).plain()
    assert peers.MAKE in found["peers"][PEER]["missing"]
    assert not any(PEER in budget["what"] for budget in found["budgets"])


def test_every_stream_acknowledges_every_rotation_of_our_own_server() -> None:
    tallies = asyncio.run(run.measured(Course(DELTA, 150, 2, 3), None))
    assert len(tallies[OURS].rotations) == 6
    assert tallies[OURS].cpu_us_a_push > 0
    assert PEER not in tallies
