"""A service that somebody broke into: what the demo's does, and whatever Python it is sent, as itself.

Copied into the workload's folder beside the demo's, as `served.py`, and run from there with nothing but the standard
library. A line on stdin sends an act (`Order`): a child of this process does it, says when, and takes it back when told
to. Usage: service.py NAME ADDRESS HTTP_PORT ECHO_PORT
"""

import asyncio
import ctypes  # noqa: F401 - what acts import is loaded before the first: it is this program's own
import importlib
import json
import mmap  # noqa: F401 - as above
import os
import shutil  # noqa: F401 - as above
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).parent
TOOL = FOLDER.parent / "loot" / "tool"
"""A program that this service may run."""
SCRIPT = TOOL.with_name("script.py")
"""One for the interpreter that runs this."""


class Intruder:
    """Who does what is sent, one act at a time. Until the first one tool and script run: they belong to what runs."""

    def __init__(self) -> None:
        commands = [[str(TOOL), "3600"], [sys.executable, str(SCRIPT), "3600"]] if TOOL.exists() else []
        self._helpers = [subprocess.Popen(command) for command in commands]
        self._child = self._leash = -1

    def hear(self, line: bytes) -> None:
        """An act, or the word to take the last one back."""
        while self._helpers:
            helper = self._helpers.pop()
            helper.kill()
            helper.wait()
        order = json.loads(line)
        if order.get("undo"):
            os.close(self._leash)
            os.waitpid(self._child, 0)  # nothing is served meanwhile: the state between two acts is of no interest
            tell(undone=True)
        else:
            reading, self._leash = os.pipe()
            self._child = os.fork()
            if self._child == 0:
                os.dup2(reading, 3)
                os.closerange(4, 4096)
                act(order)
            os.close(reading)


def act(order: dict[str, Any]) -> None:
    """In the child: does it, and returns to nobody."""
    try:
        sent = sys.modules["sent"] = ModuleType("sent")
        exec(order["code"], sent.__dict__)  # noqa: S102 - what a hole in a service comes to
        doing = getattr(sent, order["act"])(sent.Where(**order["where"]))
        tell(at=next(doing))
        os.read(3, 1)
        next(doing, None)
    except BaseException as error:  # noqa: BLE001 - whatever went wrong, the benchmark has to hear of it
        tell(failed=f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def tell(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


async def main() -> None:
    sys.path.insert(0, str(FOLDER))
    served = importlib.import_module("served")
    name, address, http, tcp = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    await asyncio.start_server(served.page, address, http)
    await asyncio.start_server(served.echo, address, tcp)
    intruder = Intruder()
    print(name, "serves", flush=True)
    orders = asyncio.StreamReader(limit=1 << 22)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        intruder.hear(line)


if __name__ == "__main__":
    asyncio.run(main())
