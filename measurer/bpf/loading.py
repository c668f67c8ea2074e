"""From a compiled object to programs in the kernel, one by one, so that one that is refused takes no other along.

What this needs of libbpf's work is little, because the object asks for little: no linking, no global variables, and the
kernel relocates fields itself (Linux 5.17).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import struct
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from measurer.bpf import calls
from measurer.bpf.btf import Btf
from measurer.bpf.elf import Elf

_INSTRUCTION = struct.Struct("<BBhi")
_MAP_BY_DESCRIPTOR = 1
_TYPEDEF = 8
_FIND = "syscall/find"
_QUESTION = struct.Struct("=64sIIq")
"""Of the program that finds a type of the kernel's by its name: name, kind, nothing, answer."""
_TRACEPOINT = "tp_btf/"
_AROUND: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "sock_create": (calls.CGROUP_SOCK, 2),
        "connect4": (calls.CGROUP_SOCK_ADDR, 10),
        "connect6": (calls.CGROUP_SOCK_ADDR, 11),
        "sendmsg4": (calls.CGROUP_SOCK_ADDR, 14),
        "sendmsg6": (calls.CGROUP_SOCK_ADDR, 15),
    }
)
"""Those that are attached at a control group, by the last part of their section: kind of program, and where it is
attached (linux/bpf.h)."""


NAMED = "proofbeat_"
"""What the names begin with of those that are attached at a control group, so that what was left there is found."""


def attached_as(section: str) -> int:
    """BPF_CGROUP_: what such a program is asked for."""
    return _AROUND[_last(section)][1]


def verified(path: Path) -> bytes:
    """An object. Raises OSError for one that nobody compiled from the source beside it."""
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != path.with_suffix(".o.sha256").read_text().partition(" ")[0]:
        raise OSError(errno.EBADMSG, f"{path.name} is not what was compiled from its source")
    return text


class Loaded:
    """What an object came to. Closing it takes all away again.

    maps, programs: descriptors by name, and by section. refused: why which section's program could not be loaded.
    """

    def __init__(self, text: bytes, sections: tuple[str, ...], sizes: Mapping[str, int]) -> None:
        """sections: the programs that are wanted first. sizes: most entries of maps that are not as the object says.

        Raises InvalidInput, and OSError where nothing of it can be had.
        """
        elf = Elf(text)
        self._elf, self._btf = elf, Btf(elf)
        self.maps: dict[str, int] = {}
        self.refused: dict[str, OSError] = {}
        self.programs: dict[str, int] = {}
        with ExitStack() as held:
            self._types = calls.load_types(self._btf.loadable)
            held.callback(os.close, self._types)
            for each in self._btf.maps:
                most = sizes.get(each.name, each.max_entries)
                types = (self._types, each.key, each.value) if each.key_size else (0, 0, 0)
                self.maps[each.name] = calls.create_map(
                    each.type, each.key_size, each.value_size, most, each.flags, each.name, types
                )
                held.callback(os.close, self.maps[each.name])
            self._held = held.pop_all()
        try:
            self.load(sections)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        self._held.close()

    def load(self, sections: tuple[str, ...]) -> None:
        """These programs as well, but for those that are there, or refused, already. Raises OSError."""
        missing = [each for each in sections if each not in self.programs and each not in self.refused]
        if not missing:
            return
        finder = self._load(_FIND, calls.SYSCALL, 0, 0, calls.SLEEPABLE)
        try:
            for section in missing:
                self._try(section, finder)
        finally:
            os.close(finder)

    def attach(self, section: str) -> int:
        """Raises OSError; KeyError for one that was refused."""
        return calls.attach_raw(self.programs[section])

    def attach_around(self, section: str, group: int) -> int:
        """At a control group, whose folder this descriptor is of. Raises OSError; KeyError for one that was refused."""
        return calls.attach_around(self.programs[section], group, attached_as(section))

    def run(self, section: str) -> None:
        """Once, one of those that answer a question. Raises OSError."""
        program = self._load(section, calls.SYSCALL, 0, 0, calls.SLEEPABLE)
        try:
            calls.run(program, ctypes.create_string_buffer(_QUESTION.size))
        finally:
            os.close(program)

    def _try(self, section: str, finder: int) -> None:
        try:
            if section.startswith(_TRACEPOINT):
                target = _find(finder, "btf_trace_" + section.removeprefix(_TRACEPOINT))
                program = self._load(section, calls.TRACING, calls.TRACE_RAW_TP, target)
            else:
                program = self._load(section, *_AROUND[_last(section)], 0)
        except OSError as error:
            self.refused[section] = error
        else:
            self.programs[section] = program
            self._held.callback(os.close, program)

    def _load(self, section: str, kind: int, attach: int, target: int, flags: int = 0) -> int:
        number = self._elf.number(section)
        functions, relocations = self._btf.functions(section), self._btf.relocations(section)
        return calls.load_program(
            calls.Load(
                kind,
                _last(section) if kind in (calls.TRACING, calls.SYSCALL) else NAMED + _last(section),
                self._linked(number),
                attach,
                target,
                self._types,
                (functions.size, functions.records),
                (relocations.size, relocations.records),
                flags,
            )
        )

    def _linked(self, number: int) -> bytes:
        """The instructions of a section, with the descriptors of the maps that they name."""
        code = bytearray(self._elf.sections[number].body)
        for each in self._elf.references(number):
            opcode, registers, offset, _ = _INSTRUCTION.unpack_from(code, each.at)
            registers = registers & 0x0F | _MAP_BY_DESCRIPTOR << 4
            _INSTRUCTION.pack_into(code, each.at, opcode, registers, offset, self.maps[each.symbol.name])
        return bytes(code)


def _last(section: str) -> str:
    return section.rpartition("/")[2]


def _find(finder: int, name: str) -> int:
    """The number of a typedef among the kernel's own types. Raises OSError ENOENT where it has none of this name."""
    context = ctypes.create_string_buffer(_QUESTION.pack(name.encode(), _TYPEDEF, 0, 0), _QUESTION.size)
    calls.run(finder, context)
    answer = int(_QUESTION.unpack(context.raw)[-1])
    if answer < 0:
        raise OSError(-answer, f"{os.strerror(-answer)}: this kernel has no {name}")
    return answer
