"""Where instances say that their Envoys listen for peers: what a denied one loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attestation import addresses
from attestation.errors import InvalidInput
from authority.denying import Denying
from authority.instances import Instances
from authority.store.records import Enrolled
from authority.store.store import Store
from wire.messages import MOST_ADDRESSES


class Reaching:
    def __init__(self, store: Store, instances: Instances, denying: Denying) -> None:
        self._store = store
        self._instances = instances
        self._denying = denying

    async def listens(self, enrolled: Enrolled, said: Sequence[str]) -> None:
        """On disk when it returns. Raises InvalidInput for what is no address, for one twice, and for too many."""
        for each in said:
            addresses.parse(each)
        if len(said) > MOST_ADDRESSES or len(set(said)) < len(said):
            raise InvalidInput(
                f"{len(said)} addresses, some of them twice or too many",
                where="reachable",
                mend=f"Each once, {MOST_ADDRESSES} at most.",
            )
        known = await self._store.listens(enrolled.instance, said)
        if known == enrolled.addresses:
            return
        now = replace(await self._instances.get(enrolled.instance), addresses=known)
        self._instances.put(now)
        self._denying.listens(now)
