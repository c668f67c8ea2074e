"""Rules evaluated in a process of its own, with limits that the kernel holds.

What passes the check at load ends in time by itself. Whoever tries out policies of others need not believe that.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from attestation import strictjson
from attestation.errors import InvalidInput
from attestation.plain import build, plain
from policies.appraise.rules import Outcome, evaluate
from policies.model.rules import Rule
from policies.model.seen import Summary


@dataclass(frozen=True, slots=True)
class Limits:
    """cpu, wall: seconds. memory: bytes beyond what the process has at its beginning."""

    cpu: int = 1
    wall: float = 5.0
    memory: int = 256 * 1024 * 1024


LIMITS = Limits()
_STDERR = 2
_OUT_OF_MEMORY = 3


def evaluate_confined(rules: Mapping[str, Rule], summary: Summary, limits: Limits = LIMITS) -> Sequence[Outcome]:
    """As policies.appraise.rules.evaluate. Where a limit is met, none of the rules could be evaluated."""
    forking = multiprocessing.get_context("fork")
    receiving, sending = forking.Pipe(duplex=False)
    child = forking.Process(target=_evaluate, args=(sending, rules, summary, limits), daemon=True)
    child.start()
    sending.close()
    try:
        if not receiving.poll(limits.wall):
            return _stopped(rules, f"it took more than {limits.wall:g} s")
        return build(tuple[Outcome, ...], strictjson.loads(receiving.recv_bytes()), where="confined rules")
    except (EOFError, OSError, InvalidInput):
        child.join(limits.wall)
        return _stopped(rules, _why(child.exitcode, limits))
    finally:
        receiving.close()
        child.kill()
        child.join()


def _evaluate(sending: Connection, rules: Mapping[str, Rule], summary: Summary, limits: Limits) -> None:
    # What it dies of its parent tells.
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + limits.memory
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu, limits.cpu + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sending.send_bytes(json.dumps(plain(tuple(evaluate(rules, summary)))).encode())
    except MemoryError:
        sys.exit(_OUT_OF_MEMORY)


def _why(exit_code: int | None, limits: Limits) -> str:
    if exit_code == -signal.SIGXCPU:
        return f"it took more than {limits.cpu} s of CPU time"
    if exit_code in (_OUT_OF_MEMORY, -signal.SIGABRT):  # the library aborts where it gets none
        return f"it took more than {limits.memory >> 20} MiB"
    if exit_code is not None and exit_code < 0:
        return f"its process ended by {signal.Signals(-exit_code).name}"
    return f"its process ended with {exit_code}"


def _stopped(rules: Mapping[str, Rule], fault: str) -> Sequence[Outcome]:
    return [Outcome(name, False, fault) for name in sorted(rules)]
