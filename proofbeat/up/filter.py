"""A seccomp filter that lets through what is listed and has us asked for all else (seccomp(2), linux/seccomp.h)."""

from __future__ import annotations

import ctypes
import platform
import struct
from collections.abc import Iterable, Iterator

from attestation import calls
from attestation.errors import Unavailable
from measurer import kernel as k

_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_LOAD, _IS, _IS_AT_LEAST, _IS_ABOVE, _RETURN = 0x20, 0x15, 0x35, 0x25, 0x06
"""linux/bpf_common.h: BPF_LD|W|ABS, BPF_JMP with JEQ, JGE and JGT, BPF_RET."""
_INSTRUCTION = struct.Struct("=HBBI")
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_PR_SET_NO_NEW_PRIVS = 38


def compiled(allowed: Iterable[str], machine: str) -> bytes:
    """Of this machine's own interface; calls by its older ones are always asked for. Raises Unavailable."""
    architecture, table = _ARCHITECTURES.get(machine), calls.TABLES.get(machine)
    if architecture is None or table is None:
        raise Unavailable(f"no filter can be made for {machine}", where="seccomp")
    code = [
        _INSTRUCTION.pack(_LOAD, 0, 0, _ARCHITECTURE_AT),
        _INSTRUCTION.pack(_IS, 1, 0, architecture),
        _INSTRUCTION.pack(_RETURN, 0, 0, _NOTIFY),
        _INSTRUCTION.pack(_LOAD, 0, 0, _NUMBER_AT),
    ]
    for first, last in _ranges(sorted(table[name] for name in set(allowed) if name in table)):
        code += [
            _INSTRUCTION.pack(_IS_AT_LEAST, 1, 0, first),
            _INSTRUCTION.pack(_RETURN, 0, 0, _NOTIFY),
            _INSTRUCTION.pack(_IS_ABOVE, 1, 0, last),
            _INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW),
        ]
    return b"".join([*code, _INSTRUCTION.pack(_RETURN, 0, 0, _NOTIFY)])


def stand_under(code: bytes) -> int:
    """Put this thread, and all that it begins, under the filter. Returns the listener, which is closed on execution.

    Where the kernel wants that of who may not administer, no_new_privs is set: what is executed gains nothing any more.
    Raises OSError: EBUSY where we stand under a filter with a listener already.
    """
    text = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // _INSTRUCTION.size, ctypes.addressof(text)))
    try:
        return k.seccomp(_SET_MODE_FILTER, _NEW_LISTENER, program)
    except PermissionError:
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return k.seccomp(_SET_MODE_FILTER, _NEW_LISTENER, program)


def here(allowed: Iterable[str]) -> bytes:
    """As `compiled`, for this machine."""
    return compiled(allowed, platform.machine())


def _ranges(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Of ascending numbers: the first and last of each run."""
    first = last = -2
    for each in numbers:
        if each != last + 1:
            if last >= 0:
                yield first, last
            first = each
        last = each
    if last >= 0:
        yield first, last
