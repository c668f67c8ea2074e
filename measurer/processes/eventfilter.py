"""A filter that the kernel runs on process events, so that what nobody here asks for wakes nobody.

Classic BPF (socket(7), SO_ATTACH_FILTER). It passes forks and ends of processes but not of their threads, executions,
changes of user, new sessions, attachments, and our own change of name, which is our heartbeat; other commands' names,
core dumps and whatever a later kernel adds are left out. `rarely`, what other means tell is left out as well: there
remain changes of user, attachments and the heartbeat. A filter only ever takes away: without it everything is read and
thrown away by `connector.parse`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator

from measurer import kernel as k

_LOAD, _KEEP, _IS, _IS_KEPT, _RETURN = 0x20, 0x07, 0x15, 0x1D, 0x06
"""LD|W|ABS, MISC|TAX, JMP|JEQ|K, JMP|JEQ|X and RET|K of linux/bpf_common.h."""
_INSTRUCTION = struct.Struct("=HBBI")
_EVERY_BYTE = 0xFFFFFFFF
_WHAT = 36
"""Where proc_event.what lies, behind the heads of netlink and connector."""
_FORK_CHILD, _EXIT_PROCESS = 60, 52
_PROCESS = 56
"""Where a thread's id lies; that of its process follows."""
_RARE = (k.PROC_EVENT_PTRACE, k.PROC_EVENT_UID, k.PROC_EVENT_GID, k.PROC_EVENT_NONE)
_ALWAYS = (k.PROC_EVENT_EXEC, k.PROC_EVENT_SID, *_RARE)


def program(*, rarely: bool = False) -> bytes:
    """The filter's instructions."""
    made = _of_few(_RARE) if rarely else _instructions()
    return b"".join(_INSTRUCTION.pack(*each) for each in made)


def attach(port: socket.socket, *, rarely: bool = False) -> None:
    """Raises OSError where the kernel takes no filter."""
    instructions = program(rarely=rarely)
    held = ctypes.create_string_buffer(instructions, len(instructions))
    head = struct.pack("@HP", len(instructions) // _INSTRUCTION.size, ctypes.addressof(held))
    port.setsockopt(socket.SOL_SOCKET, k.SO_ATTACH_FILTER, head)


def _instructions() -> Iterator[tuple[int, int, int, int]]:
    """Code, jumps where it is so and where it is not (as instructions to be passed over), operand."""
    count = len(_ALWAYS)
    accept = count + 15
    yield _LOAD, 0, 0, _WHAT
    for position, what in enumerate(_ALWAYS, start=1):
        yield _IS, accept - position - 1, 0, _as_loaded(what)
    yield _IS, 5, 0, _as_loaded(k.PROC_EVENT_FORK)
    yield _IS, 8, 0, _as_loaded(k.PROC_EVENT_EXIT)
    yield _IS, 1, 0, _as_loaded(k.PROC_EVENT_COMM)
    yield _RETURN, 0, 0, 0
    yield _LOAD, 0, 0, _PROCESS
    yield _IS, 8, 9, _as_loaded(os.getpid())
    for thread, otherwise in ((_FORK_CHILD, 5), (_EXIT_PROCESS, 1)):
        yield _LOAD, 0, 0, thread
        yield _KEEP, 0, 0, 0
        yield _LOAD, 0, 0, thread + 4
        yield _IS_KEPT, otherwise - 1, otherwise, 0
    yield _RETURN, 0, 0, _EVERY_BYTE
    yield _RETURN, 0, 0, 0


def _of_few(few: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """These alone, and the heartbeat."""
    count = len(few)
    yield _LOAD, 0, 0, _WHAT
    for position, what in enumerate(few):
        yield _IS, count - position + 2, 0, _as_loaded(what)
    yield _IS, 0, 3, _as_loaded(k.PROC_EVENT_COMM)
    yield _LOAD, 0, 0, _PROCESS
    yield _IS, 0, 1, _as_loaded(os.getpid())
    yield _RETURN, 0, 0, _EVERY_BYTE
    yield _RETURN, 0, 0, 0


def _as_loaded(number: int) -> int:
    """A load takes what it finds as big-endian, and the kernel wrote it in its own order."""
    return socket.htonl(number)
