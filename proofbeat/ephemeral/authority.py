"""The authority of one run: the real one, in a process of its own, under a CA that nothing else accepts.

Usage: as `command` has it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from authority import config
from authority.app import Authority, Listening
from proofbeat import process
from telemetry import logs
from telemetry.names import Event

CA_NAME = "DEMO - do not trust"
CA_SECONDS = 3600.0


def command(settings: Path, *, ahead: float = 0.0) -> list[str]:
    """What starts it. ahead: seconds by which its wall clock is wrong."""
    return [sys.executable, "-P", "-m", "proofbeat.ephemeral.authority", str(settings), str(ahead)]


async def _run() -> None:
    log = logs.logger()

    def listening(where: Listening) -> None:
        log.info(Event.LISTENING, url=where.url)

    settings, ahead = config.load(Path(sys.argv[1])), float(sys.argv[2])
    await Authority(settings, allow_demo=True, clock=lambda: time.time() + ahead).run(listening)


if __name__ == "__main__":
    logs.configure("authority")
    sys.exit(process.run(_run))
