"""The proxy layer put together: what the measurer reads of Envoy, and what Envoy answered to what we deliver.

The identity is for an Envoy that an appraisal affirmed. A new one in the seat waits for that, unless it is in all that
can be read of it the one that was affirmed: then the same evidence would be affirmed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from attestation import proxy
from attestation.channel import Inspected
from attestation.facts import Actor, ProxyFact
from attestation.layers import Layer
from attestation.observation import Observation
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess
from xds.acks import Verdict
from xds.messages import LISTENER, SECRET
from xds.peer import Peer
from xds.resources.ecds import EXTENSION_CONFIG_TYPE
from xds.snapshot import type_url

_EXPOSING: Mapping[Delivered, str] = {
    Delivered.SECRETS: type_url(SECRET),
    Delivered.EVERYTHING: type_url(LISTENER),
}
"""What of ours lets traffic into Envoy: by then it must have the filters as well."""


@dataclass(slots=True)
class Answers:
    """What one Envoy has accepted and refused of filters and of what lets traffic in, since it took the seat.

    exposed_at: CLOCK_BOOTTIME seconds since when it has held the latter, None while it does not. Heartbeats count: an
    Envoy that comes back to us is not sent again what it holds, and answers those.
    """

    delivered: Delivered
    filters: set[str] = field(default_factory=set)
    exposing: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    exposed_at: float | None = None

    def take(self, verdict: Verdict) -> None:
        if verdict.type_url == EXTENSION_CONFIG_TYPE:
            self._filters_answered(verdict)
        elif verdict.type_url == _EXPOSING[self.delivered] and verdict.accepted:
            self.exposing.difference_update(verdict.removed)
            self.exposing.update(verdict.resources)
            held = self.exposed_at if self.exposed_at is not None else verdict.at
            self.exposed_at = held if self.exposing else None

    def denial(self, now: float, patience: float) -> Denial:
        """patience: seconds that the answer about filters may take."""
        if self.exposed_at is None:
            return Denial.PENDING
        if self.filters and not self.refused:
            return Denial.IN_FORCE
        waiting = not self.refused and now - self.exposed_at < patience
        return Denial.PENDING if waiting else Denial.MISSING

    def _filters_answered(self, verdict: Verdict) -> None:
        if verdict.accepted:
            self.filters.difference_update(verdict.removed)
            self.filters.update(verdict.resources)
            self.refused.difference_update(verdict.resources)
        else:
            self.refused.update(verdict.resources)


class ProxyLayer:
    """One sidecar's, over all the Envoys that take its seat.

    clock: CLOCK_BOOTTIME seconds. patience: seconds, read each time. saw: told of each change, to be judged at once.
    observed: told of every observation with its body, after that.
    """

    def __init__(
        self,
        delivered: Delivered,
        *,
        clock: Callable[[], float],
        patience: Callable[[], float],
        saw: Callable[[ProxyFact], None],
        observed: Callable[[Observation, bytes], None],
    ) -> None:
        self._delivered = delivered
        self._clock, self._patience = clock, patience
        self._saw, self._observed = saw, observed
        self._envoy: Actor | None = None
        self._answers = Answers(delivered)
        self._inspected: Inspected | None = None
        self._composed: Proxy | None = None
        self._affirmed: ProxyProcess | None = None

    @property
    def stands_affirmed(self) -> bool:
        """Is what holds the seat, read since it took it, as what an appraisal has affirmed?"""
        told = self._inspected
        return told is not None and told.process is not None and told.process == self._affirmed

    def seated(self, envoy: Peer) -> None:
        """Another process: nothing is known of it."""
        self._envoy = Actor(envoy.pid, envoy.executable or "")
        self._answers, self._inspected = Answers(self._delivered), None

    def answered(self, verdict: Verdict) -> None:
        self._answers.take(verdict)
        self.look()

    def inspected(self, told: Inspected) -> bool:
        """True where it is the first word about who holds the seat."""
        if told.pid and (self._envoy is None or told.pid != self._envoy.pid):
            return False  # of an earlier one, its end included; that of this one is on its way
        first, self._inspected = self._inspected is None or self._inspected.process is None, told
        self._compose(told)
        return first and told.process is not None

    def look(self) -> None:
        """Is it otherwise than it was, by an answer or by the time that passed without one?"""
        if self._inspected is not None and self._inspected.process is not None and self._now() != self._composed:
            self._compose(self._inspected)

    def affirmed(self, body: bytes) -> None:
        """An appraisal affirmed this layer. Raises MalformedEvidence for what is none."""
        held = proxy.unpack(body)
        self._affirmed = held.process if held is not None else None

    def _compose(self, told: Inspected) -> None:
        before, self._composed = self._composed, self._now()
        if self._composed is not None and self._composed != before:
            who = self._envoy or Actor(told.pid)
            self._saw(ProxyFact(self._clock(), self._composed, who, told.tracer))
        body = proxy.pack(self._composed)
        items = 0 if self._composed is None else 1
        self._observed(
            Observation(Layer.PROXY, proxy.digest(body), told.method, told.began, told.full_began, items), body
        )

    def _now(self) -> Proxy | None:
        told = self._inspected
        if told is None or told.process is None:
            return None
        denial = self._answers.denial(self._clock(), self._patience())
        filters = tuple(sorted(self._answers.filters)) if denial is not Denial.PENDING else ()
        # Our own listeners resume nothing (xds/resources/transport.py); of others we see nothing.
        resumes_nothing = Known.YES if self._delivered is Delivered.EVERYTHING else Known.UNKNOWN
        return Proxy(told.process, self._delivered, denial, filters, resumes_nothing)
