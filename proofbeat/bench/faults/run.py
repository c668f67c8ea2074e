"""`bench faults`: sets a mesh up, does one fault after the other to it, and reports what traffic said."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from attestation.errors import Unavailable
from proofbeat.bench.faults import oracle, plan
from proofbeat.bench.faults.inject import injected
from proofbeat.bench.faults.oracle import Finding, Story
from proofbeat.bench.faults.plan import Fault, Moment
from proofbeat.bench.faults.stage import Stage, stage
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value
from proofbeat.demo.layout import Terms
from proofbeat.ephemeral.clock import now
from telemetry.metrics import ATTESTING
from telemetry.names import Event

TERMS = Terms(interval=0.5, freshness=8.0, deadman=1.0, pages=8)
"""Short times: a recovery takes a second or two, and a lease runs out while somebody waits for it."""
DEFAULT_COUNT, QUICK_COUNT = 50, 5
OPEN_SECONDS = 30.0
RECOVERY_SECONDS = 25.0
SETTLE = 0.3
"""Seconds that everything has to go on flowing before a fault counts as recovered from."""
AT_STAGE = {Moment.MEASURING: "measured", Moment.ANSWERING: "answered", Moment.SERVING: "served"}


async def run(*, quick: bool, seed: int = 1, count: int | None = None, only: Sequence[int] = ()) -> Report:
    """count: faults of that seed. only: numbers of those to replay. Raises Unavailable."""
    wanted = count or (QUICK_COUNT if quick else DEFAULT_COUNT)
    faults = plan.faults(seed, max(wanted, *only) if only else wanted, TERMS, root=os.geteuid() == 0)
    if only:
        faults = [faults[number - 1] for number in only]
    tell = Telling(seed, len(faults))
    async with stage(TERMS) as made:
        await _flowing(made, now(), OPEN_SECONDS)
        findings = [tell.judged(await one(made, fault)) for fault in faults]
        return report(findings, requests=made.scene.ledger.served(), tokens=made.tokens)


async def one(made: Stage, fault: Fault) -> Finding:
    """Waits until all flows, strikes, restores, waits until all flows again, and judges."""
    if not await _flowing(made, now() - 1.0, RECOVERY_SECONDS):
        await made.renew()
        if not await _flowing(made, now(), OPEN_SECONDS):
            raise Unavailable("the mesh does not come back to life", where=f"before fault {fault.number}")
    made.begin()
    await _moment(made, fault)
    began = now()
    async with AsyncExitStack() as undo:
        await undo.enter_async_context(injected(made, fault))
        if fault.drift:
            undo.enter_context(made.drift(fault.side))
        await _pass(made, began + fault.seconds)
    restored = now()
    recovered = await _flowing(made, restored, RECOVERY_SECONDS)
    ended = now()
    await made.scene.news()
    records = [record for record in made.scene.ledger.records if record.began >= began]
    story = Story(
        began,
        restored,
        recovered,
        ended,
        {side.name: made.story(side.name, began) for side in made.layout.sides},
        records,
        made.away,
    )
    return oracle.judge(fault, story, made.layout.terms)


async def _moment(made: Stage, fault: Fault) -> None:
    """Until that stage of the next round of the side concerned, reckoned from its last one."""
    standing, interval = made.standing(fault.side or made.layout.web.name), made.layout.terms.interval
    line = next(line for line in reversed(standing.watch.lines) if line.get("event") == Event.ROUND)
    began = float(line["heard"]) - float(line["total_ms"]) / 1000
    if fault.moment is Moment.IDLE:
        offset = 0.5 * interval
    else:
        *before, at = (float(line.get(f"{stage}_ms", 0.0)) for stage in _up_to(AT_STAGE[fault.moment]))
        offset = (sum(before) + at / 2) / 1000
    await asyncio.sleep((began + offset - now()) % interval)


def _up_to(stage: str) -> tuple[str, ...]:
    return ATTESTING[: ATTESTING.index(stage) + 1]


async def _pass(made: Stage, end: float) -> None:
    """Until then, with everything kept running that can be."""
    while now() < end:
        await made.keep()
        await asyncio.sleep(min(0.05, max(0.0, end - now())))


async def _flowing(made: Stage, since: float, within: float) -> bool:
    """Waits until all of it flows, shown by what came after `since`, and still does a moment later."""
    end = now() + within
    steady = since
    while now() < end:
        await made.keep()
        if made.flows(steady):
            if steady != since or since < now() - SETTLE:
                return True
            steady = now()
        await asyncio.sleep(0.02)
    return False


class Telling:
    """A line on stderr for each fault, with what replays it."""

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count, self._done, self._bad = seed, count, 0, 0
        self._began = time.monotonic()

    def judged(self, finding: Finding) -> Finding:
        self._done += 1
        fault = finding.fault
        took = time.monotonic() - self._began
        line = f"{took:7.1f}s  {self._done}/{self._count}  {fault.number} {fault}: {verdict(finding)}"
        if not finding.holds:
            self._bad += 1
            line += f"  (again: --seed {self._seed} --only {fault.number})"
        print(line, file=sys.stderr, flush=True)
        return finding


def verdict(finding: Finding) -> str:
    """In words."""
    wrong = [
        words
        for is_so, words in (
            (finding.leaked, f"{len(finding.leaked)} LEAKED"),
            (finding.lost, "a lease was LOST that should have held"),
            (finding.kept, "NOT closed although it had to be"),
            (finding.refused, f"{finding.refused} requests REFUSED that should have been served"),
            (finding.recovery is None, "did NOT recover"),
        )
        if is_so
    ]
    told = [f"outage {finding.outage:.2f} s"] if finding.outage else ["nobody noticed"]
    if finding.closing is not None:
        told.append(f"closed after {finding.closing:.2f} s")
    if finding.recovery is not None:
        told.append(f"flowing {finding.recovery:.2f} s after it ended")
    return ", ".join([*wrong, *told])


def report(findings: Sequence[Finding], *, requests: int, tokens: int) -> Report:
    """Figures and budgets of a run. tokens: join tokens that an operator had to make."""
    outages = [finding.outage for finding in findings]
    names = sorted({finding.fault.name for finding in findings})
    figures: dict[str, Figure] = {
        "faults": Value("faults", len(findings)),
        "requests_served": Value("requests", requests),
        "longest_outage": Value("s", round(max(outages, default=0.0), 3)),
        "outage": Distribution.of(outages, "s"),
        "recovery": Distribution.of([each.recovery for each in findings if each.recovery is not None], "s"),
        "closing": Distribution.of([each.closing for each in findings if each.closing is not None], "s"),
        "new_join_tokens": Value("tokens", tokens),
    }
    for name in names:
        of_kind = [finding.outage for finding in findings if finding.fault.name == name]
        figures[f"outage of {name}"] = Distribution.of(of_kind, "s")
    return Report(
        "faults",
        figures,
        (
            Budget("requests leaked", 0.0, float(sum(len(each.leaked) for each in findings))),
            Budget("leases lost that should have held", 0.0, float(sum(each.lost for each in findings))),
            Budget("leases that should have ended and did not", 0.0, float(sum(each.kept for each in findings))),
            Budget("faults with requests refused that should have been served", 0.0, _count(findings)),
            Budget("faults not recovered from", 0.0, float(sum(each.recovery is None for each in findings))),
        ),
    )


def _count(findings: Sequence[Finding]) -> float:
    return float(sum(bool(each.refused) for each in findings))
