"""Whether each detector is heard: connected, not silent for too long, and missing nothing. Pure; time is passed in.

What a detector can show of itself differs. Falco tells of itself every so often where it is asked to
(`metrics.output_rule`), and of what it dropped. Tetragon has no such word: that its relay's connection stands is what
there is, and whatever it exports of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from attestation.coverage import CollectorCoverage, Mechanism
from attestation.detectors.alerts import Detector
from attestation.facts import CollectorFact, CollectorState
from attestation.layers import Layer
from policies.appraise.detectors import name_of

SETTLED = 10.0
"""Seconds after which a detector that missed something counts as heard again."""


@dataclass(slots=True)
class _Source:
    connections: int = 0
    heard: float = -inf
    missed: float = -inf
    why: str = ""
    dropped: int | None = None
    lost: int = 0
    told: CollectorState | None = None


class Standing:
    """tell: called with each change. Times are CLOCK_BOOTTIME seconds."""

    def __init__(self, tell: Callable[[CollectorFact], None]) -> None:
        self._tell = tell
        self._sources: dict[Detector, _Source] = {}
        self._silence: Mapping[Detector, float | None] = {}

    def rule(self, silence: Mapping[Detector, float | None]) -> None:
        """The detectors that policy names, and for how long each may say nothing; None for as long as it likes."""
        self._silence = silence

    def joined(self, detector: Detector, now: float) -> None:
        """A connection brings it."""
        source = self._source(detector)
        source.connections += 1
        source.heard, source.dropped = now, None
        self.look(now)

    def left(self, detector: Detector, now: float) -> None:
        self._source(detector).connections -= 1
        self.look(now)

    def heard(self, detector: Detector, now: float, dropped: int | None = None) -> None:
        """dropped: how much it says that it dropped since it began; None where it says nothing of that."""
        source = self._source(detector)
        source.heard = now
        before, source.dropped = source.dropped, source.dropped if dropped is None else dropped
        if dropped is not None and before is not None and dropped > before:
            self.missed(detector, f"it dropped {dropped - before} of what it saw", now)
        else:
            self.look(now)

    def missed(self, detector: Detector, why: str, now: float) -> None:
        """An alert of it may never have come."""
        source = self._source(detector)
        source.missed, source.why = now, why
        source.lost += 1
        self.look(now)

    def look(self, now: float, *, is_open: bool = False) -> None:
        """Tell of each whose state is another than was told.

        That one has not come yet is no news while nothing is open: evidence says so, and opens nothing. is_open:
        traffic flows, so that policy came to name it only now.
        """
        for detector in Detector:
            source = self._sources.get(detector)
            if source is None and detector not in self._silence:
                continue
            source = self._source(detector)
            state, detail = self._state(detector, source, now)
            awaited = source.told is None and state is CollectorState.DEAD and not is_open
            if state is not source.told and not awaited:
                source.told = state
                self._tell(CollectorFact(now, name_of(detector), state, detail))

    def coverage(self, now: float) -> tuple[CollectorCoverage, ...]:
        """Of those that policy names."""
        return tuple(self._covered(detector, now) for detector in Detector if detector in self._silence)

    def _covered(self, detector: Detector, now: float) -> CollectorCoverage:
        source, silence = self._source(detector), self._silence[detector]
        state, detail = self._state(detector, source, now)
        latency = 0.0 if silence is None else silence * 1000
        running = state is CollectorState.RUNNING
        shown = "" if running else detail
        return CollectorCoverage(
            name_of(detector), Layer.ATTESTER, Mechanism.DETECTOR, latency, running, source.lost, shown
        )

    def _state(self, detector: Detector, source: _Source, now: float) -> tuple[CollectorState, str]:
        silence = self._silence.get(detector)
        if source.connections == 0:
            return CollectorState.DEAD, "nobody relays it"
        if silence is not None and now - source.heard > silence:
            return CollectorState.DEAD, f"it has said nothing for more than {silence:g} s"
        if now - source.missed < SETTLED:
            return CollectorState.OVERFLOWED, source.why
        return CollectorState.RUNNING, ""

    def _source(self, detector: Detector) -> _Source:
        return self._sources.setdefault(detector, _Source())
