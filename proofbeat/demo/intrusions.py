"""What an intruder does inside of web's process, without a file and without a program: the service is sent code."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

from attestation.coverage import CALLS, EGRESS, MEMORY
from proofbeat.bench.detect.acts import connect_elsewhere, outward
from proofbeat.bench.detect.calls import leave_the_baseline, open_by_io_uring
from proofbeat.bench.detect.codeacts import patch_its_own_code
from proofbeat.demo.closing import Act, Play, Say, recovered, replace, told, until_closed, until_opened
from proofbeat.demo.scene import Scene
from proofbeat.ephemeral.clock import now
from telemetry.names import Event


async def call_outside(scene: Scene, say: Say) -> Act:
    """Web makes a system call that it never made before."""
    return await _intrude(
        scene, say, "call-outside", CALLS, leave_the_baseline, "web was made to ask for personality(2)"
    )


async def ring_opened(scene: Scene, say: Say) -> Act:
    """Web opens an io_uring, by which calls pass that nobody sees as calls."""
    return await _intrude(scene, say, "ring-opened", CALLS, open_by_io_uring, "web was made to open a file by io_uring")


async def code_patched(scene: Scene, say: Say) -> Act:
    """Code is patched in web's running process; its files stay as they are."""
    return await _intrude(scene, say, "code-patched", MEMORY, patch_its_own_code, "one byte of web's code was changed")


async def egress(scene: Scene, say: Say) -> Act:
    """Web connects to where it never did before."""
    try:
        outward()
    except OSError as error:
        return _left_out("egress", say, f"this machine has no address to connect to: {error.strerror}")
    return await _intrude(scene, say, "egress", EGRESS, connect_elsewhere, "web was made to connect to a new address")


INTRUSIONS: tuple[Play, ...] = (call_outside, ring_opened, code_patched, egress)


async def _intrude(
    scene: Scene, say: Say, name: str, collector: str, act: Callable[[Any], Iterator[float]], done: str
) -> Act:
    """collector: who sees it. Where that does not run, nothing is done."""
    absent = _absent(scene, collector)
    if absent is not None:
        return _left_out(name, say, absent)
    began = now()
    scene.attack(scene.web, json.dumps(_sent(act)))
    say(done)
    closing = await until_closed(scene, scene.web, began)
    say(_why(scene, began))
    say(told(closing))
    repair = await replace(scene, say, scene.layout.terms.recovery.tamper)
    opened = await until_opened(scene, scene.web, repair, closing)
    say(recovered(opened))
    return closing.act(name, opened)


def _absent(scene: Scene, collector: str) -> str | None:
    """Why it does not run; None where it does."""
    coverage = [line for line in scene.web.watch.lines if line.get("event") == Event.COVERAGE]
    if coverage and collector in coverage[-1]["collectors"]:
        return None
    detail = coverage[-1]["stopped"].get(collector, "") if coverage else ""
    return f"nobody looks for it here{f': {detail}' if detail else ''}; `proofbeat doctor` says what that takes"


def _left_out(name: str, say: Say, why: str) -> Act:
    say(f"left out: {why}")
    return Act(name, ok=True, left_out=why)


def _sent(act: Callable[[Any], Iterator[float]]) -> str:
    """The act as source that does it, and keeps what it opened."""
    module = inspect.getmodule(act)
    return f"{inspect.getsource(module) if module else ''}\nkept = {act.__name__}(None)\nnext(kept)\n"


def _why(scene: Scene, since: float) -> str:
    violation = scene.web.watch.first(Event.VIOLATION, since)
    return f"{violation['kind']}: {violation['text']}" if violation else "nothing was told"
