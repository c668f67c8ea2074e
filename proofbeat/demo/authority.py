"""The demo's authority: the real one, in a process of its own, under a CA that nothing else accepts."""

from __future__ import annotations

import sys
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

    await Authority(config.load(Path(sys.argv[1])), allow_demo=True).run(listening)


if __name__ == "__main__":
    logs.configure("authority")
    sys.exit(process.run(_run))
