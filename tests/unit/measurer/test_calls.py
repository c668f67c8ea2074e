"""What is counted of calls, who was first outside of the baseline, and whom a mark may be given to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.facts import Actor
from attestation.tally import MOST_OFFENCES, amount, magnitude
from measurer.calls.counting import LEAST_SPAN, ROUND, Pace, Totals
from measurer.calls.outside import Outside
from measurer.marking import mark_all, mark_one
from measurer.processes.held import Allowance, Held

WHO = Actor(7, "/usr/bin/redis-server")


@given(st.lists(st.tuples(*[st.integers(0, ROUND - 1)] * 3), min_size=1, max_size=8))
def test_a_total_is_what_all_rises_come_to_however_often_the_counters_go_round(
    rises: list[tuple[int, int, int]],
) -> None:
    totals = Totals()
    columns = list(zip(*rises, strict=True))
    for counts in zip(*map(accumulate, columns), strict=True):
        totals.take([count % ROUND for count in counts])
    assert [totals.risen[number] for number in range(3)] == list(map(sum, columns))


def test_a_pace_is_the_average_and_the_busiest_span_since_it_was_last_asked_for() -> None:
    pace = Pace()
    pace.begin(ROUND - 10, 100.0)
    for count, at in ((90, 101.0), (90, 102.0), (190, 104.0)):
        pace.look(count, at)
    assert pace.told() == (50.0, 100.0), "the counter went round on the way"
    assert pace.told() is None, "nothing was looked at since"


def test_what_was_counted_over_less_than_a_span_waits_for_the_rest_of_it() -> None:
    pace = Pace()
    pace.begin(0, 100.0)
    pace.look(1000, 100.0 + LEAST_SPAN / 2)
    assert pace.told() is None
    pace.look(1000, 102.0)
    assert pace.told() == (500.0, 500.0)


def test_what_is_counted_while_nobody_looks_is_no_pace() -> None:
    pace = Pace()
    pace.begin(0, 100.0)
    pace.look(10, 101.0)
    pace.rest()
    pace.look(5000, 102.0)
    pace.begin(5000, 110.0)
    pace.look(5010, 111.0)
    assert pace.told() == (10.0, 10.0)


@given(st.integers(0, 1 << 62))
def test_a_magnitude_says_an_amount_to_within_a_factor_of_two(count: int) -> None:
    told = amount(magnitude(count))
    assert count <= told < 2 * count or told == count


@given(st.integers(0, 1 << 61), st.integers(0, 1 << 61))
def test_more_is_never_told_as_less(one: int, other: int) -> None:
    assert (one <= other) <= (magnitude(one) <= magnitude(other))


def test_a_call_is_news_once_until_all_is_told_anew_and_whoever_was_first_stays_the_first() -> None:
    outside = Outside()
    assert outside.is_news("chroot", WHO, 5.0)
    assert not outside.is_news("chroot", Actor(8), 6.0)
    outside.turn()
    assert outside.is_news("chroot", Actor(9), 7.0)
    ((first,), more) = outside.offences(10.0)
    assert (first.call, first.pid, first.executable, first.age_ms, more) == ("chroot", 7, WHO.executable, 5000, 0)


def test_what_is_within_the_baseline_by_now_is_no_offence_any_more() -> None:
    outside = Outside()
    outside.is_news("chroot", WHO, 5.0)
    outside.is_news("personality", WHO, 6.0)
    outside.allow(frozenset({"chroot"}))
    (offences, _) = outside.offences(7.0)
    assert [each.call for each in offences] == ["personality"]


def test_the_earliest_offences_are_told_and_the_others_counted() -> None:
    outside = Outside()
    for number in range(MOST_OFFENCES + 3):
        outside.is_news(f"call{number}", WHO, 100.0 - number)
    offences, more = outside.offences(200.0)
    assert (len(offences), more) == (MOST_OFFENCES, 3)
    assert offences[0].age_ms == max(each.age_ms for each in offences)
    assert "call0" not in {each.call for each in offences}


# Whom a mark is given to.

THREADS = """
import sys, threading
held = threading.Event()
[threading.Thread(target=held.wait, daemon=True).start() for _ in range(3)]
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def threaded() -> Iterator[int]:
    running = subprocess.Popen([sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdout
    running.stdout.readline()
    yield running.pid
    running.kill()
    running.communicate()


def task_of(pidfd: int) -> int:
    """The number of the task that a pidfd is of."""
    with open(f"/proc/self/fdinfo/{pidfd}") as told:
        return int(next(line.split()[1] for line in told if line.startswith("Pid:")))


def tasks(pid: int) -> list[int]:
    return sorted(int(each.name) for each in Path(f"/proc/{pid}/task").iterdir())


def test_each_thread_of_a_process_is_marked_once(threaded: int) -> None:
    process = Held(threaded, Allowance())
    marked: list[int] = []
    mark_all(process, lambda pidfd: marked.append(task_of(pidfd)))
    process.close()
    assert sorted(marked) == tasks(threaded)
    assert len(marked) == 4


def test_a_number_that_is_another_process_thread_by_now_marks_nobody(threaded: int) -> None:
    """As it is when a thread ends after it was listed, and its number is given again before it is opened."""
    process = Held(os.getpid(), Allowance())
    marked: list[int] = []
    for thread in tasks(threaded):
        mark_one(process, thread, marked.append)
    process.close()
    assert not marked


def test_a_task_that_ended_meanwhile_is_nothing_to_be_told_of(threaded: int) -> None:
    def ended(_: int) -> None:
        raise ProcessLookupError

    process = Held(threaded, Allowance())
    mark_one(process, threaded, ended)
    process.close()
