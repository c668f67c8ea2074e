"""Where a program listens: asked of the kernel, by the sockets among its processes' descriptors (proc(5))."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import InvalidInput, Unavailable

_LISTEN = "0A"
_LOOK_EVERY = 0.05
_SOCKET = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A TCP port, and the address on which it is reached from this machine."""

    number: int
    host: str

    def __str__(self) -> str:
        return f"[{self.host}]:{self.number}" if ":" in self.host else f"{self.host}:{self.number}"


async def port(pid: int, wanted: int | None, *, within: float) -> Port:
    """Where the process or a descendant listens, as soon as it does. wanted: on this port number.

    Raises Unavailable, and InvalidInput where it listens on several and none is wanted.
    """
    try:
        async with asyncio.timeout(within):
            while True:
                if not _runs(pid):
                    raise Unavailable("the program ended before it listened", where=f"pid {pid}")
                found = [port for port in now(pid) if wanted in (None, port.number)]
                if found:
                    return _only(found)
                # The kernel tells nobody that a socket begins to listen.
                await asyncio.sleep(_LOOK_EVERY)
    except TimeoutError as error:
        raise Unavailable(
            f"the program listens on no TCP port after {within:g} s",
            where=f"pid {pid}",
            mend="Give it more time with --wait, or a command that serves.",
        ) from error


def _only(found: list[Port]) -> Port:
    if len({port.number for port in found}) > 1:
        raise InvalidInput(
            f"the program listens on {', '.join(map(str, found))}",
            where="proofbeat up",
            mend=f"Say which port it is called on: --port {found[0].number}",
        )
    return found[0]


def now(pid: int) -> tuple[Port, ...]:
    """What they listen on at this moment."""
    inodes = {inode for each in _tree(pid) for inode in _sockets(each)}
    found = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            found |= listening(Path(f"/proc/{pid}/net/{table}").read_text(), inodes)
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


def _reached(address: str) -> str:
    """The kernel writes an address as 32-bit words of its own byte order."""
    raw = b"".join(bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8))
    parsed = ipaddress.ip_address(raw)
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    if parsed.is_unspecified:
        return "127.0.0.1" if parsed.version == 4 else "::1"
    return str(parsed)


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _tree(pid: int) -> list[int]:
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _sockets(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if match := _SOCKET.fullmatch(str(entry.readlink())):
                    found.append(match[1])
    return found
