"""Quarantines: reported by a sidecar or ordered by an operator, and ended by a signed release only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from attestation import jws, release
from attestation.errors import InvalidInput, Refused
from attestation.instance import InstanceId
from attestation.release import ReleaseOrder
from attestation.signals import Signal
from attestation.violation import ViolationClass
from attestation.wording import shown, shown_lines
from authority.breakglass import BreakGlasses
from authority.holding import Holding
from authority.instances import Instances
from authority.rules import Rules
from authority.store.records import Enrolled, Explanation
from authority.store.store import Store
from policies.model.places import place
from policies.model.policy import Mode
from wire.messages import Cause, Push, Quarantined, Released, Report, Standing
from wire.problems import Kind

_MOST_WORD = 64
"""Characters of a kind or a layer: they are words."""


class Orders:
    """push: sends to an instance's session, where there is one. changed: told of each quarantine and release that is
    on disk. clock: Unix seconds.
    """

    def __init__(
        self,
        store: Store,
        instances: Instances,
        signer: jws.Signer,
        clock: Callable[[], float],
        push: Callable[[InstanceId, Push], None],
        changed: Callable[[], None],
        glasses: BreakGlasses,
        holding: Holding,
    ) -> None:
        self._store = store
        self._instances = instances
        self._signer = signer
        self._clock = clock
        self._push = push
        self._changed = changed
        self._glasses = glasses
        self._holding = holding

    async def report(self, enrolled: Enrolled, report: Report, rules: Rules) -> Standing:
        """What a sidecar closed for. What no measurement heals quarantines; when this returns it is on disk."""
        kind, text = report.violation_class.value, _worded(report.cause)
        if report.generation < 0 or report.at_ms < 0:
            raise InvalidInput("a generation or a time below zero", where="report")
        name = release.cause_id(
            enrolled.instance, generation=report.generation, kind=kind, text=text, at_ms=report.at_ms
        )
        cause = Cause(name, kind, text, report.at_ms, report.generation)
        ruling = rules.registrations.get(enrolled.registration)
        if ruling is None:
            # Nothing says how it is to be taken: what would bind without a policy's word binds, and is not lost.
            tamper = report.violation_class is ViolationClass.TAMPER
            return await self._record(
                enrolled.instance, cause, binding=tamper, explanation=_explained(cause, report, {})
            )
        enforced = ruling.policy.spec.mode is Mode.ENFORCE
        waived = self._glasses.waives_report(enrolled, ruling, report)
        held = not waived and await self._holding.reported(enrolled, ruling, report)
        lasting = ruling.binds(report.violation_class) or (enforced and report.kind == Signal.FLAPPING)
        return await self._record(
            enrolled.instance,
            cause,
            binding=lasting and not waived and not held,
            closes=enforced and not waived and not held,
            held=held,
            explanation=_explained(cause, report, ruling.governing.origins),
        )

    async def quarantine(self, instance: InstanceId, text: str) -> Standing:
        """An operator's order. Raises Refused (instance-unknown)."""
        enrolled = await self._instances.get(instance)
        text, now_ms = _worded(text), self._now_ms()
        name = release.cause_id(instance, generation=enrolled.generation, kind="order", text=text, at_ms=now_ms)
        cause = Cause(name, "order", text, now_ms, enrolled.generation)
        standing = await self._record(instance, cause, binding=True)
        self._push(instance, Quarantined(cause))
        return standing

    async def release(self, instance: InstanceId, causes: Collection[str] | None = None) -> str:
        """The signed order. causes: those it names; None for all that stand now.

        Raises Refused (release-void) when a cause stands that it does not name, or none stands at all.
        """
        await self._instances.get(instance)
        standing = await self._store.standing(instance)
        if not standing.quarantined:
            raise Refused("the instance is not quarantined", kind=Kind.RELEASE_VOID, where=str(instance))
        named = tuple(cause.id for cause in standing.causes) if causes is None else tuple(causes)
        order = release.sign(ReleaseOrder(instance, named, int(self._clock())), self._signer)
        later = await self._store.release(instance, named, order)
        if later:
            raise Refused(
                f"the order does not name {', '.join(cause.id for cause in later)}: {later[0].text}",
                kind=Kind.RELEASE_VOID,
                where=str(instance),
                mend="Look at every cause (`proofbeat why`), then name them all.",
            )
        self._instances.forget(instance)
        self._push(instance, Released(order))
        self._changed()
        return order

    async def _record(
        self,
        instance: InstanceId,
        cause: Cause,
        *,
        binding: bool,
        closes: bool = True,
        held: bool = False,
        explanation: Explanation | None = None,
    ) -> Standing:
        standing = await self._store.record_cause(
            instance, cause, binding=binding, now_ms=self._now_ms(), closes=closes, held=held, explanation=explanation
        )
        known = await self._instances.get(instance)
        generation = max(known.generation, cause.generation)
        self._instances.put(replace(known, standing=standing, generation=generation))
        if binding:
            self._changed()
        return standing

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _worded(text: str) -> str:
    if not text.strip():
        raise InvalidInput("an empty cause", where="quarantine", mend="Say why.")
    return shown(text)


def _explained(cause: Cause, report: Report, origins: Mapping[str, str]) -> Explanation:
    """A sidecar's words, made harmless once more: it is not trusted to have done so."""
    process = report.process
    return Explanation(
        id=cause.id,
        kind=shown(report.kind or cause.kind, _MOST_WORD),
        violation_class=cause.kind,
        text=cause.text,
        at_ms=cause.at_ms,
        layer=shown(report.layer, _MOST_WORD),
        subject=shown(report.subject),
        process=process and replace(process, executable=shown(process.executable)),
        rule=shown(report.rule),
        place=place(report.rule, origins),
        mend=shown(report.mend),
        allow=shown_lines(report.allow),
    )
