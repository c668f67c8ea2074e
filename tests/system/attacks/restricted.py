"""`python -m tests.system.attacks.restricted NAME...`: these acts of the catalogue, and a line of JSON for each.

Started without any capability, as whoever measures by the restricted profile is.
"""

from __future__ import annotations

import asyncio
import json
import sys

from proofbeat.bench import mesh
from proofbeat.bench.detect.catalogue import CATALOGUE, restricted
from proofbeat.bench.detect.run import Detecting
from proofbeat.bench.detect.scene import TERMS, BrokenScene


async def _run(names: list[str]) -> None:
    async with mesh.staged(TERMS, BrokenScene) as scene:
        detecting = await Detecting.of(scene)
        for attack in CATALOGUE:
            if attack.name in names:
                sample = await detecting.seen(attack)
                told = {"act": attack.name, "told": sample and sample.told, "ms": sample and sample.violation}
                sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    assert restricted()
    asyncio.run(_run(sys.argv[1:]))
