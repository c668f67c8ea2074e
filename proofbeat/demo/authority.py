"""The demo's authority: the real one, in a process of its own, under a CA that nothing else accepts.

Usage: python -m proofbeat.demo.authority CONFIG [AHEAD], AHEAD being seconds by which its wall clock is wrong.
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


async def _run() -> None:
    log = logs.logger()

    def listening(where: Listening) -> None:
        log.info(Event.LISTENING, url=where.url)

    ahead = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    settings = config.load(Path(sys.argv[1]))
    await Authority(settings, allow_demo=True, clock=lambda: time.time() + ahead).run(listening)


if __name__ == "__main__":
    logs.configure("authority")
    sys.exit(process.run(_run))
