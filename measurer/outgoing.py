"""What a workload's processes have open to elsewhere, and opened themselves: what is ended when its egress is cut."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator

from attestation.facts import Opened
from measurer.connections import Connection, Connections, Takers, parse
from measurer.processes.descriptors import open_descriptors, sockets_in
from measurer.processes.held import Held

_AT_ONCE = 64
"""Sockets, or descriptors, of a step."""
Answer = tuple[str, bytes]
"""One socket, with its protocol, as the kernel writes it."""


def outgoing(network: Connections, held: Iterable[Held]) -> Generator[None, None, list[Answer]]:
    """Of TCP and UDP. held: the processes. Raises OSError, PermissionError where one of them stays hidden."""
    takers, found = Takers(), list[tuple[Connection, Answer]]()
    for number, (protocol, body) in enumerate(network.each()):
        if number % _AT_ONCE == 0:
            yield
        each = parse(body, protocol)
        if each is not None and each.takes:
            takers.add(each)
        elif each is not None and not each.home and each.inode:
            found.append((each, (protocol, body)))
    own = set[int]()
    for process in held if found else ():
        for inode in _sockets(process):
            own.add(inode)
            if len(own) % _AT_ONCE == 0:
                yield
        yield
    return [answer for each, answer in found if each.inode in own and takers.judge(each).opened is not Opened.THERE]


def _sockets(process: Held) -> Iterator[int]:
    folder = process.read(open_descriptors)
    if folder is None:
        if process.lives():
            raise PermissionError(0, f"the descriptors of process {process.pid} may not be read")
        return
    try:
        yield from sockets_in(folder)
    except (ProcessLookupError, FileNotFoundError):
        return  # it has ended
    finally:
        os.close(folder)
