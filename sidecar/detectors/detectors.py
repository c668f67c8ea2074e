"""The sidecar's part in somebody else's detectors, put together: heard, sorted, judged, told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from attestation.channel import Owned, Whose
from attestation.coverage import Coverage
from attestation.detectors.alerts import Alert, Detector, Heard, Sign
from attestation.facts import AlertFact, CollectorFact
from policies.model.policy import PolicySpec
from sidecar import clock
from sidecar.config import SidecarConfig
from sidecar.detectors.intake import AlertSocket
from sidecar.detectors.questions import Questions
from sidecar.detectors.sorting import Sorting
from sidecar.detectors.standing import Standing
from sidecar.detectors.whereabouts import whereabouts
from sidecar.telling import Telling


class Detectors:
    """order: to the measurer. saw: hands over a fact, which is judged at once. told: called after each alert that is a
    fact; whatever it led to is done by then.
    """

    def __init__(
        self,
        config: SidecarConfig,
        telling: Telling,
        *,
        order: Callable[[Whose], None],
        saw: Callable[[AlertFact | CollectorFact], None],
        told: Callable[[AlertFact], None],
    ) -> None:
        settings = config.detectors
        of_the_node = config.measurer.placement == "node"
        self.where = whereabouts(config.workload, settings.known_as, of_the_node=of_the_node)
        self._telling, self._saw, self._told = telling, saw, told
        self._closed = False
        self._questions = Questions(order)
        self._standing = Standing(self._changed)
        self._sorting = Sorting(
            self.where,
            settings.oldest,
            self._questions,
            now=clock.now,
            saw=self._raised,
            count=lambda alert, outcome: telling.alert_counted(alert.detector, outcome),
            missed=lambda alert, why: self._missed(alert.detector, why),
        )
        self._socket = AlertSocket(settings, config.workload, self, self._questions)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Once the measurer knows the workload. Raises InvalidConfiguration."""
        self._socket.start(loop)

    def close(self) -> None:
        """That detectors are not heard any more says nothing then."""
        self._closed = True
        self._socket.close()

    def rule(self, spec: PolicySpec) -> None:
        self._standing.rule({detector: each.silence for detector, each in spec.detectors.sources.items()})

    def look(self, *, is_open: bool) -> None:
        """With each beat: who has fallen silent? is_open: traffic flows."""
        self._standing.look(clock.now().boot, is_open=is_open)

    def covered(self, coverage: Coverage) -> Coverage:
        """With the detectors that policy names."""
        return replace(coverage, collectors=(*coverage.collectors, *self._standing.coverage(clock.now().boot)))

    def owned(self, owned: Owned) -> None:
        self._questions.answered(owned)

    def forget(self) -> None:
        """The measurer is lost: what was asked of it stays unanswered."""
        self._questions.forget()

    def passed_on(self, alert: Alert) -> None:
        """By the authority, which had it from a detector of some machine."""
        self._sorting.take(alert, here=False)

    # What comes to the socket.

    def heard(self, heard: Heard) -> None:
        """What is old shows nothing of now, not even that somebody is there."""
        now = clock.now().boot
        if not self._sorting.fresh(heard.at_ms):
            if isinstance(heard, Alert):
                self._telling.alert_counted(heard.detector, "old")
        elif isinstance(heard, Sign):
            self._standing.heard(heard.detector, now, heard.dropped if not heard.lost else None)
            if heard.lost:
                self._missed(heard.detector, heard.lost)
        else:
            self._sorting.take(heard, here=True)
            self._standing.heard(heard.detector, now)

    def joined(self, detector: Detector) -> None:
        self._standing.joined(detector, clock.now().boot)

    def left(self, detector: Detector) -> None:
        self._standing.left(detector, clock.now().boot)

    def missed(self, detector: Detector | None, why: str) -> None:
        """Of nobody known it is one that policy may require: each of them."""
        self._telling.alert_counted(detector, "malformed")
        for each in Detector if detector is None else (detector,):
            self._missed(each, why)

    def refused(self, why: str) -> None:
        self._telling.detector_refused(why)

    def _missed(self, detector: Detector, why: str) -> None:
        self._standing.missed(detector, why, clock.now().boot)

    def _raised(self, fact: AlertFact) -> None:
        self._saw(fact)
        self._telling.alert(fact)
        self._told(fact)

    def _changed(self, fact: CollectorFact) -> None:
        if self._closed:
            return
        self._saw(fact)
        self._telling.detector(fact)
