"""What every act comes to: the mesh closes, is put right, and opens again, by the load's own records."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from policies.model.policy import Recovery
from proofbeat.demo.layout import ALL_FLOWS, FRESH, FROM_WEB, INTO_WEB, NEW_STREAMS, STREAMS
from proofbeat.demo.ledger import Closure
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import in_phase
from sidecar.states import Phase
from telemetry.names import Event

WITHIN_SECONDS = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Act:
    """What came of one act. Milliseconds from the act; None where it does not apply.

    own_envoy_refused_ms: the workload's own Envoy refused new connections to it. peer_refused_ms: so did what the
    workload asked of its peer. open_connections_cut_ms: both long streams ended. recovered_ms: from the repair.
    left_out: why it was not played here, empty where it was.
    """

    name: str
    ok: bool
    observed_ms: float | None = None
    own_envoy_refused_ms: float | None = None
    open_connections_cut_ms: float | None = None
    peer_refused_ms: float | None = None
    recovered_ms: float | None = None
    left_out: str = ""


Play = Callable[[Scene, Say], Awaitable[Act]]


@dataclass(frozen=True, slots=True)
class Closing:
    """One closing as the load saw it."""

    began: float
    reported: float | None
    observed_ms: float | None
    own_ms: float | None
    cut_ms: float | None
    peer_ms: float | None

    @property
    def complete(self) -> bool:
        return None not in (self.reported, self.own_ms, self.cut_ms, self.peer_ms)

    def act(self, name: str, recovered: float | None, *, also: bool = True) -> Act:
        return Act(
            name,
            ok=self.complete and recovered is not None and also,
            observed_ms=_rounded(self.observed_ms),
            own_envoy_refused_ms=_rounded(self.own_ms),
            open_connections_cut_ms=_rounded(self.cut_ms),
            peer_refused_ms=_rounded(self.peer_ms),
            recovered_ms=_rounded(recovered),
        )


async def until_closed(scene: Scene, standing: Standing, act: float) -> Closing:
    """Waits until the sidecar reports itself closed and every flow has been refused."""
    violation = await standing.watch.until(Event.VIOLATION, act, within=WITHIN_SECONDS)
    closed = await standing.watch.until(Event.CLOSED, act, within=WITHIN_SECONDS)
    observed = (float(violation["at"]) - act) * 1000 if violation else None
    return await until_refused(scene, act, float(closed["at"]) if closed else None, observed)


async def until_refused(scene: Scene, act: float, reported: float | None, observed: float | None) -> Closing:
    await _until(scene, lambda: scene.ledger.refused_after(ALL_FLOWS, act) is not None)
    ledger = scene.ledger
    return Closing(
        act,
        reported,
        observed,
        own_ms=ledger.refused_after(set(INTO_WEB) & {*FRESH, *NEW_STREAMS}, act),
        cut_ms=ledger.refused_after(STREAMS, act),
        peer_ms=ledger.refused_after(set(FROM_WEB) & {*FRESH, *NEW_STREAMS}, act),
    )


async def until_opened(scene: Scene, standing: Standing, repair: float, closing: Closing) -> float | None:
    """Waits until traffic flows again, and notes the closure that ended there."""
    fresh = await standing.watch.until(Event.PHASE, repair, within=WITHIN_SECONDS, matching=in_phase(Phase.FRESH))
    if closing.reported is not None:
        scene.ledger.closures.append(Closure(closing.reported, float(fresh["at"]) if fresh else now()))
    return await until_served(scene, ALL_FLOWS, repair)


async def replace(scene: Scene, say: Say, recovery: Recovery) -> float:
    """Web's old instance ends, and its sidecar with it; a new one begins. When that was."""
    if scene.web.workload is not None:
        await scene.web.workload.end_with_all()  # what was frozen in it would stay so
    if scene.web.sidecar is not None:
        await scene.web.sidecar.process.wait()
    if recovery is Recovery.MANUAL:
        await scene.release(scene.web)
        say("policy asks for a person: an operator looked into it, and released the old instance")
    began = now()
    await scene.start_workload(scene.web)
    await scene.start_sidecar(scene.web, enrol=True)
    say("web was started anew: a new instance, a new join token")
    return began


async def until_served(scene: Scene, wanted: tuple[int, ...], since: float) -> float | None:
    await _until(scene, lambda: scene.ledger.recovered_after(wanted, since) is not None)
    return scene.ledger.recovered_after(wanted, since)


async def _until(scene: Scene, condition: Callable[[], bool]) -> None:
    """Looks again whenever the load told something new, until that shows it or time is up."""
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition():
                await scene.news()
    except TimeoutError:
        return


def told(closing: Closing) -> str:
    if not closing.complete:
        return "web was NOT closed in both directions"
    return (
        f"seen after {closing.observed_ms or 0:.1f} ms, new connections refused after {closing.own_ms or 0:.1f} ms, "
        f"open streams cut after {closing.cut_ms or 0:.1f} ms"
    )


def recovered(milliseconds: float | None) -> str:
    return (
        f"traffic flows again, {milliseconds:.0f} ms later" if milliseconds is not None else "traffic did NOT recover"
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
