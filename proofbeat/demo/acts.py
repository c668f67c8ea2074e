"""The acts: something is done to the mesh, and the load's own records say what that did to traffic."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policies.model.policy import Recovery
from proofbeat import why
from proofbeat.demo.closing import (
    WITHIN_SECONDS,
    Act,
    Play,
    Say,
    recovered,
    replace,
    told,
    until_closed,
    until_opened,
    until_refused,
    until_served,
)
from proofbeat.demo.intruding import INTRUDING
from proofbeat.demo.layout import ALL_FLOWS, flows
from proofbeat.demo.load import Record
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Line, in_phase
from sidecar.states import Phase
from telemetry.names import Event

GUARDIAN_GRACE = 0.1
"""Seconds beyond the dead-man time within which the guardian has closed everything."""


async def identity(scene: Scene, say: Say) -> Act:
    """Both sidecars attest, both Envoys get an identity, traffic flows both ways."""
    began = now()
    for standing in scene.standings:
        await scene.start_envoy(standing)
        await scene.start_sidecar(standing, enrol=True)
    await scene.run_load(flows(scene.layout))
    opened = await asyncio.gather(*(_first_opened(standing, began) for standing in scene.standings))
    for standing, fresh in zip(scene.standings, opened, strict=True):
        if fresh:
            say(f"{standing.side.spiffe_id} attested; its certificate lives as long as that is fresh")
        else:
            _tell_why_not(standing, say)
    if not all(opened):
        say("docs/hardening.md says what gives each of these; `proofbeat doctor` what this machine lacks.")
        if os.geteuid() != 0:
            say("Run it as root: the services get users of their own then, and the measurer sees more.")
        return Act("identity", ok=False)
    served = await until_served(scene, ALL_FLOWS, began)
    return Act("identity", ok=served is not None, recovered_ms=served)


async def _first_opened(standing: Standing, since: float) -> bool:
    fresh = in_phase(Phase.FRESH)
    return await standing.watch.until(Event.PHASE, since, within=WITHIN_SECONDS, matching=fresh) is not None


def _tell_why_not(standing: Standing, say: Say) -> None:
    """The latest reasons that its sidecar was given."""
    say(f"{standing.side.spiffe_id} gets no identity: policy asks for what does not hold here")
    said = (_reasons(line) for line in reversed(standing.watch.lines))
    for reason in next(filter(None, said), ()):
        say(f"  {reason}")


def _reasons(line: Line) -> Sequence[str]:
    match line.get("event"):
        case Event.ROUND:
            return [str(reason) for reason in line["reasons"]]
        case Event.ROUND_FAILED | Event.ENROLMENT_REFUSED:
            return [str(line["why"])]
        case _:
            return []


async def steady(scene: Scene, say: Say) -> Act:
    """Nothing happens, over and over: rounds pass, traffic does not notice."""
    began = now()
    await asyncio.sleep(4 * scene.layout.terms.interval)
    until = now()
    rounds = [line for line in scene.web.watch.lines if line.get("event") == Event.ROUND and line["heard"] >= began]
    refusals = scene.ledger.refusals(ALL_FLOWS, began, until)
    await asyncio.sleep(0.3 if refusals else 0)  # Envoy's log lags a little
    say(f"{len(rounds)} rounds of evidence for web in {until - began:.0f} s, each with a new lease")
    say(_noticed(scene, refusals, began) if refusals else "no request noticed")
    return Act("steady", ok=not refusals and len(rounds) >= 3)


async def drift(scene: Scene, say: Say) -> Act:
    """A file is modified, and put right again."""
    page = scene.web.side.page
    original = page.read_bytes()
    act = now()
    page.write_bytes(original + b"<script src=//evil.example></script>\n")
    say("a page of web was modified on disk")
    closing = await until_closed(scene, scene.web, act)
    say(told(closing))
    await asyncio.sleep(1.5)
    repair = now()
    page.write_bytes(original)
    say("the page is put back as it was")
    if scene.layout.terms.recovery.drift is not Recovery.AUTO:
        say("policy asks for more than that after drift")
        repair = await replace(scene, say, scene.layout.terms.recovery.drift)
    opened = await until_opened(scene, scene.web, repair, closing)
    say(recovered(opened))
    return closing.act("drift", opened)


async def tamper(scene: Scene, say: Say) -> Act:
    """A foreign executable runs inside web. Nothing but a new instance opens it again."""
    foreign = scene.layout.folder / "tmp-payload"
    # It runs for a second: without kernel events, which take privileges, executions are seen by looking every 20 ms.
    shutil.copy(shutil.which("sleep") or "/bin/sleep", foreign)
    act = now()
    scene.attack(scene.web, f"{foreign} 1")
    say("web was made to run a program that nobody allowed")
    closing = await until_closed(scene, scene.web, act)
    say(told(closing))
    # 1. Kill -9 and re-enrolment do not wash it off.
    _send(scene.web, signal.SIGKILL)
    again = now()
    await asyncio.sleep(0.2)
    await scene.start_sidecar(scene.web, enrol=False)
    enrolled = await scene.web.watch.until(Event.ENROLLED, again, within=WITHIN_SECONDS)
    say("its sidecar was killed with -9 and came back, enrolled by its ticket: still closed")
    await asyncio.sleep(2 * scene.layout.terms.interval)
    stayed = scene.web.watch.first(Event.PHASE, again, in_phase(Phase.FRESH)) is None
    # 2. The authority tells why, and goes on telling it when the instance is gone.
    answer = await why.ask(scene.layout.authority_admin, "web")
    say(f"$ proofbeat why --admin {scene.layout.authority_admin.name} web")
    for line in why.lines(answer, scene.layout.authority_admin):
        say(f"  {line}")
    # 3. A new instance is clean.
    repair = await replace(scene, say, scene.layout.terms.recovery.tamper)
    opened = await until_opened(scene, scene.web, repair, closing)
    say(recovered(opened))
    return closing.act("tamper", opened, also=enrolled is not None and stayed)


async def stopped(scene: Scene, say: Say) -> Act:
    """The sidecar is frozen: the guardian closes in its place."""
    return await _deadman(scene, say, "sidecar-stopped", signal.SIGSTOP)


async def killed(scene: Scene, say: Say) -> Act:
    """The sidecar is killed: the guardian closes in its place."""
    return await _deadman(scene, say, "sidecar-killed", signal.SIGKILL)


async def authority_away(scene: Scene, say: Say) -> Act:
    """The authority is gone for a while that is shorter than a lease."""
    began = now()
    await scene.stop_authority()
    say("the authority is stopped")
    await asyncio.sleep(3.0)
    await scene.start_authority()
    back = now()
    say(f"the authority is back after {back - began:.1f} s")
    rounds = [await standing.watch.until(Event.ROUND, back, within=WITHIN_SECONDS) for standing in scene.standings]
    refusals = scene.ledger.refusals(ALL_FLOWS, began, now())
    say(_noticed(scene, refusals, began) if refusals else "nobody noticed: leases outlive it, rounds go on")
    return Act("authority-away", ok=not refusals and None not in rounds)


ACTS: tuple[Play, ...] = (identity, steady, drift, tamper, *INTRUDING, stopped, killed, authority_away)


async def _deadman(scene: Scene, say: Say, name: str, number: signal.Signals) -> Act:
    deadman = scene.layout.terms.deadman
    act = now()
    _send(scene.web, number)
    say(f"web's sidecar got {number.name}")
    # Nobody can report a closing whose reporter is gone: it counts from the time that is promised.
    closing = await until_refused(scene, act, act + deadman + GUARDIAN_GRACE, None)
    say(f"its guardian cut everything after {closing.cut_ms or 0:.0f} ms (dead-man time {deadman:g} s)")
    in_time = closing.cut_ms is not None and closing.cut_ms <= (deadman + GUARDIAN_GRACE) * 1000
    await asyncio.sleep(0.5)
    repair = now()
    if number is signal.SIGSTOP:
        _send(scene.web, signal.SIGCONT)
    else:
        await scene.start_sidecar(scene.web, enrol=False)
    say("the sidecar runs again")
    if number is signal.SIGSTOP and scene.layout.terms.recovery.drift is not Recovery.AUTO:
        say("policy asks for more than that after a time in which nobody watched")
        repair = await replace(scene, say, scene.layout.terms.recovery.drift)
    opened = await until_opened(scene, scene.web, repair, closing)
    say(recovered(opened))
    return closing.act(name, opened, also=in_time)


def _send(standing: Standing, number: signal.Signals) -> None:
    if standing.sidecar is not None:
        standing.sidecar.send_signal(number)


def _noticed(scene: Scene, refusals: list[Record], began: float) -> str:
    """What traffic noticed although it should not have: how much of which flow, and when."""
    names = [flow.name for flow in flows(scene.layout)]
    parts = [
        f"{names[number]}: {len(found)} from {(found[0].began - began) * 1000:.0f} "
        f"to {(found[-1].ended - began) * 1000:.0f} ms"
        for number in ALL_FLOWS
        if (found := [each for each in refusals if each.flow == number])
    ]
    failures = [line for standing in scene.standings for line in _failures(standing.side.access_log, began)]
    return f"requests were refused and should not have been: {'; '.join(parts)}. Envoy says: {' | '.join(failures[:4])}"


def _failures(log: Path, began: float) -> list[str]:
    """The lines of an access log since CLOCK_BOOTTIME `began` that tell of something other than success."""
    since = datetime.fromtimestamp(time.time() - (now() - began), UTC).isoformat()
    lines = (json.loads(line) for line in log.read_text().splitlines() if line.startswith("{") and line.endswith("}"))
    return [json.dumps(line) for line in lines if line["start"] >= since and not _succeeded(line)]


def _succeeded(line: Mapping[str, Any]) -> bool:
    return line["flags"] == "-" and line["code"] in (None, 0, 200)
