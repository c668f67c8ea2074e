"""What else looks at the calls of a running process: each started, waited for, and ended."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

_SETTLED = 0.7
"""Seconds in which each is attached: none of them says when."""


def _strace(pid: int) -> list[str]:
    return ["strace", "-f", "-c", "-p", str(pid)]


def _perf(pid: int) -> list[str]:
    return ["perf", "trace", "-s", "-p", str(pid)]


def _bpftrace(pid: int) -> list[str]:
    return ["bpftrace", "-e", f"tracepoint:raw_syscalls:sys_enter /pid == {pid}/ {{ @[args.id] = count(); }}"]


TRACERS: Mapping[str, Callable[[int], list[str]]] = MappingProxyType(
    {"strace": _strace, "perf": _perf, "bpftrace": _bpftrace}
)


def missing(name: str) -> str:
    """Why it cannot be run here; empty where it can."""
    return "" if shutil.which(name) else f"{name} is not installed; `make bench-tracers` brings it"


@contextmanager
def tracing(name: str, pid: int) -> Iterator[None]:
    """Counting its calls by number."""
    tracer = subprocess.Popen(TRACERS[name](pid), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(_SETTLED)
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
