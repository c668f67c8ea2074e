"""Where policy lets one drift close only a share of a registration's instances: who closes, and who is held back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from attestation.drift import MOST_DRIFTS, Drift
from attestation.errors import Unavailable
from attestation.instance import InstanceId
from attestation.violation import ViolationClass
from authority.holds import Summed, summed
from authority.looking import keep_looking
from authority.rules import Rules, Ruling
from authority.store.holds import Ledger, Within
from authority.store.records import Enrolled, Held, InstanceState, State
from authority.store.store import Store
from policies.appraise.holding import drifts_of, holdable
from policies.appraise.reasons import Verdict
from telemetry.names import Event
from wire.messages import AskHold, Hold, HoldOver, Push, Report

_BREATH = 0.1
"""Seconds after each look, so that questions without end do not make looks without end."""
MOST_ASKED = 120
"""Questions of one instance in a minute; whoever asks more often closes."""
_MINUTE = 60.0


class Holding:
    """rules: in force. push: says something to an instance's session, if there is one. clock: Unix seconds.

    gone_after: seconds of silence after which a quarantined instance is counted no more.

    `start` it before anybody is answered, then `run` it.
    """

    def __init__(
        self,
        store: Store,
        rules: Callable[[], Rules],
        push: Callable[[InstanceId, Push], None],
        clock: Callable[[], float],
        gone_after: float,
        log: Any,
    ) -> None:
        self._store = store
        self._rules = rules
        self._push = push
        self._clock = clock
        self._gone_after_ms = int(gone_after * 1000)
        self._log = log
        self._ledgers: dict[str, tuple[Summed, ...]] = {}
        """Registration -> its drift as it was last looked at."""
        self._stirred: set[str] = set()
        """Of these something was recorded since."""
        self._asked: Counter[InstanceId] = Counter()
        self._minute = 0.0
        self._changed = asyncio.Event()

    @property
    def active(self) -> int:
        """How many instances are held, each once for each drift."""
        return sum(each.held for ledger in self._ledgers.values() for each in ledger)

    async def start(self) -> None:
        """What stood before a restart stands. Raises Unavailable."""
        self._ledgers = dict.fromkeys(await self._store.held_registrations(), ())
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. A store that does not answer is asked again; meanwhile nobody is told to close by us."""

        def late(error: Unavailable) -> None:
            self._log.error(Event.HOLDS_LATE, why=error.sentence)

        await keep_looking(
            self._changed, self.look, timed=lambda: self._ledgers or self._stirred, late=late, breath=_BREATH
        )

    async def asked(self, enrolled: Enrolled, ruling: Ruling, question: AskHold) -> Hold:
        """The answer to a sidecar that would close: it stays open only where this says so."""
        drifts = frozenset(question.drifts)
        fits = 0 < len(question.drifts) <= MOST_DRIFTS and all(holdable(each, tamper=False) for each in drifts)
        if not ruling.policy.spec.holds or not fits or self._too_often(enrolled.instance):
            return Hold(question.number, held=False, closed=0, live=0)
        counted = await self._store.ask_hold(enrolled.instance, drifts, self._within(ruling))
        self._look_soon(ruling)
        return Hold(question.number, counted.held, counted.closed, counted.live)

    async def held(self, enrolled: Enrolled, ruling: Ruling, verdict: Verdict) -> Drift | None:
        """The drift for which an appraisal closes nothing, the first of them; None where the verdict is as it is."""
        if not ruling.policy.spec.holds:
            return None
        drifts = drifts_of(verdict)
        if drifts is None:
            return None
        counted = await self._store.ask_hold(enrolled.instance, drifts, self._within(ruling))
        self._look_soon(ruling)
        return min(drifts) if counted.held else None

    async def reported(self, enrolled: Enrolled, ruling: Ruling, report: Report) -> bool:
        """Whether what a sidecar reports is held; else it counts as closed for it."""
        if not ruling.policy.spec.holds:
            return False
        drift = Drift(report.kind, report.layer, report.subject, report.found)
        fits = holdable(drift, tamper=report.violation_class is ViolationClass.TAMPER)
        held = await self._store.reported_hold(enrolled.instance, drift if fits else None, self._within(ruling))
        self._look_soon(ruling)
        return held

    async def look(self) -> None:
        """Tells those to close for whom there is room by now, and operators what is held. Raises Unavailable."""
        for name in self._ledgers.keys() | self._stirred:
            self._stirred.discard(name)
            try:
                await self._look_at(name, self._rules().registrations.get(name))
            except Unavailable:
                self._stirred.add(name)
                raise

    async def _look_at(self, name: str, ruling: Ruling | None) -> None:
        if ruling is None or not ruling.policy.spec.holds:
            told, why = await self._store.end_holds(name, self._now_ms()), "policy holds nothing back any more"
            self._note(name, ())
        else:
            ledger = await self._store.look_at_holds(self._within(ruling))
            told, why = ledger.told, "there is room for it to close"
            self._note(name, summed(ledger.entries, ledger.live))
        for instance in told:
            self._push(instance, HoldOver(why))

    async def of(self, states: Collection[InstanceState]) -> tuple[InstanceState, ...]:
        """The same; of each that is held also for what, and how many are closed for that. Raises Unavailable."""
        rulings = self._rules().registrations
        names = {each.registration for each in states if each.state is State.HELD} & rulings.keys()
        found: dict[str, Held] = {}
        for name in names:
            found |= _held(await self._store.holds(self._within(rulings[name])))
        return tuple(replace(each, held=found.get(each.instance.value)) for each in states)

    def _note(self, name: str, after: tuple[Summed, ...]) -> None:
        """Says what begins to be held, and what is no more."""
        before = {each.drift: each for each in self._ledgers.get(name, ()) if each.held}
        now = {each.drift: each for each in after if each.held}
        for drift in now.keys() - before.keys():
            each = now[drift]
            counts = {"held": each.held, "closed": each.closed, "live": each.live}
            self._log.warning(Event.HELD, registration=name, drift=each.name, id=drift, **counts)
        for drift in before.keys() - now.keys():
            self._log.warning(Event.HOLD_OVER, registration=name, drift=before[drift].name, id=drift)
        self._ledgers.pop(name, None)
        if after:
            self._ledgers[name] = after

    def _too_often(self, instance: InstanceId) -> bool:
        minute = self._clock() // _MINUTE
        if minute != self._minute:
            self._minute, self._asked = minute, Counter()
        self._asked[instance] += 1
        return self._asked[instance] > MOST_ASKED

    def _look_soon(self, ruling: Ruling) -> None:
        self._stirred.add(ruling.name)
        self._changed.set()

    def _within(self, ruling: Ruling) -> Within:
        """Whoever was heard of within a lease's time is there."""
        now_ms = self._now_ms()
        share = ruling.policy.spec.max_unavailable
        return Within(ruling.name, share, now_ms, now_ms - ruling.freshness_ms, now_ms - self._gone_after_ms)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _held(ledger: Ledger) -> Mapping[str, Held]:
    """Instance -> the first drift for which it is held."""
    known = {each.drift: Held(each.name, each.closed, each.live) for each in summed(ledger.entries, ledger.live)}
    ordered = sorted(ledger.entries, key=lambda each: (each.name, each.drift), reverse=True)
    return {each.instance: known[each.drift] for each in ordered if not each.closed}
