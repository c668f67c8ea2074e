"""What operators ask: who is here, and why one is or was open or closed."""

from __future__ import annotations

from collections.abc import Callable

from attestation.errors import InvalidInput, Refused
from attestation.instance import InstanceId
from authority.holding import Holding
from authority.roll import called, chosen
from authority.rules import Rules, Ruling
from authority.sessions import Sessions
from authority.store.records import InstanceState
from authority.store.store import Store
from authority.why import Why, told
from wire.problems import Kind


class Asking:
    """clock: Unix seconds. retire_after: seconds of silence after which an instance counts as gone."""

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        rules: Callable[[], Rules],
        holding: Holding,
        clock: Callable[[], float],
        retire_after: float,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._rules = rules
        self._holding = holding
        self._clock = clock
        self._retire_after_ms = int(retire_after * 1000)

    async def instances(self) -> tuple[InstanceState, ...]:
        """Every instance that ever enrolled, the latest first."""
        return await self._holding.of(self._called(await self._store.instances(self._rules().identities)))

    async def instance(self, instance: InstanceId) -> InstanceState:
        """One instance. Raises Refused (instance-unknown)."""
        found = await self._store.instance(instance, self._rules().identities)
        if found is None:
            raise Refused("this instance has not enrolled", kind=Kind.INSTANCE_UNKNOWN, where=str(instance))
        return (await self._called_among((found,)))[0]

    async def why(self, asked: str, at: float | None = None) -> Why:
        """asked: an instance, the beginning of its name, its registration or SPIFFE ID, or a cause that Envoy told.

        at: Unix seconds; None for now, and for a cause the moment it was recorded. Raises Refused (instance-unknown),
        and InvalidInput where several instances are meant or `at` lies ahead.
        """
        now = self._clock()
        if at is not None and at > now:
            raise InvalidInput("a time that is yet to come", where="why", mend="Ask for now by leaving it out.")
        causes = await self._store.of_cause(asked) if asked.startswith("c-") else ()
        found = await self._meant(causes[0][0] if causes else asked)
        instance = chosen(asked, await self._called_among(found))
        recorded_ms = causes[0][1] if causes else int(now * 1000)
        at_ms = recorded_ms if at is None else int(at * 1000)
        return told(instance, await self._store.history(instance.instance), at_ms, int(now * 1000))

    async def ruling(self, asked: str) -> Ruling:
        """What rules a registration, by its name or SPIFFE ID, or an instance, by its id or the beginning of it.

        Raises Refused (instance-unknown, registration-unknown, registration-unruled), and InvalidInput where several
        are meant.
        """
        rules = self._rules()
        if asked.startswith("i-"):
            found = await self._called_among(await self._store.beginning(asked, rules.identities))
            return rules.of(chosen(asked, found).registration)
        named = [name for name, identity in rules.identities.items() if identity == asked]
        if len(named) > 1:
            mend = f"Name one of them: {', '.join(sorted(named))}."
            raise InvalidInput(f"{asked!r} is the identity of {len(named)} registrations", where="policy", mend=mend)
        return rules.of(named[0] if named else asked)

    async def _meant(self, asked: str) -> tuple[InstanceState, ...]:
        identities = self._rules().identities
        named = [name for name, identity in identities.items() if asked in (name, identity)]
        found = await self._store.registered(named, identities) if named else ()
        return found or await self._store.beginning(asked, identities)

    async def _called_among(self, found: tuple[InstanceState, ...]) -> tuple[InstanceState, ...]:
        """Whether one is gone is seen beside all of its registration."""
        wanted = {each.instance for each in found}
        peers = await self._store.registered({each.registration for each in found}, self._rules().identities)
        return await self._holding.of([each for each in self._called(peers) if each.instance in wanted])

    def _called(self, states: tuple[InstanceState, ...]) -> tuple[InstanceState, ...]:
        return called(states, self._sessions.instances(), int(self._clock() * 1000), self._retire_after_ms)
