"""The latest measurement of each layer, and waiting for a newer one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from attestation.channel import Measure
from attestation.claims import LayerClaim
from attestation.digests import Digest
from attestation.errors import Unavailable
from attestation.layers import Layer
from attestation.observation import Observation
from attestation.tally import Tally


@dataclass(frozen=True, slots=True)
class Measured:
    """One consistent set of layers, frozen for a round: what is signed is what is sent when asked for."""

    observations: tuple[Observation, ...]
    bodies: dict[Digest, bytes]

    def claims(self, now: float) -> tuple[LayerClaim, ...]:
        """now: CLOCK_BOOTTIME seconds; ages are rounded up, never down."""
        return tuple(
            LayerClaim(
                each.layer,
                each.digest,
                each.method,
                _age_ms(now, each.began),
                _age_ms(now, each.full_began),
                each.items,
            )
            for each in self.observations
        )

    @property
    def calls(self) -> Tally | None:
        """What is told of calls beside their layer."""
        return next((each.tally for each in self.observations if each.layer is Layer.SYSCALLS), None)

    def body(self, layer: Layer) -> bytes | None:
        """What was measured of a layer; None where that is no part of the round."""
        return next((self.bodies[each.digest] for each in self.observations if each.layer is layer), None)

    @property
    def full_began(self) -> float:
        """When the oldest full measurement among the layers began."""
        return min((each.full_began for each in self.observations), default=float("-inf"))


def _age_ms(now: float, began: float) -> int:
    return max(0, int((now - began) * 1000) + 1)


class Observations:
    """order: hands a Measure to the measurer, at once."""

    def __init__(self, order: Callable[[Measure], None]) -> None:
        self._order = order
        self._latest: dict[Layer, Observation] = {}
        self._bodies: dict[Layer, tuple[Digest, bytes]] = {}
        self._changed: asyncio.Future[None] | None = None
        self._lacking: frozenset[Layer] = frozenset()

    def lack(self, layers: frozenset[Layer]) -> None:
        """Nobody waits for these, and no round has them, until other ones are named: the kernel here refuses them."""
        self._lacking = layers
        self._wake()

    def observed(self, observation: Observation, body: bytes | None) -> bool:
        """Keeps it; True when the layer's content differs from before. A body that is owed and missing is refused."""
        before = self._bodies.get(observation.layer)
        if body is not None:
            self._bodies[observation.layer] = (observation.digest, body)
        elif before is None or before[0] != observation.digest:
            raise Unavailable(f"the body of layer {observation.layer} did not come", where="measurer channel")
        self._latest[observation.layer] = observation
        self._wake()
        return before is None or before[0] != observation.digest

    async def measured(self, layers: tuple[Layer, ...], not_before: float, *, full: bool, timeout: float) -> Measured:
        """Every layer, measured at or after not_before (CLOCK_BOOTTIME). Raises Unavailable when time runs out."""
        self._order(Measure(layers, not_before, full))
        try:
            async with asyncio.timeout(timeout):
                while not all(self._recent(layer, not_before, full) for layer in self._had(layers)):
                    self._changed = asyncio.get_running_loop().create_future()
                    await self._changed
        except TimeoutError as error:
            late = [str(layer) for layer in self._had(layers) if not self._recent(layer, not_before, full)]
            raise Unavailable(
                f"no measurement of {', '.join(late)} within {timeout:g} s",
                where="measurer",
                mend="A large or slow file tree needs a longer interval; `files.include` says what is read.",
            ) from error
        return self.frozen(self._had(layers))

    def began(self) -> dict[Layer, float]:
        """CLOCK_BOOTTIME at which the latest measurement of each layer began."""
        return {layer: each.began for layer, each in self._latest.items()}

    def tally(self) -> Tally | None:
        """Of calls, as of their latest measurement."""
        found = self._latest.get(Layer.SYSCALLS)
        return found.tally if found is not None else None

    def frozen(self, layers: tuple[Layer, ...]) -> Measured:
        """The latest of each layer."""
        bodies = dict(self._bodies[layer] for layer in layers)
        return Measured(tuple(self._latest[layer] for layer in layers), bodies)

    def _had(self, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        return tuple(layer for layer in layers if layer not in self._lacking)

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _recent(self, layer: Layer, not_before: float, full: bool) -> bool:
        found = self._latest.get(layer)
        if found is None:
            return False
        return (found.full_began if full else found.began) >= not_before
