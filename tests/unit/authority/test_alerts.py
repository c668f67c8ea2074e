"""Alerts at the authority: who is told of them, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from attestation.detectors.alerts import About, Alert, Detector, Whereabouts
from attestation.errors import InvalidInput, Refused
from attestation.instance import InstanceId
from authority.alerts import BURST, MOST_RECENT, Alerts, noted
from wire.messages import Noted

WEB, API, GONE = (InstanceId("i-" + digit * 32) for digit in "abc")
CONTAINER, OTHER = "5" * 64, "6" * 64
NOW = 1_700_000_000.0


@dataclass
class Desk:
    """pushed: who was told what, in order."""

    now: float = NOW
    pushed: list[tuple[InstanceId, Alert]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.here = {WEB, API}
        self.alerts = Alerts(self._tell, lambda: self.here, lambda: self.now, 60.0)

    def _tell(self, instance: InstanceId, alert: Alert) -> None:
        self.pushed.append((instance, alert))


INSIDE = About(container=CONTAINER)


def raised(number: int = 0, about: About = INSIDE) -> Alert:
    return Alert(Detector.FALCO, "Shell", f"a shell {number}", int(NOW * 1000), about)


@pytest.mark.parametrize(
    ("about", "told"),
    [
        (About(container=CONTAINER[:12]), (WEB,)),
        (About(container=OTHER), (API,)),
        (About(container=CONTAINER[:12] + "7" * 52), ()),
        (About(pod_uid="uid-1"), (WEB,)),
        (About(namespace="default", pod="web"), (WEB,)),
        (About(namespace="other", pod="web"), ()),
        (About(host=True, node="node-1", pid=7), ()),
        (About(node="node-1", pid=7), (WEB, API)),
        (About(node="node-2", pid=7), ()),
        (About(pid=7), ()),
        (About(), ()),
    ],
)
def test_those_are_told_whom_it_may_be_about_by_where_they_say_that_they_run(
    about: About, told: tuple[InstanceId, ...]
) -> None:
    desk = Desk()
    desk.alerts.placed(WEB, Whereabouts(CONTAINER, "uid-1", "default", "web", "node-1", pids=True))
    desk.alerts.placed(API, Whereabouts(OTHER, "uid-2", "default", "api", "node-1", pids=True))
    assert desk.alerts.take(raised(about=about)) == told
    assert desk.pushed == [(each, raised(about=about)) for each in told]


def test_who_has_moved_is_where_it_said_last_and_who_is_gone_is_told_nothing() -> None:
    desk = Desk()
    desk.alerts.placed(WEB, Whereabouts(CONTAINER))
    desk.alerts.placed(WEB, Whereabouts(OTHER))
    desk.alerts.placed(GONE, Whereabouts(OTHER))
    assert desk.alerts.take(raised()) == ()
    assert desk.alerts.take(raised(about=About(container=OTHER))) == (WEB,)


def test_who_comes_back_while_an_alert_is_young_is_told_of_it() -> None:
    """A session that breaks just then, or is broken, does not keep an alert from whom it is about."""
    desk = Desk()
    desk.alerts.take(raised())
    desk.alerts.placed(API, Whereabouts(OTHER))
    assert desk.pushed == []
    desk.alerts.placed(WEB, Whereabouts(CONTAINER))
    assert desk.pushed == [(WEB, raised())]
    desk.now += 61
    desk.alerts.placed(WEB, Whereabouts(CONTAINER))
    assert len(desk.pushed) == 1


def test_what_is_kept_is_bounded() -> None:
    desk = Desk()
    for number in range(MOST_RECENT + 1):
        desk.now += 0.1
        desk.alerts.take(raised(number))
    desk.now = NOW
    desk.alerts.placed(WEB, Whereabouts(CONTAINER))
    assert len(desk.pushed) == MOST_RECENT
    for number in range(3 * MOST_RECENT):
        desk.alerts.placed(InstanceId(f"i-{number:032x}"), Whereabouts(OTHER))
    assert len(desk.alerts._where) <= 2 * len(desk.here) + MOST_RECENT + 1


def test_more_alerts_than_are_looked_at_are_refused_until_there_is_room_again() -> None:
    desk = Desk()
    for number in range(int(BURST)):
        desk.alerts.take(raised(number))
    with pytest.raises(Refused) as refused:
        desk.alerts.take(raised(-1))
    assert refused.value.kind == "too-many"
    desk.now += 1.0
    desk.alerts.take(raised(-1))


@pytest.mark.parametrize(("off", "old"), [(0.0, False), (59.0, False), (61.0, True), (-61.0, True)])
def test_an_alert_is_too_old_in_either_direction(off: float, old: bool) -> None:
    desk = Desk()
    assert desk.alerts.too_old(replace(raised(), at_ms=int((NOW - off) * 1000))) is old


def test_a_name_without_end_is_refused() -> None:
    with pytest.raises(InvalidInput):
        Desk().alerts.placed(WEB, Whereabouts(node="x" * 300))


def test_what_a_sidecar_notes_is_shown_within_bounds() -> None:
    alert = replace(raised(), rule="\x1b[2J" * 1000, text="x" * 10_000)
    text = noted(Noted(alert, 3))
    assert text.isprintable() and len(text) < 1000
    assert text.endswith("; 3 more before it")
