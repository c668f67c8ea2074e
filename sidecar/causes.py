"""The sticky causes of this instance: their names at the authority, their latch, and the releases that heal them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric import ec

from attestation import release
from attestation.errors import InvalidConfiguration
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from sidecar.latch import Latch, Latched
from sidecar.states import Closings, Now, Phase, State, Sticky
from wire.messages import Cause

_ORDERED = "quarantined-"
"""Begins the kind of a cause that the authority found."""


@dataclass(frozen=True, slots=True)
class Named:
    """id: as the authority computes it too. at_ms: Unix milliseconds of the fact."""

    id: str
    at_ms: int


class Causes:
    """Knows each cause by generation. failed: told when the latch cannot be written; the closing goes on."""

    def __init__(self, latch: Latch, failed: Callable[[str], None]) -> None:
        self._latch = latch
        self._failed = failed
        self._instance: InstanceId | None = None
        self._named: dict[int, Named] = {}
        self._ordered: dict[Violation, str] = {}
        self._unsynced = False

    def recalled(self, instance: InstanceId, state: State) -> State:
        """The state with what earlier runs latched for this instance. Raises InvalidConfiguration."""
        self._instance = instance
        latched = self._latch.open(instance)
        state = replace(state, closings=self._latch.counted(instance))
        if not latched:
            return state
        for entry in latched:
            self._named[entry.cause.generation] = Named(entry.cause_id, entry.at_ms)
        sticky = tuple(entry.cause for entry in latched)
        return replace(
            state,
            phase=Phase.QUARANTINED,
            generation=max(cause.generation for cause in sticky),
            sticky=sticky,
            causes=tuple(cause.violation for cause in sticky),
            contradicted_at=max(cause.violation.at for cause in sticky),
        )

    def untold(self, state: State, told: Collection[str]) -> Iterator[tuple[Sticky, int]]:
        """The latched causes, with their times, whose report may have died with an earlier run.

        told: causes that the authority names. Telling one again is safe: it is known there by the same name. What the
        authority itself ordered is not ours to tell.
        """
        for cause in state.sticky:
            named, ordered = self._named.get(cause.generation), cause.violation.kind.startswith(_ORDERED)
            if named is not None and named.at_ms and named.id not in told and not ordered:
                yield cause, named.at_ms

    def latch(self, cause: Sticky, now: Now) -> None:
        """Appends it to the latch file before the closing. A full disk does not keep anything open."""
        named = self.named(cause.generation, cause.violation, now)
        try:
            self._latch.write(Latched(self._known_instance, named.id, cause, named.at_ms))
            self._unsynced = True
        except (OSError, InvalidConfiguration) as error:
            self._failed(f"the latch was not written: {error}")

    def sync(self) -> None:
        """After the closing."""
        if self._unsynced:
            self._unsynced = False
            try:
                self._latch.sync()
            except OSError as error:
                self._failed(f"the latch was not synced: {error}")

    def count(self, closings: Closings) -> None:
        """Kept for the next run: a restart makes nobody forget."""
        try:
            self._latch.count(self._known_instance, closings)
        except (OSError, InvalidConfiguration) as error:
            self._failed(f"a closing was not counted: {error}")

    def named(self, generation: int, violation: Violation, now: Now) -> Named:
        """The name of the cause that began this generation; the same each time."""
        found = self._named.get(generation)
        if found is None:
            at_ms = int((now.wall - (now.boot - violation.at)) * 1000)
            identity = self._ordered.pop(violation, "") or release.cause_id(
                self._known_instance,
                generation=generation,
                kind=violation.violation_class,
                text=violation.text,
                at_ms=at_ms,
            )
            found = self._named[generation] = Named(identity, at_ms)
        return found

    def refusal(self, generation: int, cause: Violation | None, now: Now) -> str:
        """What Envoy tells those it refuses for this cause: its kind, and the name to ask the authority about.

        No path and no content: whoever is refused has shown no certificate. Empty without a cause. Before the workload
        is pinned a cause has no name yet; that keeps nothing from closing.
        """
        if cause is None or self._instance is None:
            return cause.kind if cause is not None else ""
        return f"{cause.kind}:{self.named(generation, cause, now).id}"

    def known(self, identity: str) -> bool:
        """Did we name, or were we told of, this cause before?"""
        return any(named.id == identity for named in self._named.values())

    def ordered(self, cause: Cause, now: Now) -> Violation:
        """A cause that the authority found, as one of ours that keeps the authority's name."""
        violation = Violation(
            f"{_ORDERED}{cause.kind}",
            ViolationClass.TAMPER,
            Layer.ATTESTER,
            "instance",
            cause.text,
            now.boot,
            "quarantine by the authority",
            "Start a new instance, or have an operator release this one.",
        )
        self._ordered[violation] = cause.id
        return violation

    def released(self, token: str, key: ec.EllipticCurvePublicKey, state: State) -> frozenset[int]:
        """The generations that a release heals: all, or none where a cause is not named. Raises MalformedResult."""
        order = release.parse(token, key)
        generations = frozenset(cause.generation for cause in state.sticky)
        names = [self._named[generation].id for generation in generations if generation in self._named]
        complete = len(names) == len(generations) and order.covers(self._known_instance, names)
        return generations if complete else frozenset()

    @property
    def _known_instance(self) -> InstanceId:
        if self._instance is None:
            raise InvalidConfiguration("no instance is pinned yet", where="latch")
        return self._instance
