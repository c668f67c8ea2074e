"""Programs that start and end elsewhere on the host: what measuring hears of them, and what they are held up by it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_START = """
import os, sys, time
pause = float(sys.argv[1])
while True:
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    time.sleep(pause)
"""
_TIMED = """
import os, resource, sys
def ran():
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
for _ in range(int(sys.argv[1])):
    began = ran()
    for _ in range(int(sys.argv[2])):
        os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    print((ran() - began) / int(sys.argv[2]) * 1e3)
"""
_A_BATCH = 20


@contextmanager
def starting(a_second: float) -> Iterator[None]:
    """So many programs start and end a second, about."""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _START, str(1 / a_second)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def timed(batches: int) -> list[float]:
    """Milliseconds of CPU that starting and ending a program takes, a mean of some at a time.

    CPU and not time: what a program waits for is up to whatever else the machine does.
    """
    command = [sys.executable, "-I", "-S", "-c", _TIMED, str(batches), str(_A_BATCH)]
    return [float(each) for each in subprocess.run(command, capture_output=True, check=True).stdout.split()]
