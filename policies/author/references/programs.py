"""What the kernel executes besides, when it executes a file: a script's interpreter, a program's loader."""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestation import elf

HEAD = 64 * 1024
"""Bytes from the beginning that are looked at: headers and the loader's name lie in the first few kilobytes."""

_MOST_LINE = 256
"""Bytes of a script's first line that the kernel looks at (BINPRM_BUF_SIZE)."""


@dataclass(frozen=True, slots=True)
class Program:
    """A file that may be executed. loader: PT_INTERP, as the file says it. interpreter: of a script, with its argument.

    hidden: where the loader's name stands is not known.
    """

    loader: str = ""
    interpreter: tuple[str, ...] = ()
    hidden: bool = False


class _Hidden(Exception):
    pass


def program(head: bytes, size: int) -> Program:
    """head: HEAD bytes, or all where there are fewer. size: of the whole file."""
    if head[:2] == b"#!":
        line = head[2:_MOST_LINE].partition(b"\n")[0].decode("utf-8", "surrogateescape")
        return Program(interpreter=tuple(re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1)))

    def read(count: int, offset: int) -> bytes:
        if offset < size and min(offset + count, size) > len(head):
            raise _Hidden
        return head[offset : offset + count]

    try:
        return Program(loader=elf.interpreter(read))
    except _Hidden:
        return Program(hidden=True)
