"""Envoy, as the sidecar has it: what one was told and said is no other's, and no end leaves anything half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from attestation.channel import Guard, Guarded, Message, Sever
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.proxy import Delivered
from attestation.violation import Violation, ViolationClass
from policies.model.policy import PolicySpec
from sidecar import clock
from sidecar.config import DeliverySettings, WorkloadSettings
from sidecar.denials import Refusals
from sidecar.envoy import Envoy
from sidecar.metering import Metering
from sidecar.proxy import ProxyLayer
from sidecar.states import Lease
from sidecar.telling import Telling
from telemetry import metrics
from telemetry.recorder import Recorder
from tests.unit.sidecar.staged import Body, identity, in_paced_time, settled
from tests.unit.sidecar.staged import Envoy as Stranger
from wire.messages import Denials, Denied

PATIENCE = 5.0
PEER = "192.0.2.7:9443"
DENIED = Denied(InstanceId("i-" + "1" * 32), "spiffe://example.org/db", "c-1", (), (PEER,))
LIST = Refusals.of(Denials(3, (DENIED,), b"a CRL"))
DRAINS = PolicySpec.model_validate({"connections": "drain"})
DRIFT = Violation("file-modified", ViolationClass.DRIFT, Layer.FILES, "/srv/app/main", "it differs", 1.0)


@dataclass
class Seat:
    """The sidecar's half, and whoever holds the seat. ordered: of the measurer, which vouches for everybody."""

    settings: DeliverySettings
    workload: Body
    ordered: list[Message] = field(default_factory=list)
    holder: Stranger | None = None

    def __post_init__(self) -> None:
        telling = Telling(structlog.get_logger(), Metering(Recorder(metrics.SIDECAR)))
        self.envoy = Envoy(
            self.settings,
            WorkloadSettings(pid=self.workload.pid),
            telling,
            order=self._order,
            asked=lambda violation: None,
            closed=lambda: None,
            proxy=ProxyLayer(
                Delivered.SECRETS,
                clock=lambda: clock.now().boot,
                patience=lambda: 1.0,
                saw=lambda fact: None,
                observed=lambda seen, body: None,
            ),
        )

    @property
    def severed(self) -> list[tuple[str, ...]]:
        return [each.addresses for each in self.ordered if isinstance(each, Sever)]

    async def taken(self) -> Stranger:
        """By another Envoy, once the one before has ended; it is open."""
        self.leave()
        await settled()
        self.holder = holder = Stranger(Body(self.settings.socket))
        await holder.connect(self.settings)
        await settled()
        return holder

    async def opened(self) -> Stranger:
        holder = await self.taken()
        await self.answered(holder)
        now = clock.now()
        self.envoy.serve(identity(1), Lease(1, now.boot + 3600, now.wall + 3600))
        await self.answered(holder)
        return holder

    async def answered(self, holder: Stranger, rejection: str | None = None) -> None:
        await settled()
        while holder.unanswered:
            holder.answer(rejection)
            await settled()

    def leave(self) -> None:
        if self.holder is not None:
            self.holder.hang_up()
            self.holder.body.die()

    def _order(self, message: Message, descriptor: int | None) -> None:
        self.ordered.append(message)
        if isinstance(message, Guard):
            asyncio.get_running_loop().call_soon(self.envoy.vouched, Guarded(message.pid, workload=False))


@asynccontextmanager
async def seat(folder: Path) -> AsyncIterator[Seat]:
    settings = DeliverySettings(socket=folder / "xds.sock", peers=(PEER,))
    workload = Body(settings.socket)
    made = Seat(settings, workload)
    try:
        async with made.envoy.listening():
            yield made
            made.envoy.close_for_good(is_open=False)
    finally:
        made.leave()
        workload.die()


def told(folder: Path, story: Callable[[Seat], Awaitable[None]]) -> None:
    async def scenario() -> None:
        async with seat(folder) as made:
            await story(made)

    in_paced_time(scenario)


def test_whom_an_envoy_refuses_is_not_said_of_its_successor(tmp_path: Path) -> None:
    async def story(made: Seat) -> None:
        made.envoy.refuse(LIST)
        await made.opened()
        assert made.envoy.refuses == 3
        await made.taken()
        assert made.envoy.refuses == 0
        await made.opened()
        assert made.envoy.refuses == 3

    told(tmp_path, story)


def test_what_is_open_to_the_denied_is_cut_though_envoy_rejects_the_list(tmp_path: Path) -> None:
    async def story(made: Seat) -> None:
        holder = await made.opened()
        made.envoy.refuse(LIST)
        await made.answered(holder, "no such CRL")
        assert made.envoy.refuses == 0
        assert made.severed == [(PEER,)]

    told(tmp_path, story)


def test_time_that_nobody_vouches_for_ends_what_drains(tmp_path: Path) -> None:
    async def story(made: Seat) -> None:
        await made.opened()
        made.envoy.close("file-modified", DRIFT, DRAINS)
        assert not made.envoy.closing
        made.envoy.stalled("the-machine-slept")
        assert made.envoy.closing

    told(tmp_path, story)


def test_time_that_nobody_vouches_for_closes_nothing_that_is_closed_already(tmp_path: Path) -> None:
    async def story(made: Seat) -> None:
        await made.taken()
        made.envoy.stalled("the-machine-slept")
        assert not made.envoy.closing

    told(tmp_path, story)


def test_a_closing_that_is_under_way_when_the_sidecar_stops_ends_with_envoy(tmp_path: Path) -> None:
    async def story(made: Seat) -> None:
        holder = await made.opened()
        made.envoy.close("file-modified", DRIFT, PolicySpec())
        made.envoy.close_for_good(is_open=False)
        assert holder.body.ended(within=PATIENCE)

    told(tmp_path, story)
