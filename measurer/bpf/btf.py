"""Types of a compiled object (BTF, Documentation/bpf/btf.rst): its maps, and what the kernel relocates fields by."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from measurer.bpf.elf import Elf, parsing, text_at

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MEMBER = struct.Struct("<III")
_ARRAY = struct.Struct("<III")
_VARIABLE = struct.Struct("<III")
_EXT = struct.Struct("<HBBIIIIIII")
_WORD = struct.Struct("<I")
_MAGIC = 0xEB9F
_INT, _POINTER, _ARRAY_KIND, _STRUCT, _UNION, _ENUM, _FUNCTION, _PROTOTYPE = 1, 2, 3, 4, 5, 6, 12, 13
_VARIABLE_KIND, _SECTION_KIND, _TAG, _ENUM64 = 14, 15, 17, 19
_PER_ENTRY = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _PROTOTYPE: 8, _SECTION_KIND: 12, _ENUM64: 12}
_FIXED = {_INT: 4, _ARRAY_KIND: 12, _VARIABLE_KIND: 4, _TAG: 4}
_MAPS = ".maps"


class _Type(NamedTuple):
    """at: where it begins among the types. size: bytes, or the number of another type."""

    at: int
    name: str
    kind: int
    entries: int
    size: int


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """As `struct { __uint(type, ..); ... } name SEC(".maps")` states it. key, value: numbers of types; 0 for none."""

    name: str
    type: int
    max_entries: int
    flags: int
    key: int
    value: int
    key_size: int
    value_size: int


@dataclass(frozen=True, slots=True)
class Told:
    """What the kernel wants to be told beside a program: records of so many bytes each."""

    size: int
    records: bytes

    @property
    def count(self) -> int:
        return len(self.records) // self.size if self.size else 0


class Btf:
    """Raises InvalidInput for what is none.

    loadable: for BPF_BTF_LOAD, with the places of variables in their sections, which the compiler leaves to a linker.
    """

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        with parsing():
            text = elf.body(".BTF")
            magic, _, _, head, types, type_bytes, strings, string_bytes = _HEADER.unpack_from(text)
            if magic != _MAGIC:
                raise ValueError("it begins otherwise")
            self._types_at, self._strings = head + types, text[head + strings :][:string_bytes]
            self._text = text
            self._types = [_Type(0, "", 0, 0, 0), *self._read(head + types, head + types + type_bytes)]
            self.maps = tuple(self._maps())
            self.loadable = self._placed()

    def _placed(self) -> bytes:
        text = bytearray(self._text)
        for each in self._types:
            if each.kind == _SECTION_KIND:
                self._place(text, each)
        return bytes(text)

    def _maps(self) -> Iterator[MapDefinition]:
        for each in self._types:
            if each.kind == _SECTION_KIND and each.name == _MAPS:
                yield from (self._map(variable) for variable, _ in self._variables(each))

    def functions(self, section: str) -> Told:
        """Which instruction begins which function (`func_info`), counted in instructions."""
        with parsing():
            size, records = self._told(section, 0)
            parts = [_WORD.pack(_WORD.unpack_from(each)[0] // 8) + each[4:] for each in _split(records, size)]
            return Told(size, b"".join(parts))

    def relocations(self, section: str) -> Told:
        """Which instructions depend on how the kernel lays its own types out (`core_relo`)."""
        with parsing():
            return Told(*self._told(section, 2))

    def _read(self, at: int, end: int) -> Iterator[_Type]:
        while at < end:
            name, info, size = _TYPE.unpack_from(self._text, at)
            kind, entries = info >> 24 & 0x1F, info & 0xFFFF
            yield _Type(at, text_at(self._strings, name), kind, entries, size)
            at += _TYPE.size + _PER_ENTRY.get(kind, 0) * entries + _FIXED.get(kind, 0)

    def _variables(self, section: _Type) -> Iterator[tuple[_Type, int]]:
        """Each with where its record is."""
        for number in range(section.entries):
            at = section.at + _TYPE.size + number * _VARIABLE.size
            yield self._types[_VARIABLE.unpack_from(self._text, at)[0]], at

    def _place(self, text: bytearray, section: _Type) -> None:
        where = self._elf.number(section.name)
        places = {each.name: each.value for each in self._elf.symbols if each.section == where}
        _WORD.pack_into(text, section.at + 8, len(self._elf.sections[where].body))
        records = []
        for variable, at in self._variables(section):
            kind, _, size = _VARIABLE.unpack_from(text, at)
            records.append((places[variable.name], kind, size))
        for number, (place, kind, size) in enumerate(sorted(records)):
            _VARIABLE.pack_into(text, section.at + _TYPE.size + number * _VARIABLE.size, kind, place, size)

    def _map(self, variable: _Type) -> MapDefinition:
        struct_of = self._types[variable.size]
        stated: dict[str, int] = {}
        for number in range(struct_of.entries):
            name, kind, _ = _MEMBER.unpack_from(self._text, struct_of.at + _TYPE.size + number * _MEMBER.size)
            stated[text_at(self._strings, name)] = self._types[kind].size  # what the member points to
        key, value = stated.get("key", 0), stated.get("value", 0)
        return MapDefinition(
            variable.name,
            self._length(stated["type"]),
            self._length(stated.get("max_entries", 0)),
            self._length(stated.get("map_flags", 0)),
            key,
            value,
            self._size(key),
            self._size(value),
        )

    def _length(self, number: int) -> int:
        """Of an array type; 0 for none."""
        return int(_ARRAY.unpack_from(self._text, self._types[number].at + _TYPE.size)[2]) if number else 0

    def _size(self, number: int) -> int:
        """Bytes of a value of this type; 0 for none."""
        if not number:
            return 0
        each = self._types[number]
        if each.kind in (_INT, _STRUCT, _UNION, _ENUM):
            return each.size
        if each.kind == _ARRAY_KIND:
            element, _, count = _ARRAY.unpack_from(self._text, each.at + _TYPE.size)
            return self._size(element) * int(count)
        if each.kind == _POINTER:
            return 8
        return self._size(each.size)  # a typedef, or const

    def _told(self, section: str, which: int) -> tuple[int, bytes]:
        """which: 0 for functions, 1 for lines, 2 for relocations, in their sequence."""
        text = self._elf.body(".BTF.ext")
        _, _, _, head, *places = _EXT.unpack_from(text)
        at, length = head + places[2 * which], places[2 * which + 1]
        if not length:
            return 0, b""
        end = at + length
        size = _WORD.unpack_from(text, at)[0]
        at += _WORD.size
        while at < end:
            name, count = struct.unpack_from("<II", text, at)
            at += 8
            if text_at(self._strings, name) == section:
                return size, text[at : at + size * count]
            at += size * count
        return size, b""


def _split(records: bytes, size: int) -> list[bytes]:
    return [records[at : at + size] for at in range(0, len(records), size)] if size else []
