"""Break-glass orders at the authority: applied once, in force for a while, ended by whatever ends them first.

An order ends when its time is over, when an operator says so, when the clock went back, and when it holds for nobody
any more. Where it no longer holds for one registration of several (somebody left its policy, a quorum was raised,
nothing rules it any more) it ends for that one alone: whoever writes one namespace's policies says nothing of the
others'. What has ended, for all or for one, never comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from attestation import breakglass
from attestation.breakglass import Order, Signed
from attestation.errors import Refused, Unavailable
from attestation.instance import InstanceId
from attestation.violation import ViolationClass
from attestation.wording import shown
from authority.looking import keep_looking
from authority.rules import Rules, Ruling
from authority.store.records import Broken, Enrolled, Withdrawn
from authority.store.store import Store
from policies.appraise.breakglass import Held, held_by_each, subject_of, waives, waives_kind
from policies.appraise.reasons import Verdict
from telemetry.names import Event
from wire.messages import MOST_ORDERS, BreakGlass, Report
from wire.problems import Kind

_NOTE_MS = 5_000
"""How often it is put on disk that an order stands."""
_SKEW = 5.0
"""Seconds by which a clock may go back, as clocks do, without ending anything."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An order that was applied and has not ended."""

    kept: Broken
    signed: Signed

    @property
    def order(self) -> Order:
        return self.signed.order


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of applying an order. held: registration -> whether it holds for it, of all in its scope."""

    order: Order
    held: Mapping[str, Held]


class BreakGlasses:
    """rules: in force. tell: says to those of these registrations who have a session what is in force for them, and
    asks each for a round at once. clock: Unix seconds.

    `start` it before anybody is answered, then `run` it.
    """

    def __init__(
        self,
        store: Store,
        trust_domain: str,
        rules: Callable[[], Rules],
        tell: Callable[[Collection[str]], Awaitable[None]],
        clock: Callable[[], float],
        log: Any,
    ) -> None:
        self._store = store
        self._trust_domain = trust_domain
        self._rules = rules
        self._tell = tell
        self._clock = clock
        self._log = log
        self._standing: dict[str, Standing] = {}
        self._begun: frozenset[str] = frozenset()
        self._unsaved: dict[str, str] = {}
        self._unsaved_lost: list[tuple[str, Mapping[str, str]]] = []
        self._holding: tuple[int, dict[str, Mapping[str, Held]]] = (0, {})
        self._ever = False
        self._latest = 0.0
        self._noted_ms = 0
        self._changed = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    @property
    def active(self) -> int:
        """How many are in force."""
        return sum(each.order.in_force(self._now()) for each in self._standing.values())

    async def start(self) -> None:
        """What stood before a restart stands, unless it has ended meanwhile. Raises Unavailable."""
        known = await self._store.broken()
        kept = [each for each in known if not each.ended_ms]
        self._ever = bool(known)
        self._latest = max((each.seen_ms / 1000 for each in kept), default=0.0)
        self._standing = {each.id: Standing(each, breakglass.from_text(each.document)) for each in kept}
        await self.look()

    async def run(self) -> None:
        """Until cancelled. A store that does not answer is asked again; meanwhile nothing that is over is in force."""

        def late(error: Unavailable) -> None:
            self._log.error(Event.BREAK_GLASS_LATE, why=error.sentence)

        await keep_looking(self._changed, self.look, timed=lambda: self._standing or self._unsaved, late=late)

    async def apply(self, text: str) -> Applied:
        """On disk, told and in force when it returns; applying it twice changes nothing.

        Raises MalformedResult for what is no order, and Refused (break-glass-void) for one that holds for nobody, is
        over, was made in the future, or has ended here before.
        """
        signed, now = breakglass.from_text(text), self._now()
        order = signed.order
        async with self._one_at_a_time:
            found = self._held(signed)
            self._refuse(order, found, now)
            now_ms = int(now * 1000)
            holds = tuple(sorted(name for name, held in found.items() if held))
            signed_by = tuple(sorted({name for held in found.values() for name in held.signed_by}))
            kept = await self._store.apply_break_glass(
                Broken(order.id, breakglass.to_text(signed), holds, signed_by, applied_ms=now_ms, seen_ms=now_ms)
            )
            if kept.ended_ms or order.id in self._unsaved:
                why = kept.ended or self._unsaved[order.id]
                raise _void(f"it was applied before, and has ended: {why}", order)
            if order.id in self._standing:
                return Applied(order, _as_kept(self._standing[order.id].kept, found))
            self._standing[order.id] = Standing(kept, breakglass.from_text(kept.document))
            self._ever = True
        self._log.warning(
            Event.BREAK_GLASS,
            order=order.id,
            scope=str(order.scope),
            registrations=list(holds),
            reason=order.reason,
            signed_by=list(signed_by),
            begins=order.not_before,
            ends=order.not_after,
        )
        self._changed.set()
        await self.look()
        return Applied(order, found)

    async def end(self, identity: str, why: str, registrations: Collection[str] = ()) -> Order:
        """registrations: for these alone; none of them for all.

        Raises Refused (break-glass-void) where none of this id stands, or not for one of these.
        """
        async with self._one_at_a_time:
            known = self._standing.get(identity)
            if known is None:
                mend = "`proofbeat breakglass list` names them."
                raise Refused("no order of this id stands", kind=Kind.BREAK_GLASS_VOID, where=identity, mend=mend)
            standing = known.kept.registrations
            strange = sorted({*registrations} - {*standing})
            if strange:
                mend = f"It stands for {', '.join(standing)}."
                what = f"it does not stand for {', '.join(map(shown, strange))}"
                raise Refused(what, kind=Kind.BREAK_GLASS_VOID, where=identity, mend=mend)
            if registrations and {*registrations} != {*standing}:
                await self._narrow(known, dict.fromkeys(registrations, shown(why)))
            else:
                await self._end(known, shown(why))
            await self._save()
        return known.order

    async def look(self) -> None:
        """Ends what is over or no longer holds, and tells of what begins. Raises Unavailable."""
        async with self._one_at_a_time:
            now = self._clock()
            for each in tuple(self._standing.values()):
                await self._weigh(each, now)
            self._latest = max(self._latest, now) if self._standing else now
            await self._save()
            await self._note(int(now * 1000))
        begun = frozenset(name for name, each in self._standing.items() if each.order.in_force(now))
        later, self._begun = begun - self._begun, begun
        for name in later:
            await self._tell(self._standing[name].kept.registrations)

    def lets_through(self, enrolled: Enrolled, ruling: Ruling, verdict: Verdict) -> Order | None:
        """The order by which this instance gets a lease although nothing affirms it; None where there is none."""
        return self._foremost(enrolled, ruling) if waives(verdict, ruling.policy) else None

    def waives_report(self, enrolled: Enrolled, ruling: Ruling, report: Report) -> bool:
        """Whether a sidecar that knows what is in force for it leaves open for what it reports."""
        tamper = report.violation_class is ViolationClass.TAMPER
        return waives_kind(report.kind, tamper=tamper) and self._foremost(enrolled, ruling) is not None

    def in_force(self, identity: str, enrolled: Enrolled, ruling: Ruling) -> bool:
        """Is the order of this id so, for this instance?"""
        return any(each.kept.id == identity for each in self._of(enrolled.instance, ruling))

    def told(self, enrolled: Enrolled, ruling: Ruling) -> BreakGlass:
        """What is in force for this instance."""
        found = (breakglass.to_text(each.signed) for each in self._of(enrolled.instance, ruling))
        return BreakGlass(tuple(found))

    def greeting(self, enrolled: Enrolled) -> BreakGlass | None:
        """For a session that opens: nothing where glass was never broken."""
        if not self._ever:
            return None
        ruling = self._rules().registrations.get(enrolled.registration)
        return self.told(enrolled, ruling) if ruling is not None else BreakGlass(())

    async def every(self) -> tuple[tuple[Broken, Order], ...]:
        """Every order that was ever applied, those that stand first. Raises Unavailable."""
        return tuple((each, breakglass.from_text(each.document).order) for each in await self._store.broken())

    def _now(self) -> float:
        """The clock, or the latest that it has shown where it went back: what is over stays so."""
        return max(self._clock(), self._latest)

    def _held(self, signed: Signed) -> Mapping[str, Held]:
        rules = self._rules()
        governing = {name: each.governing for name, each in rules.registrations.items()}
        return held_by_each(signed, governing, self._trust_domain, rules.epoch)

    def _holds(self, standing: Standing) -> Mapping[str, Held]:
        """By the policies of now; looked at once for each epoch."""
        epoch = self._rules().epoch
        if self._holding[0] != epoch:
            self._holding = (epoch, {})
        known = self._holding[1]
        if standing.kept.id not in known:
            known[standing.kept.id] = self._held(standing.signed)
        return known[standing.kept.id]

    def _refuse(self, order: Order, found: Mapping[str, Held], now: float) -> None:
        if order.issued_at > now + _SKEW:
            raise _void(f"it was made {order.issued_at - now:.0f} s from now: one of two clocks is wrong", order)
        if now >= order.not_after:
            raise _void(f"it was over {now - order.not_after:.0f} s ago", order)
        if not any(found.values()):
            faults = dict.fromkeys(fault for held in found.values() for fault in held.faults)
            raise _void("; ".join(faults) or f"nobody here is in its scope, {order.scope}", order)
        if order.id not in self._standing and len(self._standing) >= MOST_ORDERS:
            raise _void(f"{MOST_ORDERS} orders stand already", order)

    async def _weigh(self, standing: Standing, now: float) -> None:
        """Ends it, or narrows it to whom it still holds for, where it has to be."""
        why, lost = self._over(standing, now), self._lost(standing)
        if not why and len(lost) == len(standing.kept.registrations):
            why = next((f"it does not hold for {name} any more: {each}" for name, each in lost.items()), "it is empty")
        if why:
            await self._end(standing, why)
        elif lost:
            await self._narrow(standing, lost)

    def _over(self, standing: Standing, now: float) -> str:
        """Why it ends now for all; empty while it does not."""
        if now < self._latest - _SKEW:
            return f"the clock went back by {self._latest - now:.0f} s"
        if now >= standing.order.not_after:
            return "its time is over"
        return ""

    def _lost(self, standing: Standing) -> dict[str, str]:
        """Those for which it does not hold any more, each with why."""
        known, found = self._rules().registrations, self._holds(standing)
        return {
            name: "; ".join(found[name].faults) if name in found else _OUT if name in known else _UNRULED
            for name in standing.kept.registrations
            if not found.get(name)
        }

    async def _end(self, standing: Standing, why: str) -> None:
        """At once in memory and for those who hear of it; the disk may be slow, or full."""
        kept = self._standing.pop(standing.kept.id).kept
        self._unsaved[kept.id] = why
        self._log.warning(Event.BREAK_GLASS_ENDED, order=kept.id, why=why)
        await self._tell(kept.registrations)

    async def _narrow(self, standing: Standing, lost: Mapping[str, str]) -> None:
        """As `_end`, for those that are lost."""
        kept, now_ms = standing.kept, int(self._now() * 1000)
        left = tuple(name for name in kept.registrations if name not in lost)
        gone = (*kept.withdrawn, *(Withdrawn(name, why, now_ms) for name, why in lost.items()))
        self._standing[kept.id] = replace(standing, kept=replace(kept, registrations=left, withdrawn=gone))
        self._unsaved_lost.append((kept.id, lost))
        for name, why in lost.items():
            self._log.warning(Event.BREAK_GLASS_NARROWED, order=kept.id, registration=name, why=why)
        await self._tell(lost.keys())

    async def _save(self) -> None:
        """What has ended, on disk. Raises Unavailable; then it is tried again with the next look."""
        while self._unsaved_lost:
            await self._store.narrow_break_glass(*self._unsaved_lost[0])
            del self._unsaved_lost[0]
        for identity, why in tuple(self._unsaved.items()):
            await self._store.end_break_glass(identity, why)
            del self._unsaved[identity]

    async def _note(self, now_ms: int) -> None:
        if self._standing and now_ms - self._noted_ms >= _NOTE_MS:
            self._noted_ms = now_ms
            await self._store.saw_break_glass(now_ms)

    def _foremost(self, enrolled: Enrolled, ruling: Ruling) -> Order | None:
        """The one that ends last."""
        found = [each.order for each in self._of(enrolled.instance, ruling)]
        return max(found, key=lambda order: (order.not_after, order.id), default=None)

    def _of(self, instance: InstanceId, ruling: Ruling) -> list[Standing]:
        if not self._standing:
            return []
        # Whatever the mode: a list that leaves one out says that it has ended, for good.
        subject, now = subject_of(ruling.governing.registration, instance), self._now()
        return [
            each
            for each in self._standing.values()
            if ruling.name in each.kept.registrations
            and self._holds(each).get(ruling.name)
            and each.order.scope.covers(subject)
            and each.order.in_force(now)
        ]


_OUT, _UNRULED = "it is not in scope any more", "nothing rules it any more"


def _as_kept(kept: Broken, found: Mapping[str, Held]) -> Mapping[str, Held]:
    """What holds again, or only since, stands for nobody for whom it was not applied, or has ended."""
    ended = {each.registration: f"it has ended for it: {each.why}" for each in kept.withdrawn}
    return {
        name: held if name in kept.registrations else Held((ended.get(name, _LATE), *held.faults), held.signed_by)
        for name, held in found.items()
    }


_LATE = "it did not hold for it when it was applied"


def _void(what: str, order: Order) -> Refused:
    return Refused(
        what, kind=Kind.BREAK_GLASS_VOID, where=order.id, mend="Make and sign another one: `proofbeat breakglass`."
    )
