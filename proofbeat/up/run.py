"""`proofbeat up`, put together: what is asked is looked at, a folder is made, and all ends with the story."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from proofbeat import envoy
from proofbeat.ephemeral import folder
from proofbeat.telling import Telling
from proofbeat.up import scope, wishes
from proofbeat.up.layout import Layout
from proofbeat.up.mesh import Mesh
from proofbeat.up.story import Story
from proofbeat.up.wishes import Wishes


async def up(wished: Wishes) -> bool:
    """True when it came up and, where that was asked for, closed and opened. Raises what stands in its way."""
    measured = _measured(wished, Path.home())
    tried = wishes.triable(measured) if wished.attempt else None
    calls = wishes.listenable(wished.calls) if wished.calls else None
    envoy.binary()
    telling, keep = Telling(sys.stderr if wished.as_json else sys.stdout), wished.keep
    here = folder.make("up")
    layout = Layout.make(here, wished.protocol, calls)
    try:
        scope.refuse_within(here, measured)
        return await _up(wished, layout, measured, tried, telling)
    except Exception:  # whatever it is goes on up; only that its traces are kept is decided here
        keep = keep or layout.authority_config.exists()
        raise
    finally:
        if keep:
            (layout.workload.folder / envoy.COPY).unlink(missing_ok=True)
            telling.say(f"settings, policy and logs are kept: {here}")
        else:
            shutil.rmtree(here, ignore_errors=True)


def _measured(wished: Wishes, home: Path) -> tuple[str, ...]:
    if wished.learned is not None:
        return wished.learned.include
    program = wished.program
    return scope.named(wished.include, home) or scope.folders(
        program.command, program.cwd, home, Path.is_file, Path.is_dir
    )


async def _up(wished: Wishes, layout: Layout, measured: tuple[str, ...], tried: str | None, telling: Telling) -> bool:
    async with asyncio.TaskGroup() as tasks:
        story = Story(wished, layout, measured, tried, telling, tasks)
        mesh = Mesh(layout, tasks, story.heard)
        try:
            return await story.tell(mesh)
        finally:
            story.over()
            await mesh.end()
