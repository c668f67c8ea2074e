"""A compiled object (elf(5), 64 bit, little-endian, EM_BPF): its sections, symbols and references to maps."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from attestation.errors import InvalidInput

_HEADER = struct.Struct("<4s5B7xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_REFERENCE = struct.Struct("<QQ")
_BPF = 247
_SYMBOLS, _REFERENCES = 2, 9


@dataclass(frozen=True, slots=True)
class Section:
    """body: its bytes. link, info: what those mean is its kind's to say."""

    name: str
    kind: int
    link: int
    info: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    """section: the number of the one that it is in."""

    name: str
    section: int
    value: int


@dataclass(frozen=True, slots=True)
class Reference:
    """at: offset of the instruction in its section that is to hold the symbol's address."""

    at: int
    symbol: Symbol


@contextmanager
def parsing() -> Iterator[None]:
    """Whatever does not parse is an InvalidInput."""
    try:
        yield
    except (struct.error, ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"no object for the kernel: {error}", where="bpf") from error


class Elf:
    """Raises InvalidInput for what is no such object."""

    def __init__(self, text: bytes) -> None:
        with parsing():
            self.sections = tuple(_sections(text))
            self.symbols = tuple(self._symbols())

    def number(self, name: str) -> int:
        """Of the section of this name. Raises InvalidInput where there is none."""
        for number, section in enumerate(self.sections):
            if section.name == name:
                return number
        raise InvalidInput(f"the object has no section {name}", where="bpf")

    def body(self, name: str) -> bytes:
        return self.sections[self.number(name)].body

    def references(self, number: int) -> Iterator[Reference]:
        """Those in the section of this number."""
        with parsing():
            for section in self.sections:
                if section.kind == _REFERENCES and section.info == number:
                    for at, what in _REFERENCE.iter_unpack(section.body):
                        yield Reference(at, self.symbols[what >> 32])

    def _symbols(self) -> Iterator[Symbol]:
        for section in self.sections:
            if section.kind == _SYMBOLS:
                names = self.sections[section.link].body
                for name, _, _, where, value, _ in _SYMBOL.iter_unpack(section.body):
                    yield Symbol(text_at(names, name), where, value)


def text_at(table: bytes, offset: int) -> str:
    """The string that begins there, in a table of strings that end in zeros."""
    return table[offset : table.index(b"\0", offset)].decode()


def _sections(text: bytes) -> Iterator[Section]:
    magic, width, order, *_, machine, _, _, _, start, _, _, _, _, size, count, names = _HEADER.unpack_from(text)
    if (magic, width, order, machine, size) != (b"\x7fELF", 2, 1, _BPF, _SECTION.size):
        raise ValueError("another format or machine")
    found = [_SECTION.unpack_from(text, start + number * size) for number in range(count)]
    table = _body(text, found[names])
    for each in found:
        name, kind, _, _, _, _, link, info, _, _ = each
        yield Section(text_at(table, name), kind, link, info, _body(text, each))


def _body(text: bytes, section: tuple[int, ...]) -> bytes:
    return text[section[4] : section[4] + section[5]]
