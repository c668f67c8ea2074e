"""`bench detect`: each act of the catalogue, again and again: when was it told as what, and when was it closed for?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attestation.errors import Unavailable
from proofbeat.bench import mesh
from proofbeat.bench.detect.catalogue import CATALOGUE, Attack, restricted
from proofbeat.bench.detect.scene import BrokenScene, staged
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.demo.layout import OUT_FRESH, OUT_TCP
from proofbeat.demo.load import Flow
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Line
from sidecar.states import Phase
from telemetry.names import Event

WITHIN_SECONDS = 20.0
_LOOKED_SECONDS = 3.0
"""After which everything that is looked at has been looked at: what is not told by then is not told."""
NEW = (0, 1)


@dataclass(frozen=True, slots=True)
class Sample:
    """Milliseconds from the act. told: class of the violation. closed: verified at Envoy; refused: by its callers."""

    violation: float
    closed: float
    refused: float
    told: str


async def run(*, quick: bool) -> Report:
    """Under the profile that our own capabilities come to: all of them, or none."""
    less = restricted()
    found: dict[Attack, list[Sample | None]] = {}
    for gated in (False, True):
        acts = [each for each in CATALOGUE if each.possible(restricted=less) and each.gated is gated]
        if acts:
            async with staged(gated=gated) as scene:
                detecting = await Detecting.of(scene)
                found |= {each: await detecting.samples(each, quick=quick) for each in acts}
    return report(found, stated=not less)


def report(found: Mapping[Attack, Sequence[Sample | None]], *, stated: bool) -> Report:
    """Pure. None: an act of which nothing was told. stated: held against what is stated for a run with privileges."""
    figures: dict[str, Figure] = {}
    budgets = []
    for attack, acts in found.items():
        samples = [each for each in acts if each is not None]
        figures[f"{attack.name}_told"] = Value(f"of {len(acts)} acts", len(samples))
        if not samples:
            continue
        seen = Distribution.of([each.violation for each in samples])
        figures[f"{attack.name}_to_violation"] = seen
        figures[f"{attack.name}_to_closed"] = Distribution.of([each.closed for each in samples])
        figures[f"{attack.name}_to_refused"] = Distribution.of([each.refused for each in samples])
        if stated:
            what = f"{attack.name}: {attack.signal}, p99 in ms after the act"
            budgets.append(Budget(what, attack.within_ms, seen.p99))
    figures["acts"] = Value("of the catalogue", len(found))
    return Report("detect", figures, tuple(budgets))


class Detecting:
    """Takes samples on one running mesh, which is open before and after each."""

    def __init__(self, scene: BrokenScene) -> None:
        self._scene = scene

    @classmethod
    async def of(cls, scene: BrokenScene) -> Detecting:
        """With traffic."""
        await mesh.open_both(scene)
        db = scene.layout.db.address
        await scene.run_load(
            [
                Flow("new HTTP connections", "http", db, OUT_FRESH, pause=0.01),
                Flow("new TCP streams", "tcp", db, OUT_TCP, fresh=True, pause=0.01),
            ]
        )
        detecting = cls(scene)
        await detecting.open_again(now())
        return detecting

    async def samples(self, attack: Attack, *, quick: bool) -> list[Sample | None]:
        count = (1 if attack.dear else 2) if quick else (3 if attack.dear else 20)
        reliable = attack.reliable(restricted=restricted())
        return [await (self.sample(attack) if reliable else self.seen(attack)) for _ in range(count)]

    async def sample(self, attack: Attack) -> Sample:
        """Raises Unavailable where it is not told as what it is, or not closed for."""
        sample = await self._sample(attack, WITHIN_SECONDS)
        if isinstance(sample, Sample):
            return sample
        raise Unavailable(f"{attack.name} was not told as {attack.signal}, but {sample}", where="bench detect")

    async def seen(self, attack: Attack) -> Sample | None:
        """None where it is not told. Raises Unavailable where it is, and not closed for."""
        sample = await self._sample(attack, _LOOKED_SECONDS)
        return sample if isinstance(sample, Sample) else None

    async def _sample(self, attack: Attack, within: float) -> Sample | list[str]:
        """Or what was told instead."""
        watch, since = self._scene.web.watch, now()
        at = await self._scene.commit(attack)

        def of_this(line: Line) -> bool:
            return line.get("kind") == attack.signal and float(line["at"]) >= at

        violation = await watch.until(Event.VIOLATION, since, within=within, matching=of_this)
        if violation is None:
            lines = [line for line in watch.since(since) if line.get("event") == Event.VIOLATION]
            undone = now()
            await self._scene.undo()
            await self.open_again(undone)
            return [f"{line['kind']}: {line['text']}" for line in lines]
        closed = await self._closed(attack, since)
        refused = await self._until_refused(at)
        undone = now()
        await self._scene.undo()
        await self.open_again(undone)
        return Sample(
            violation=(float(violation["at"]) - at) * 1000,
            closed=(closed - at) * 1000,
            refused=refused,
            told=str(violation["violation_class"]),
        )

    async def open_again(self, since: float) -> None:
        """Until web is attested and calls pass; by a new sidecar where the act ended the old one."""
        web = self._scene.web
        if web.sidecar is not None and not web.sidecar.running:
            web.watch.phase = ""
            await self._scene.start_sidecar(web, enrol=False)
        async with asyncio.timeout(WITHIN_SECONDS):
            await web.watch.when(lambda: True if web.watch.phase == Phase.FRESH else None)
            while self._scene.ledger.recovered_after(NEW, since) is None:
                await self._scene.news()

    async def _closed(self, attack: Attack, since: float) -> float:
        """When the sidecar had closed, or had ended, and its Envoy with it. Raises Unavailable."""
        watch = self._scene.web.watch
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                line = await watch.when(lambda: watch.first(Event.CLOSED, since) or watch.first(Event.STOPPED, since))
        except TimeoutError as error:
            raise Unavailable(f"{attack.name} was not closed for", where="bench detect") from error
        if line["event"] == Event.CLOSED:
            return float(line["at"])
        if self._scene.web.sidecar is not None:
            await self._scene.web.sidecar.process.wait()
        return float(line["heard"])

    async def _until_refused(self, at: float) -> float:
        async with asyncio.timeout(WITHIN_SECONDS):
            while (refused := self._scene.ledger.refused_after(NEW, at)) is None:
                await self._scene.news()
        return refused
