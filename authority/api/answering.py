"""Which part of the authority answers which request, whichever way it came."""

from __future__ import annotations

from collections.abc import Callable

from attestation.errors import Unavailable
from attestation.instance import InstanceId
from authority.instances import Instances
from authority.nonces import Nonces
from authority.orders import Orders
from authority.rounds import Rounds
from authority.rules import Rules
from authority.store.store import Store
from wire.messages import (
    AskDenials,
    AskNonce,
    AskPolicy,
    Attest,
    Done,
    Goodbye,
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
        rules: Callable[[], Rules],
    ) -> None:
        self._store = store
        self._instances = instances
        self._nonces = nonces
        self._rounds = rounds
        self._orders = orders
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
            case AskPolicy():
                return PolicyChanged(rules.epoch, rules.of(enrolled.registration).document)
            case AskDenials() | Reachable():
                raise Unavailable("whom peers are to refuse is not kept here yet", where="authority")
            case Goodbye():
                await self._store.end_run(instance, enrolled.thumbprint, clean=True)
                return Done()
