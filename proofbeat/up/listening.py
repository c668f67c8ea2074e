"""Where a program listens: asked of the kernel, by the sockets among its processes' descriptors (proc(5))."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InvalidInput, Unavailable
from proofbeat.up.descendants import descendants

_LISTEN = "0A"
_ACCEPTS = 1 << 16
"""__SO_ACCEPTCON in the flags of /proc/net/unix."""
_LOOK_EVERY = 0.05
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A TCP port, and the address on which it is reached from this machine."""

    number: int
    host: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.number}" if ":" in self.host else f"{self.host}:{self.number}"


async def port(parent: int, wanted: int | None, *, within: float) -> Port:
    """Where a descendant of this process listens, as soon as one does. wanted: on this port number.

    Raises Unavailable, and InvalidInput as `only`.
    """
    try:
        async with asyncio.timeout(within):
            while True:
                if found := wished(now(parent), wanted):
                    return only(found)
                # The kernel tells nobody that a socket begins to listen.
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError as error:
        raise _silent(parent, wanted, within) from error


def wished(found: Sequence[Port], wanted: int | None) -> list[Port]:
    return [each for each in found if wanted in (None, each.number)]


def only(found: Sequence[Port]) -> Port:
    """Raises InvalidInput where these are several ports."""
    if len({each.number for each in found}) > 1:
        raise InvalidInput(
            f"your program listens on {', '.join(map(str, found))}",
            where="--port",
            mend=f"Say which one it is called on: --port {found[0].number}",
        )
    return found[0]


def now(parent: int) -> tuple[Port, ...]:
    """The TCP ports of all that descends from this process, at this moment."""
    found: set[Port] = set()
    inodes = _inodes(parent)
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            found |= listening(Path(f"/proc/{parent}/net/{table}").read_text(), inodes)
    return tuple(sorted(found))


def listening(table: str, inodes: set[str]) -> set[Port]:
    """The ports of these sockets in a table like /proc/net/tcp; a wildcard is reached by loopback."""
    found = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTEN and words[9] in inodes:
            address, _, port = words[1].partition(":")
            found.add(Port(int(port, 16), _reached(address)))
    return found


def listening_locally(table: str, inodes: set[str]) -> list[str]:
    """The paths of these sockets in a table like /proc/net/unix, as far as they accept connections."""
    rows = (line.split(None, 7) for line in table.splitlines()[1:])
    return sorted(row[7] for row in rows if len(row) > 7 and int(row[3], 16) & _ACCEPTS and row[6] in inodes)


def _silent(parent: int, wanted: int | None, within: float) -> Unavailable:
    """What there is instead of what was waited for."""
    there, inodes = [str(each) for each in now(parent)], _inodes(parent)
    with suppress(OSError):
        there += listening_locally(Path(f"/proc/{parent}/net/unix").read_text(), inodes)
    asked = "any TCP port" if wanted is None else f"TCP port {wanted}"
    return Unavailable(
        f"your program does not listen on {asked} after {within:g} s{', but on ' + ', '.join(there) if there else ''}",
        where="proofbeat up",
        mend="Give it more time with --wait, or a command that serves TCP.",
    )


def _reached(address: str) -> str:
    """The kernel writes an address as 32-bit words of its own byte order."""
    raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    parsed = ipaddress.ip_address(raw)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    if parsed.is_unspecified:
        return "127.0.0.1" if parsed.version == 4 else "::1"
    return str(parsed)


def _inodes(parent: int) -> set[str]:
    return {inode for each in descendants(parent) for inode in _sockets(each)}


def _sockets(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if match := _SOCKET.fullmatch(str(entry.readlink())):
                    found.append(match[1])
    return found
