"""The edge of every program: one event loop, one task for the program, signals, and exit codes.

0 done, 1 the answer is no or the program could not go on, 2 usage or bad input, 141 nobody reads stdout any more.
Whatever goes wrong is one line on stderr that says what, where and how to mend it; only a fault of our own shows a
traceback.
"""

from __future__ import annotations

import asyncio
import ctypes
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

from attestation.errors import InvalidInput, ProofbeatError, Unavailable
from proofbeat.output import Output, standard
from telemetry.redaction import safe

DONE, NO, USAGE = 0, 1, 2
UNREAD = 128 + signal.SIGPIPE
"""As a shell has it of a program that a closed pipe has ended."""

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def run(program: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Runs the program until it returns, fails, or SIGINT, SIGTERM or the end of who reads stdout asks it to end.

    Returns the exit code.
    """
    output, code = None, DONE
    try:
        with standard() as output:
            asyncio.run(_until_signalled(program, output))
    except BaseExceptionGroup as group:
        code = _explain(next(_causes(group)))
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the process edge: everything ends here, explained
        code = _explain(error)
    return code or _unwritten(output.lost if output is not None else None)


def harden() -> None:
    """No core dump and no tracer of our own user: keys live in this process (prctl(2), PR_SET_DUMPABLE).

    Raises Unavailable where the kernel does not grant it, as under a system-call filter of somebody else's.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = ctypes.CDLL(None).prctl
    if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 or prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise Unavailable(
            "this process cannot be kept from being traced and dumped",
            where="prctl(PR_SET_DUMPABLE)",
            mend="Allow prctl(2) in the sidecar's system-call filter.",
        )


async def _until_signalled(program: Callable[[], Coroutine[Any, Any, None]], output: Output | None) -> None:
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    end = partial(loop.call_soon_threadsafe, ending.set)
    with nullcontext() if output is None else output.calling(end):
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(program(), name="program")
            watching = tasks.create_task(_cancel_when(ending, running), name="signals")
            running.add_done_callback(lambda _: watching.cancel())


async def _cancel_when(ending: asyncio.Event, running: asyncio.Task[None]) -> None:
    await ending.wait()
    running.cancel()


def _causes(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """What failed, errors we raised on purpose first: the rest are often only their consequences."""
    flat = list(_flatten(group))
    yield from sorted(flat, key=lambda error: not isinstance(error, ProofbeatError))


def _flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _flatten(inner)
    else:
        yield error


def _unwritten(lost: OSError | None) -> int:
    if lost is None:
        return DONE
    if isinstance(lost, BrokenPipeError):
        return UNREAD
    return _explain(Unavailable(f"what is printed cannot be written: {lost.strerror}", where="stdout"))


def _explain(error: BaseException) -> int:
    with suppress(BrokenPipeError):  # who read stderr may be gone as well
        for line in _lines(error):
            print(line, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return USAGE if isinstance(error, InvalidInput) else NO


def _lines(error: BaseException) -> Iterator[str]:
    if isinstance(error, ProofbeatError):
        yield f"proofbeat: {error.sentence}"
    elif not isinstance(error, KeyboardInterrupt):
        for part in traceback.format_exception(error):
            yield from map(safe, part.splitlines())
