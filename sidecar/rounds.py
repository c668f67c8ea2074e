"""Rounds, one after the other: when the next one runs, what it asks for, and what a failed one leads to."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol, Self

from attestation.errors import InvalidInput, ProofbeatError, Refused, Unavailable
from attestation.layers import Layer
from policies.model.policy import Demand, PolicySpec
from sidecar import clock
from sidecar.attester import Attester, Outcome
from sidecar.retries import Retries
from sidecar.scheduler import Rounds
from sidecar.states import State
from sidecar.telling import Telling
from wire.problems import Kind

A_MOMENT = 0.1
"""Seconds. The workload can bring about what a moment is for, so that it must not bring about rounds without end."""


class Owner(Protocol):
    """Whom the rounds are run for."""

    @property
    def state(self) -> State: ...

    @property
    def closing(self) -> bool:
        """Is a closing under way, not yet verified?"""
        ...

    @property
    def spec(self) -> PolicySpec:
        """The policy in force."""
        ...

    def appraised(self, outcome: Outcome) -> None:
        """Carries out what a round came to; when this returns the lease, if any, is served, or waits for a closing."""
        ...

    async def fetch_policy(self) -> None:
        """Adopts the authority's newest. Raises Unavailable, Refused, InvalidInput."""
        ...


class RoundLoop:
    """Made before anything is known; runs from enrolment on."""

    def __init__(self, owner: Owner, telling: Telling) -> None:
        self._owner = owner
        self._telling = telling
        self._rounds = Rounds()
        self._retries = Retries()
        self._retry: asyncio.TimerHandle | None = None
        self._moment: asyncio.TimerHandle | None = None
        self._owed: bool | None = None
        self._full_at = 0.0

    def __enter__(self) -> Self:
        self._rounds.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rounds.__exit__(kind, error, trace)

    def every(self, interval: float) -> None:
        """One round each so many seconds."""
        self._rounds.every(interval)

    def want(self, *, full: bool) -> None:
        """A round now; while a closing is under way, right after it: measuring must not compete with cutting."""
        if self._owner.closing:
            self._owed = full or bool(self._owed)
        else:
            self._rounds.want(full=full)

    def soon(self) -> None:
        """A round in a moment: one for all that happens until then, however much that is."""
        if self._moment is None:
            self._moment = asyncio.get_running_loop().call_later(A_MOMENT, self._moment_over)

    def _moment_over(self) -> None:
        self._moment = None
        self.want(full=False)

    def closing_over(self) -> None:
        """What was owed during the closing is due now."""
        if self._owed is not None:
            owed, self._owed = self._owed, None
            self._rounds.want(full=owed)

    async def run(self, attester: Attester) -> None:
        """Until cancelled. Raises what broke the schedule."""
        while True:
            full = await self._rounds.next()
            try:
                outcome = await attester.round(full=full or not self._owner.state.open or self._full_is_due())
            except (Unavailable, InvalidInput) as error:
                self._again(error)
            except Refused as error:
                await self._refused(error)
            else:
                self._succeeded(outcome)

    def _succeeded(self, outcome: Outcome) -> None:
        self._retries.succeeded()
        self._owner.appraised(outcome)
        outcome.record.served = clock.now().boot
        if outcome.record.full:
            self._full_at = outcome.record.began
        self._telling.appraised(outcome)

    async def _refused(self, error: Refused) -> None:
        if error.kind == Kind.POLICY_EPOCH_STALE:
            try:
                await self._owner.fetch_policy()
            except (Unavailable, Refused, InvalidInput) as failed:
                self._again(failed)
            else:
                self._rounds.want(full=True)
        elif error.kind == Kind.INSTANCE_QUARANTINED and self._owner.state.sticky:
            self._telling.round_failed(error)
        else:
            self._again(error)

    def _again(self, error: ProofbeatError) -> None:
        """The lease runs on meanwhile: nobody notices an authority that is away for less than what is left of it."""
        pause = min(self._retries.pause(), self._owner.spec.interval)
        self._telling.round_failed(error, pause)
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(pause, self._rounds.want)

    def _full_is_due(self) -> bool:
        spec = self._owner.spec
        ages = [spec.layer(layer).full_max_age for layer in Layer if spec.demand(layer) is not Demand.OFF]
        return bool(ages) and clock.now().boot - self._full_at > min(ages) / 2
