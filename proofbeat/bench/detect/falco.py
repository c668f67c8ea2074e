"""In a detector's place: sees what a workload does, and raises alerts in Falco's words through the relay command.

It sees by a pipe into which whoever does something writes its pid: what a real detector's kernel part takes is not ours
to measure. From there on all is as with Falco: a program of its own, `program_output` with `keep_alive`, and JSON.
Usage: python -m proofbeat.bench.detect.falco PIPE SOCKET
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

SEEN = "seen"
RULE = "Something was done"


def alert(pid: int | None, at: datetime.datetime, rule: str = RULE, **fields: object) -> str:
    """A line as Falco writes it (attestation/detectors/falco.py names the source).

    pid: None where it has no such value. at: in UTC. fields: more output fields, whose dots are written as `_`.
    """
    moment = f"{at:%Y-%m-%dT%H:%M:%S.%f}000Z"
    said: dict[str, object] = {"container.id": "host", "evt.time": moment, "proc.pid": pid}
    said |= {name.replace("_", "."): value for name, value in fields.items()}
    what = f"{rule} (pid={pid})"
    return json.dumps(
        {
            "hostname": os.uname().nodename,
            "output": f"{at:%H:%M:%S.%f}000: Critical {what}",
            "output_fields": said,
            "priority": "Critical",
            "rule": rule,
            "source": "syscall",
            "tags": ["mitre_execution"],
            "time": moment,
        }
    )


def main() -> None:
    pipe, socket = Path(sys.argv[1]), sys.argv[2]
    command = [sys.executable, "-P", "-m", "proofbeat", "detector", "feed", "--of", "falco", "--to", socket]
    # For writing as well, so that it never ends.
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as relay, open(os.open(pipe, os.O_RDWR)) as seen:
        assert relay.stdin is not None  # noqa: S101 - it was asked for
        for line in seen:
            relay.stdin.write(alert(int(line), datetime.datetime.now(datetime.UTC)) + "\n")
            relay.stdin.flush()


if __name__ == "__main__":
    main()
