"""One process, looked into once: what it can execute, and which of it is not what its files hold."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from attestation.memory import Code, CodeKind, rounded
from measurer.memory.mapped import Mapped
from measurer.memory.mappings import Mapping, executable
from measurer.memory.pages import PAGE, How, Pages, only_breakpoints
from measurer.processes.held import Held

_MACHINE = os.uname().machine
_MOST_PAGES = 64
"""Pages of one mapping that are told as patched; whoever patches more has been told."""
_PAGES_A_STEP = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """code: with the executable that each is of. how: the way in which its pages were told apart. uprobes: the kernel
    has put something there for breakpoints of its own. refusal: why nothing could be seen, empty where it could.
    """

    code: frozenset[Code] = frozenset()
    how: How = How.SCAN
    uprobes: bool = False
    refusal: str = ""


def looked(process: Held, mapped: Mapped) -> Generator[None, None, Seen | None]:
    """None where it is gone, or has nothing yet. What is found patched was found twice.

    Between reading where things are and reading them a process may have executed something else, or have mapped
    another thing there.
    """
    seen = yield from _looked(process, mapped)
    patched = frozenset(each for each in seen.code if each.kind in _ALTERED) if seen is not None else frozenset()
    if seen is None or not patched:
        return seen
    again = yield from _looked(process, mapped)
    if again is None:
        return None
    gone = frozenset(each for each in again.code if each.kind in _ALTERED and each not in patched)
    return Seen(again.code - gone, again.how, again.uprobes, again.refusal)


_ALTERED = frozenset({CodeKind.PATCHED, CodeKind.PROBED})


def _looked(process: Held, mapped: Mapped) -> Generator[None, None, Seen | None]:
    opened = process.read(_open)
    if opened is None:
        return None
    if isinstance(opened, str):
        return Seen(refusal=opened)
    mappings, pages = opened
    try:
        if not mappings:
            return None
        path = process.executable()
        code = {*_without_file(mappings, path)}
        for each in mappings:
            if each.of_a_file and not each.pathless:
                code |= yield from _of_file(process, each, path, mapped, pages)
            elif each.name == b"[vdso]" and pages.how is not How.COMPARISON:  # there is no file of it
                code.update(Code(CodeKind.PATCHED, path, "[vdso]", offset=at - each.start) for at in pages.own(each))
            yield
    except OSError:  # it has ended
        return None
    finally:
        pages.close()
    return Seen(frozenset(code), pages.how, any(each.name.startswith(b"[uprobes") for each in mappings))


def _open(folder: int) -> tuple[list[Mapping], Pages] | str:
    try:
        return executable(folder), Pages(folder)
    except PermissionError as error:
        return error.strerror or "it may not be looked into"


def _without_file(mappings: list[Mapping], path: str) -> Iterator[Code]:
    """All of a kind is one thing: a compiler makes it in as many pieces as it likes."""
    loose = [each for each in mappings if not each.of_the_kernel and (each.pathless or not each.of_a_file)]
    for kind, pathless in ((CodeKind.ANONYMOUS, False), (CodeKind.MEMFD, True)):
        of_kind = [each for each in loose if each.pathless is pathless]
        if of_kind:
            amount, writable = sum(each.end - each.start for each in of_kind), any(each.writable for each in of_kind)
            yield Code(kind, path, writable=writable, deleted=pathless, amount=rounded(amount))


def _of_file(
    process: Held, mapping: Mapping, path: str, mapped: Mapped, pages: Pages
) -> Generator[None, None, set[Code]]:
    digest, deleted = yield from mapped.digest(process, mapping)
    file = mapped.path(mapping)
    whose = path if mapping.writable else ""
    found = {Code(CodeKind.FILE, whose, file, digest, mapping.writable, deleted)}
    descriptor = -1
    try:
        for number, at in enumerate(pages.own(mapping)):
            if descriptor < 0:
                descriptor = mapped.open(process, mapping)
            offset = mapping.offset + at - mapping.start
            kind = _altered(at, offset, descriptor, pages)
            if kind is not None and _still_there(process, mapping, at, offset):
                found.add(Code(kind, path, file, digest, offset=offset))
            if len(found) > _MOST_PAGES:
                break
            if number % _PAGES_A_STEP == _PAGES_A_STEP - 1:
                yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return found


def _still_there(process: Held, mapping: Mapping, at: int, offset: int) -> bool:
    """Was that page the file's, and not one of what was mapped in its place meanwhile?"""
    return any(
        each.start <= at < each.end
        and (each.device, each.inode, each.offset + at - each.start) == (mapping.device, mapping.inode, offset)
        for each in process.read(executable) or ()
    )


def _altered(at: int, offset: int, descriptor: int, pages: Pages) -> CodeKind | None:
    """What a page of the process's own is. One that holds what the file holds was put back, or was never another."""
    there = pages.read(at)
    if not there or descriptor < 0:
        unseen = pages.how is How.COMPARISON or (pages.readable and not there)
        return None if unseen else CodeKind.PATCHED
    file = os.pread(descriptor, PAGE, offset).ljust(PAGE, b"\0")
    if there == file:
        return None
    return CodeKind.PROBED if only_breakpoints(there, file, _MACHINE) else CodeKind.PATCHED
