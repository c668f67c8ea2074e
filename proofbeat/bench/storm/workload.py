"""What makes the storms. Usage: workload.py FOLDER; a line on stdin, `files COUNT` or `executions COUNT`, is one storm.

The standard library alone. It answers each with the seconds that it took, as JSON.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def files(folder: Path, count: int) -> None:
    """So many new files, each written once."""
    number = len(list(folder.iterdir()))
    for each in range(number, number + count):
        with (folder / str(each)).open("w") as file:
            file.write(str(each))


def executions(folder: Path, count: int) -> None:
    """So many short programs, one after the other."""
    program = str(folder.parent / "program")
    for _ in range(count):
        os.waitpid(os.posix_spawn(program, [program], {}), 0)


STORMS: dict[str, Callable[[Path, int], None]] = {"files": files, "executions": executions}


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        kind, count = line.split()
        began = time.monotonic()
        STORMS[kind](folder, int(count))
        print(json.dumps(time.monotonic() - began), flush=True)


if __name__ == "__main__":
    main()
