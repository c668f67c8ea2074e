"""Which part of the authority answers which request, whichever way it came."""

from __future__ import annotations

from collections.abc import Callable

from attestation.instance import InstanceId
from authority.alerts import Alerts, noted
from authority.denying import Denying
from authority.holding import Holding
from authority.instances import Instances
from authority.nonces import Nonces
from authority.orders import Orders
from authority.reaching import Reaching
from authority.rounds import Rounds
from authority.rules import Rules
from authority.store.store import Store
from wire.messages import (
    AskDenials,
    AskHold,
    AskNonce,
    AskPolicy,
    Attest,
    Done,
    Goodbye,
    Noted,
    Placed,
    PolicyChanged,
    Reachable,
    Reply,
    Report,
    Request,
)


class Answering:
    def __init__(
        self,
        store: Store,
        instances: Instances,
        nonces: Nonces,
        rounds: Rounds,
        orders: Orders,
        holding: Holding,
        denying: Denying,
        reaching: Reaching,
        alerts: Alerts,
        rules: Callable[[], Rules],
    ) -> None:
        self._store = store
        self._instances = instances
        self._nonces = nonces
        self._rounds = rounds
        self._orders = orders
        self._holding = holding
        self._denying = denying
        self._reaching = reaching
        self._alerts = alerts
        self._rules = rules

    async def answer(self, instance: InstanceId, request: Request) -> Reply:
        """Raises ProofbeatError where the answer is no."""
        enrolled, rules = await self._instances.get(instance), self._rules()
        match request:
            case Attest():
                return await self._rounds.attest(enrolled, request, rules)
            case AskNonce():
                return self._nonces.issue(enrolled, rules.of(enrolled.registration))
            case Report():
                return await self._orders.report(enrolled, request, rules)
            case AskHold():
                return await self._holding.asked(enrolled, rules.of(enrolled.registration), request)
            case AskPolicy():
                return PolicyChanged(rules.epoch, rules.of(enrolled.registration).document)
            case AskDenials():
                return self._denying.current
            case Reachable(addresses):
                await self._reaching.listens(enrolled, addresses)
                return Done()
            case Placed(where):
                self._alerts.placed(instance, where)
                return Done()
            case Noted():
                await self._store.note(instance, noted(request))
                return Done()
            case Goodbye():
                await self._store.end_run(instance, enrolled.thumbprint, clean=True)
                return Done()
