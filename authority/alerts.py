"""Alerts of somebody else's detectors that come to the authority: whom each is about, and what that one is told.

The authority closes nothing for an alert. It tells the instances that it may be about, by where they say that they run;
each looks whether it is about itself, as it does with one that came to its own socket, and what follows is reported
as it always is. Nothing is looked for in names: not the SPIFFE ID, which many instances share, nor the registration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from attestation.detectors.alerts import (
    LEAST_CONTAINER,
    MOST_NAME,
    MOST_RULE,
    MOST_TEXT,
    About,
    Alert,
    Concern,
    Whereabouts,
    concern,
)
from attestation.errors import InvalidInput, Refused
from attestation.instance import InstanceId
from attestation.wording import shown
from wire.messages import Noted
from wire.problems import Kind

MOST_RECENT = 256
"""Alerts that are told to whoever says after they came that it runs there."""
RATE, BURST = 100.0, 500.0
"""Alerts a second that are looked at; and how many at once."""


class Alerts:
    """tell: says one in an instance's session. present: the instances that have one. clock: Unix seconds.

    oldest: seconds after which an alert is about the past, and nobody is told.
    """

    def __init__(
        self,
        tell: Callable[[InstanceId, Alert], None],
        present: Callable[[], Collection[InstanceId]],
        clock: Callable[[], float],
        oldest: float,
    ) -> None:
        self._tell, self._present, self._clock, self._oldest = tell, present, clock, oldest
        self._where: dict[InstanceId, Whereabouts] = {}
        self._by: dict[str, set[InstanceId]] = {}
        self._recent: deque[Alert] = deque(maxlen=MOST_RECENT)
        self._left, self._looked = BURST, clock()

    def placed(self, instance: InstanceId, where: Whereabouts) -> None:
        """It says that it runs there. Raises InvalidInput for what nobody can be called."""
        if any(len(each) > MOST_NAME for each in (where.container, where.pod_uid, where.namespace, where.pod)) or (
            len(where.node) > MOST_NAME
        ):
            raise InvalidInput("a name that is too long", where="placed")
        self._forget(instance)
        self._forget_the_gone()
        self._where[instance] = where
        for key in _keys_of(where):
            self._by.setdefault(key, set()).add(instance)
        for alert in self._recent:
            if not self.too_old(alert) and _concerns(alert, where):
                self._tell(instance, alert)

    def take(self, alert: Alert) -> tuple[InstanceId, ...]:
        """Tells those whom it may be about; which they are. Raises Refused (too-many)."""
        self._pay()
        self._recent.append(alert)
        near = {instance for key in _keys_of_about(alert.about) for instance in self._by.get(key, ())}
        here = set(self._present())
        told = sorted((each for each in near if each in here and _concerns(alert, self._where[each])), key=str)
        for instance in told:
            self._tell(instance, alert)
        return tuple(told)

    def too_old(self, alert: Alert) -> bool:
        """Or of the future: who plays back what once was has a clock that says so."""
        return abs(self._clock() - alert.at_ms / 1000) > self._oldest

    def _pay(self) -> None:
        now = self._clock()
        self._left = min(BURST, self._left + max(0.0, now - self._looked) * RATE)
        self._looked = now
        if self._left < 1.0:
            raise Refused(f"more than {RATE:g} alerts a second", kind=Kind.TOO_MANY, where="alerts")
        self._left -= 1.0

    def _forget_the_gone(self) -> None:
        here = self._present()
        if len(self._where) > 2 * len(here) + MOST_RECENT:
            for instance in self._where.keys() - set(here):
                self._forget(instance)

    def _forget(self, instance: InstanceId) -> None:
        before = self._where.pop(instance, None)
        for key in _keys_of(before) if before is not None else ():
            self._by[key].discard(instance)
            if not self._by[key]:
                del self._by[key]


def noted(note: Noted) -> str:
    """For the instance's history: a sidecar's words, made harmless once more."""
    alert = note.alert
    graveness = f" ({alert.priority})" if alert.priority is not None else ""
    more = f"; {note.untold} more before it" if note.untold > 0 else ""
    return f"{alert.detector}: {shown(alert.rule, MOST_RULE)}{graveness}: {shown(alert.text, MOST_TEXT)}{more}"


def _concerns(alert: Alert, where: Whereabouts) -> bool:
    return concern(alert.about, where, here=False) in (Concern.OURS, Concern.BY_PID)


def _keys_of(where: Whereabouts) -> Iterator[str]:
    yield from _named(where.container, where.pod_uid, where.namespace, where.pod)
    if where.node and where.pids:
        yield f"node {where.node}"


def _keys_of_about(about: About) -> Iterator[str]:
    yield from _named(about.container, about.pod_uid, about.namespace, about.pod)
    if about.node and about.pid:
        yield f"node {about.node}"


def _named(container: str, pod_uid: str, namespace: str, pod: str) -> Iterator[str]:
    if len(container) >= LEAST_CONTAINER:
        yield f"container {container[:LEAST_CONTAINER]}"
    if pod_uid:
        yield f"uid {pod_uid}"
    if namespace and pod:
        yield f"pod {namespace}/{pod}"
