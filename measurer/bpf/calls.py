"""bpf(2), and what our programs need of it (linux/bpf.h). Every call raises OSError with the kernel's errno.

Descriptors are close-on-exec: the kernel makes all of bpf(2)'s so.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from dataclasses import dataclass

from measurer import kernel

# linux/bpf.h
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE = 0, 1, 2, 3
_PROG_LOAD, _TEST_RUN, _RAW_TRACEPOINT_OPEN, _BTF_LOAD, _LINK_CREATE = 5, 10, 17, 18, 28
TRACING, SYSCALL = 26, 31
CGROUP_SOCK, CGROUP_SOCK_ADDR = 9, 18
TRACE_RAW_TP = 23
SLEEPABLE = 1 << 4
ANY, NEW = 0, 1
"""Whether a key that has a value already is given another one, or refused (EEXIST)."""
_LOG_BYTES, _NAME_BYTES = 1 << 16, 15

_LOAD = struct.Struct("<IIQQIIQII16sIIIIQIIQIIIIQQIIi")
_CREATE = struct.Struct("<IIIIIII16sIIIIIQ")


def _bpf(command: int, attributes: bytes) -> int:
    return kernel.bpf(command, attributes)[0]


def create_map(
    kind: int, key: int, value: int, entries: int, flags: int, name: str, types: tuple[int, int, int]
) -> int:
    """key, value: bytes each. types: descriptor of the loaded BTF, and the numbers of both their types."""
    return _bpf(_MAP_CREATE, _CREATE.pack(kind, key, value, entries, flags, 0, 0, _named(name), 0, *types, 0, 0))


def load_types(types: bytes) -> int:
    """BPF_BTF_LOAD."""
    text = ctypes.create_string_buffer(types, len(types))
    return _bpf(_BTF_LOAD, struct.pack("<QQII", _at(text), 0, len(types), 0))


@dataclass(frozen=True, slots=True)
class Load:
    """kind: a BPF_PROG_TYPE_. attach: a BPF_ attach type, 0 for none. target: number of what it is attached to among
    the kernel's own types. types: descriptor of the loaded BTF. functions, relocations: size of a record, and those.
    """

    kind: int
    name: str
    code: bytes
    attach: int
    target: int
    types: int
    functions: tuple[int, bytes]
    relocations: tuple[int, bytes]
    flags: int = 0


def load_program(load: Load) -> int:
    """BPF_PROG_LOAD. Where the verifier refuses, the error's text ends with the last line of what it says."""
    code, terms = _buffer(load.code), _buffer(b"GPL\0")
    functions, relocations = _buffer(load.functions[1]), _buffer(load.relocations[1])

    def attempt(log: ctypes.Array[ctypes.c_char] | None) -> int:
        return _bpf(
            _PROG_LOAD,
            _LOAD.pack(
                *(load.kind, len(load.code) // 8, _at(code), _at(terms)),
                *(0 if log is None else 1, 0 if log is None else _LOG_BYTES, _at(log), 0, load.flags),
                *(_named(load.name), 0, load.attach, load.types),
                *(load.functions[0], _at(functions), _count(load.functions), 0, 0, 0),
                *(load.target, 0, _count(load.relocations), 0, _at(relocations), load.relocations[0], 0, 0),
            ),
        )

    try:
        return attempt(None)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES, errno.E2BIG):
            raise
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return attempt(log)
        except OSError as again:
            said = [line for line in log.value.decode("utf-8", "replace").splitlines() if line.strip()]
            raise OSError(again.errno, f"{again.strerror}: {_telling(said)}") from None


def attach_raw(program: int) -> int:
    """BPF_RAW_TRACEPOINT_OPEN of a program that was loaded for one: runs until the descriptor is closed."""
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program))


def attach_around(program: int, group: int, attach: int) -> int:
    """BPF_LINK_CREATE at a control group: runs for it and all below it until the descriptor is closed."""
    return _bpf(_LINK_CREATE, struct.pack("<IIII", program, group, attach, 0))


def run(program: int, context: ctypes.Array[ctypes.c_char]) -> None:
    """BPF_PROG_TEST_RUN of a SYSCALL program, which changes its context."""
    size = len(context)
    _bpf(_TEST_RUN, struct.pack("<IIIIQQIIIIQQ", program, 0, 0, 0, 0, 0, 0, 0, size, 0, _at(context), 0))


def update(map_: int, key: bytes, value: bytes, flags: int = ANY) -> None:
    keyed, valued = _buffer(key), _buffer(value)
    _bpf(_MAP_UPDATE, struct.pack("<IxxxxQQQ", map_, _at(keyed), _at(valued), flags))


def lookup(map_: int, key: bytes, size: int) -> bytes:
    """The value, of so many bytes. Raises OSError ENOENT where there is none."""
    keyed, valued = _buffer(key), ctypes.create_string_buffer(size)
    _bpf(_MAP_LOOKUP, struct.pack("<IxxxxQQQ", map_, _at(keyed), _at(valued), 0))
    return valued.raw


def remove(map_: int, key: bytes) -> None:
    keyed = _buffer(key)
    _bpf(_MAP_DELETE, struct.pack("<IxxxxQQQ", map_, _at(keyed), 0, 0))


def _buffer(text: bytes) -> ctypes.Array[ctypes.c_char] | None:
    return ctypes.create_string_buffer(text, len(text)) if text else None


def _at(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


def _count(told: tuple[int, bytes]) -> int:
    return len(told[1]) // told[0] if told[0] else 0


def _named(name: str) -> bytes:
    return name.encode()[:_NAME_BYTES]


def _telling(said: list[str]) -> str:
    """The verifier's last line is statistics, and the one before it what it does not like."""
    words = [line for line in said if not line.startswith(("processed ", "verification time", "stack depth"))]
    return words[-1] if words else "it says nothing"
