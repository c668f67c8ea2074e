"""The acts in which web's service is sent code, and each time a new instance takes its place."""

from __future__ import annotations

import json
from functools import partial

from proofbeat.acts.intrusions import INTRUSIONS, Intrusion, absent
from proofbeat.demo.closing import Act, Play, Say, recovered, replace, told, until_closed, until_opened
from proofbeat.demo.scene import Scene
from proofbeat.ephemeral.clock import now
from telemetry.names import Event


async def intrude(scene: Scene, say: Say, intrusion: Intrusion) -> Act:
    """Nothing is done where nobody sees it."""
    covered = [line for line in scene.web.watch.lines if line.get("event") == Event.COVERAGE]
    why = intrusion.prevented or absent(covered[-1], intrusion.collector)
    if why:
        say(f"left out: {why}")
        return Act(intrusion.name, ok=True, left_out=why)
    began = now()
    scene.attack(scene.web, json.dumps(intrusion.source))
    say(f"web has a hole: {intrusion.done}")
    closing = await until_closed(scene, scene.web, began)
    violation = scene.web.watch.first(Event.VIOLATION, began)
    say(f"{violation['kind']}: {violation['text']}" if violation else "nothing was told")
    say(told(closing))
    repair = await replace(scene, say, scene.layout.terms.recovery.tamper)
    opened = await until_opened(scene, scene.web, repair, closing)
    say(recovered(opened))
    as_it_is = violation is not None and violation["kind"] == intrusion.signal
    return closing.act(intrusion.name, opened, also=as_it_is)


def _play(intrusion: Intrusion) -> Play:
    played = partial(intrude, intrusion=intrusion)
    played.__doc__ = intrusion.about
    return played


INTRUDING: tuple[Play, ...] = tuple(map(_play, INTRUSIONS))
