"""An intruder beside somebody's program, as a child of its first process: does what it is sent, as Python.

It is forked from the reaper's process before the program is executed, and so has its libraries; what acts import beyond
those is imported here, while nobody is watched yet.
"""

from __future__ import annotations

import ctypes  # noqa: F401 - for acts
import json
import mmap  # noqa: F401 - as above
import os
import shutil  # noqa: F401 - as above
import signal
import socket  # noqa: F401 - as above
import struct  # noqa: F401 - as above
import subprocess  # noqa: F401 - as above
import sys
from typing import NoReturn


def wait(orders: int) -> NoReturn:
    """A line from there is an act, as JSON. Ends with whoever sends them; what an act opens stays open until then."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    kept: list[dict[str, object]] = []
    with os.fdopen(orders) as lines:
        for line in lines:
            space: dict[str, object] = {}
            kept.append(space)
            try:
                exec(json.loads(line), space)  # noqa: S102 - it is what an intruder is for
            except OSError as error:
                print(error, file=sys.stderr)
    os._exit(0)
