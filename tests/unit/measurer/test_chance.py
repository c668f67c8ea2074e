"""When files are read again that nothing says to have changed: as often as stated, and never foreseeably."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from measurer.files.chance import LEAST_STEP, UNIT, Chance

SEED = 20261128
"""The kernel's generator decides in the measurer; here the outcome has to be the same every time."""


def played(chance: Chance, seconds: float) -> list[tuple[float, bytes, int]]:
    """What is read when, for so long."""
    read, now = [], 0.0
    while (now := now + chance.gap()) < seconds:
        read += [(now, *unit) for unit in chance.draw()]
    return read


def chance_of(mean: float, *folders: tuple[bytes, int]) -> Chance:
    chance = Chance(mean, Random(SEED))  # noqa: S311 - repeatable
    chance.fill(folders)
    return chance


MEAN = 60.0
FOLDERS = ((b"/a", UNIT * 40), (b"/b", 1), (b"/empty", 0), (b"/c", UNIT * 7 + 1))


def test_every_file_is_read_once_in_the_mean_time_on_average_whatever_its_folder() -> None:
    times = 2000
    read = Counter((path, unit) for _, path, unit in played(chance_of(MEAN, *FOLDERS), MEAN * times))
    assert set(read) == {*((b"/a", n) for n in range(40)), (b"/b", 0), *((b"/c", n) for n in range(8))}
    for count in read.values():
        assert abs(count - times) < 5 * math.sqrt(times)


@pytest.mark.parametrize("folders", [FOLDERS, ((b"/b", 1),)])
def test_that_a_file_was_read_just_now_says_nothing_about_when_it_is_next(
    folders: tuple[tuple[bytes, int], ...],
) -> None:
    """The gaps are exponential: for any t, a share of exp(-t / mean) is longer, and longer by so much again."""
    read = [now for now, path, _ in played(chance_of(MEAN, *folders), MEAN * 6000) if path == b"/b"]
    gaps = [later - earlier for earlier, later in pairwise(read)]
    for wait in (MEAN / 4, MEAN, MEAN * 3):
        longer = [gap for gap in gaps if gap > wait]
        assert abs(len(longer) / len(gaps) - math.exp(-wait / MEAN)) < 0.03
        again = sum(gap > wait * 2 for gap in longer) / max(1, len(longer))
        assert abs(again - math.exp(-wait / MEAN)) < 0.12


@pytest.mark.parametrize("folders", [((b"/a", UNIT * 100_000),), ((b"/a", 3),), ((b"/a", UNIT * 40), (b"/b", 1))])
def test_it_wakes_at_most_once_a_second_on_average(folders: tuple[tuple[bytes, int], ...]) -> None:
    chance = chance_of(600.0, *folders)
    gaps = [chance.gap() for _ in range(2000)]
    assert sum(gaps) / len(gaps) > LEAST_STEP * 0.9


def test_what_is_read_follows_what_is_there() -> None:
    chance = chance_of(1.0, (b"/old", 1))
    chance.fill([(b"/new", 1)])
    assert {path for _, path, _ in played(chance, 50.0)} == {b"/new"}
    chance.fill([])
    assert chance.draw() == []
    assert chance.gap() > 0


def test_two_measurers_do_not_read_the_same_at_the_same_time() -> None:
    one, other = Chance(MEAN, Random(1)), Chance(MEAN, Random(2))  # noqa: S311 - repeatable
    for each in (one, other):
        each.fill(FOLDERS)
    assert played(one, 600.0) != played(other, 600.0)
