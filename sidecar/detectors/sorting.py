"""Alerts, sorted: what is about this workload becomes a fact; what is not, old, or told before is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attestation.detectors.alerts import Alert, Concern, Whereabouts, concern
from attestation.facts import Actor, AlertFact
from sidecar.detectors.lines import Allowance
from sidecar.detectors.questions import Questions
from sidecar.states import Now

MOST_REMEMBERED = 512
RATE, BURST = 20.0, 40.0
"""Facts a second that alerts are made into, and how many at once: each may close, is logged and reported."""


class Sorting:
    """saw: called with each fact. count: with each alert, and what it came to (telemetry.metrics.ALERTS).

    missed: called where an alert that may be ours finds no room. oldest: seconds.
    """

    def __init__(
        self,
        where: Whereabouts,
        oldest: float,
        questions: Questions,
        *,
        now: Callable[[], Now],
        saw: Callable[[AlertFact], None],
        count: Callable[[Alert, str], None],
        missed: Callable[[Alert, str], None],
    ) -> None:
        self._where, self._oldest, self._questions = where, oldest, questions
        self._now, self._saw, self._count, self._missed = now, saw, count, missed
        self._known: OrderedDict[Alert, None] = OrderedDict()
        self._allowance = Allowance(RATE, BURST, now().boot)

    def fresh(self, at_ms: int) -> bool:
        """Neither of the past nor of the future, as what is played back is."""
        return abs(self._now().wall - at_ms / 1000) <= self._oldest

    def take(self, alert: Alert, *, here: bool) -> None:
        """here: it was raised on this machine for certain."""
        if not self.fresh(alert.at_ms):
            self._count(alert, "old")
            return
        if alert in self._known:
            self._count(alert, "repeated")
            return
        match concern(alert.about, self._where, here=here):
            case Concern.OTHERS:
                self._count(alert, "others")
            case Concern.OURS:
                self._tell(alert, named=True)
            case Concern.NOBODYS:
                self._tell(alert, named=False)
            case Concern.BY_PID:
                self._ask(alert)

    def _ask(self, alert: Alert) -> None:
        def answered(workload: bool | None, process: Actor | None) -> None:
            if workload is False:
                self._count(alert, "others")
            else:
                self._tell(alert, named=workload is True, process=process)

        now = self._now()
        self._questions.ask(alert.about.pid, now.boot - (now.wall - alert.at_ms / 1000), answered)

    def _tell(self, alert: Alert, *, named: bool, process: Actor | None = None) -> None:
        self._remember(alert)
        at = self._now().boot
        if not self._allowance.take(at):
            self._count(alert, "dropped")
            self._missed(alert, "more alerts about this workload came than are looked at")
            return
        self._saw(AlertFact(at, alert, named, process))
        self._count(alert, "ours" if named else "unnamed")

    def _remember(self, alert: Alert) -> None:
        self._known[alert] = None
        if len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)
