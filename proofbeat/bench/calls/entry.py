"""A program at the entry of every call that does nothing: what the kernel takes for there being any."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from measurer import kernel

_RAW_TRACEPOINT, _RAW_TRACEPOINT_OPEN = 17, 17
"""linux/bpf.h: a kind of program, and a command."""
_RETURN_ZERO = bytes.fromhex("b7000000000000009500000000000000")


@contextmanager
def empty_program() -> Iterator[None]:
    """Raises OSError where the kernel takes none."""
    program = kernel.bpf_load(_RETURN_ZERO, 0, b"nothing", _RAW_TRACEPOINT)
    try:
        where = ctypes.create_string_buffer(b"sys_enter")
        link, _ = kernel.bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI4x", ctypes.addressof(where), program))
    finally:
        os.close(program)
    try:
        yield
    finally:
        os.close(link)
