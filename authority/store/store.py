"""The authority's memory: one method a transaction, each durable when it returns."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, delete, insert, select

from attestation.digests import Digest
from attestation.drift import Drift
from attestation.instance import InstanceId
from authority.store import breakglass, causes, denied, enrolments, history, holds, rounds, states
from authority.store.enrolments import Application
from authority.store.holds import Counted, Ledger, Within
from authority.store.records import (
    Broken,
    Candidate,
    Decision,
    Enrolled,
    Explanation,
    Happened,
    InstanceState,
    Listed,
    Moment,
    Suspects,
)
from authority.store.schema import epochs, holders
from authority.store.writer import Writer
from wire.messages import Cause, Standing

_MOST_CAUSES = 200


class Store:
    """Every method may raise Unavailable, and then nothing has changed. clock: Unix seconds, for the history."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._writer = Writer(path)
        self._clock = clock

    def open(self) -> None:
        self._writer.open()

    def close(self) -> None:
        self._writer.close()

    @property
    def commits(self) -> int:
        """Commits so far; many transactions share one."""
        return self._writer.commits

    async def add_token(self, token: Digest, registration: str, *, expires_ms: int, now_ms: int) -> None:
        await self._writer.run(
            lambda db: enrolments.add_token(db, token, registration, expires_ms=expires_ms, now_ms=now_ms)
        )

    async def enrol(
        self, application: Application, registrations: Mapping[str, Collection[str]], now_ms: int
    ) -> Enrolled:
        """Raises Refused where token or ticket do not earn it."""
        return await self._writer.run(lambda db: enrolments.enrol(db, application, registrations, now_ms))

    async def load(self, instance: InstanceId) -> Enrolled | None:
        return await self._writer.run(lambda db: enrolments.load(db, instance))

    async def end_run(self, instance: InstanceId, thumbprint: Digest, *, clean: bool) -> None:
        now_ms = self._now_ms()
        await self._writer.run(lambda db: enrolments.end_run(db, instance, thumbprint, clean=clean, now_ms=now_ms))

    async def accept_round(self, candidate: Candidate, now_ms: int) -> Decision:
        return await self._writer.run(lambda db: rounds.accept(db, candidate, now_ms))

    async def issued(self, instance: InstanceId, serial: int) -> bool:
        """Was a certificate with this serial number given to it (authority/store/rounds.py)?"""
        return await self._writer.run(lambda db: rounds.issued(db, instance, serial))

    async def record_cause(
        self,
        instance: InstanceId,
        cause: Cause,
        *,
        binding: bool,
        now_ms: int,
        closes: bool = True,
        held: bool = False,
        explanation: Explanation | None = None,
    ) -> Standing:
        """Keeps what was reported or ordered. binding: it quarantines. closes: policy enforces. held: as of causes."""

        def work(db: Connection) -> Standing:
            causes.record(
                db,
                instance,
                cause,
                binding=binding,
                now_ms=now_ms,
                closes=closes,
                held=held,
                explanation=explanation,
            )
            causes.prune(db, instance, keep=_MOST_CAUSES, binding=binding)
            return causes.standing(db, instance)

        return await self._writer.run(work)

    async def note(self, instance: InstanceId, text: str) -> None:
        """What a detector said of it and policy only observes: a line of its history."""
        now_ms = self._now_ms()
        await self._writer.run(lambda db: history.add(db, instance.value, now_ms, Happened.OBSERVED, text))

    async def standing(self, instance: InstanceId) -> Standing:
        return await self._writer.run(lambda db: causes.standing(db, instance))

    async def release(self, instance: InstanceId, named: Collection[str], order: str) -> tuple[Cause, ...]:
        """Releases the instance, or returns the causes that the order does not name and does nothing."""
        now_ms = self._now_ms()
        return await self._writer.run(lambda db: causes.release(db, instance, named, order, now_ms))

    async def instances(self, identities: Mapping[str, str]) -> tuple[InstanceState, ...]:
        return await self._writer.run(lambda db: states.every(db, identities))

    async def instance(self, instance: InstanceId, identities: Mapping[str, str]) -> InstanceState | None:
        return await self._writer.run(lambda db: states.one(db, instance, identities))

    async def beginning(self, prefix: str, identities: Mapping[str, str]) -> tuple[InstanceState, ...]:
        return await self._writer.run(lambda db: states.beginning(db, prefix, identities))

    async def registered(
        self, registrations: Collection[str], identities: Mapping[str, str]
    ) -> tuple[InstanceState, ...]:
        return await self._writer.run(lambda db: states.registered(db, registrations, identities))

    async def of_cause(self, prefix: str) -> tuple[tuple[str, int], ...]:
        """Instance, and when it was recorded, of each cause whose name begins so."""
        return await self._writer.run(lambda db: states.of_cause(db, prefix))

    async def history(self, instance: InstanceId) -> tuple[Moment, ...]:
        """What changed for it, in order."""
        return await self._writer.run(lambda db: history.of(db, instance))

    async def end_leases(self, now_ms: int) -> None:
        """Housekeeping: history learns of each lease that ended without another."""
        while await self._writer.run(lambda db: history.end_leases(db, now_ms)):
            pass

    async def forget_history(self, before_ms: int) -> None:
        """Housekeeping, as `forget_rounds`."""
        while await self._writer.run(lambda db: history.prune(db, before_ms)) == history.MOST_FORGOTTEN:
            pass

    async def holders(self) -> Mapping[str, str]:
        """SPIFFE ID -> the namespace whose it is by the policies of the latest epoch."""
        return await self._writer.run(_holders)

    async def policy_epoch(self, digest: Digest, now_ms: int, held: Mapping[str, str]) -> int:
        """The epoch of this set of policies: a new one whenever the digest is not the latest's. Never goes back.

        held: as `holders` gives it from now on.
        """

        def work(db: Connection) -> int:
            if held != _holders(db):
                db.execute(delete(holders))
                rows = [{"spiffe_id": each, "namespace": namespace} for each, namespace in held.items()]
                if rows:
                    db.execute(insert(holders), rows)
            latest = db.execute(select(epochs).order_by(epochs.c.epoch.desc()).limit(1)).first()
            if latest is not None and latest.digest == digest:
                return int(latest.epoch)
            epoch = int(latest.epoch) + 1 if latest is not None else 1
            db.execute(insert(epochs), {"epoch": epoch, "digest": digest, "at_ms": now_ms})
            return epoch

        return await self._writer.run(work)

    async def forget_rounds(self, before_ms: int, *, over_ms: int) -> None:
        """Housekeeping: in several transactions, between which others get theirs. over_ms: as rounds.prune."""
        while await self._writer.run(lambda db: rounds.prune(db, before_ms, over_ms=over_ms)) == rounds.MOST_FORGOTTEN:
            pass

    async def listens(self, instance: InstanceId, addresses: Collection[str]) -> frozenset[str]:
        """Notes where an instance says that its Envoy listens. Returns all that it counts as saying."""
        return await self._writer.run(lambda db: denied.listens(db, instance, addresses))

    async def suspects(
        self, enforced: Collection[str], unenforced: Collection[str], *, now_ms: int, over_ms: int
    ) -> Suspects:
        """Who is quarantined under a policy that enforces, and may hold a certificate (authority/store/denied.py)."""
        return await self._writer.run(
            lambda db: denied.suspects(db, enforced, unenforced, now_ms=now_ms, over_ms=over_ms)
        )

    async def denials_version(self, digest: Digest, now_ms: int) -> Listed:
        """Of the list with this digest: a new version whenever it is not the last one's. Never goes back."""
        return await self._writer.run(lambda db: denied.version_of(db, digest, now_ms))

    async def apply_break_glass(self, order: Broken) -> Broken:
        """The order as it is kept: where it was applied before, what became of it then."""
        return await self._writer.run(lambda db: breakglass.apply(db, order))

    async def end_break_glass(self, identity: str, why: str) -> None:
        """For good; and whoever it kept open is so no longer."""
        now_ms = self._now_ms()
        await self._writer.run(lambda db: breakglass.end(db, identity, why, now_ms))
        while await self._writer.run(lambda db: breakglass.close(db, identity, why, now_ms)) == breakglass.MOST_CLOSED:
            pass

    async def narrow_break_glass(self, identity: str, lost: Mapping[str, str]) -> None:
        """As `end_break_glass`, for these registrations alone. lost: registration -> why."""
        now_ms = self._now_ms()
        await self._writer.run(lambda db: breakglass.narrow(db, identity, lost, now_ms))
        for name, why in lost.items():
            close = partial(breakglass.close, identity=identity, why=why, now_ms=now_ms, registration=name)
            while await self._writer.run(close) == breakglass.MOST_CLOSED:
                pass

    async def saw_break_glass(self, now_ms: int) -> None:
        """The orders that stand did so at this time."""
        await self._writer.run(lambda db: breakglass.seen(db, now_ms))

    async def broken(self) -> tuple[Broken, ...]:
        """Every break-glass order that was applied, those that stand first."""
        return await self._writer.run(breakglass.every)

    async def ask_hold(self, instance: InstanceId, drifts: Collection[Drift], within: Within) -> Counted:
        """Whether an instance with these drifts stays open (authority/store/holds.py)."""
        return await self._writer.run(lambda db: holds.ask(db, instance, drifts, within))

    async def reported_hold(self, instance: InstanceId, drift: Drift | None, within: Within) -> bool:
        """Whether a drift that an instance reports is held; else it counts as closed for it."""
        return await self._writer.run(lambda db: holds.reported(db, instance, drift, within))

    async def look_at_holds(self, within: Within) -> Ledger:
        """What stands for a registration, and who is told to close by now."""
        return await self._writer.run(lambda db: holds.look(db, within))

    async def holds(self, within: Within) -> Ledger:
        """What stands for a registration, as it is."""
        return await self._writer.run(lambda db: holds.standing(db, within))

    async def end_holds(self, registration: str, now_ms: int) -> tuple[InstanceId, ...]:
        """Its policy holds nothing back any more. Returns whom it held."""
        return await self._writer.run(lambda db: holds.end(db, registration, now_ms))

    async def held_registrations(self) -> tuple[str, ...]:
        """Those with drift that is counted."""
        return await self._writer.run(holds.registrations)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _holders(db: Connection) -> Mapping[str, str]:
    return {row.spiffe_id: row.namespace for row in db.execute(select(holders))}
