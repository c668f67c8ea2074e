"""Attacks on a projected volume, which no event alone gives away: the sidecar asks for a round at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.rounds import A_MOMENT
from tests.system.attacks.stage import Scene, scene
from tests.system.measurer.volume import Volume

GOOD = {"config": "listen = 8080"}


@pytest.fixture
def volume() -> Iterator[tuple[Scene, Volume]]:
    """Its configuration is referenced. The next round of itself is a minute away."""
    made: list[Volume] = []

    def lay_out(measured: Path) -> Mapping[str, Any]:
        made.append(Volume(measured / "volume"))
        made[0].write(**GOOD)
        return {"projected": [f"{measured}/volume/**"]}

    with scene(lay_out=lay_out, interval="60s", freshness="180s") as playing:
        playing.proxy()
        playing.until("round", lambda each: each["tier"] == "affirming")
        yield playing, made[0]


def test_a_volume_that_is_led_to_what_nobody_referenced_closes_at_once_and_opens_when_it_is_led_back(
    volume: tuple[Scene, Volume],
) -> None:
    playing, projected = volume
    before = len(playing.logs)
    projected.write(config="listen = 1")
    playing.until("phase", lambda each: each["phase"] == "quarantined", after=before)
    round_ = playing.until("round", lambda each: each["tier"] == "contraindicated", after=before)
    assert f"{projected.folder}/config" in str(round_["reasons"])
    projected.write(**GOOD)
    playing.until_open(after=len(playing.logs))


def test_what_is_written_into_the_state_that_is_shown_closes_at_once(volume: tuple[Scene, Volume]) -> None:
    playing, projected = volume
    shown = (projected.folder / "config").resolve()
    playing.workload.do(f"open({str(shown)!r}, 'w').write('listen = 1')")
    playing.until("phase", lambda each: each["phase"] == "quarantined")


def test_however_often_a_volume_is_swapped_its_instance_stays_open_and_asks_for_few_rounds(
    volume: tuple[Scene, Volume],
) -> None:
    playing, projected = volume
    before, began = len(playing.logs), time.monotonic()
    for number in range(200):
        projected.write(**GOOD, token=f"token {number}")
    took = time.monotonic() - began
    assert playing.attested().tier == "affirming"
    playing.workload.do(f"open('{projected.folder.parent}/main', 'w').write('x')")
    playing.until("violation", after=before)
    events = [each["event"] for each in playing.logs[before:]]
    events = events[: events.index("violation")]
    assert {"phase", "closed"}.isdisjoint(events)
    assert events.count("round") <= took / A_MOMENT + 3, "one for each moment, one after it, and the one asked for"
