"""Where a workload may connect to, as policies say it and the measurer compares it: `10.0.0.0/8:5432`.

An address or a CIDR, then a port or a range of ports, then a protocol, of which only the first is needed:
`192.0.2.7`, `10.0.0.0/8:8000-8100`, `10.0.0.53:53/udp`, `[2001:db8::/32]:443`. What is left out may be anything.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from attestation.errors import InvalidInput

TCP, UDP = "tcp", "udp"
_FORM = re.compile(
    r"(?P<six>[0-9a-f:]{2,39}(?:/\d{1,3})?)"
    r"|(?:(?P<four>\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?)|\[(?P<inside>[0-9a-f:]{2,39}(?:/\d{1,3})?)\])"
    r"(?::(?P<low>[1-9]\d{0,4})(?:-(?P<high>[1-9]\d{0,4}))?)?(?:/(?P<protocol>tcp|udp))?",
    re.ASCII,
)
_MOST_PORT = 65_535
_BITS = {4: 32, 6: 128}
_MEND = "Written like 10.0.0.0/8:5432, [2001:db8::/32]:443 or 10.0.0.53:53/udp, as short as can be."
_MAPPED = ipaddress.ip_network("::ffff:0:0/96")


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A block of addresses, a range of ports, and one protocol or, where empty, any.

    version: of IP. first: the block's first address, as a number. length: of its prefix.
    """

    version: int
    first: int
    length: int
    low: int = 1
    high: int = _MOST_PORT
    protocol: str = ""

    def holds(self, version: int, address: int, port: int, protocol: str) -> bool:
        """Is this address, as a number, with this port one of these?"""
        return (
            self.version == version
            and self.low <= port <= self.high
            and self.protocol in ("", protocol)
            and (address ^ self.first) >> (_BITS[version] - self.length) == 0
        )

    def meet(self, other: Destination) -> Destination | None:
        """What is in both: of two blocks one lies in the other, or they have nothing in common."""
        wide, narrow = sorted((self, other), key=lambda each: each.length)
        low, high = max(self.low, other.low), min(self.high, other.high)
        protocols = {self.protocol, other.protocol} - {""}
        if not wide.holds(narrow.version, narrow.first, wide.low, wide.protocol) or low > high or len(protocols) > 1:
            return None
        return Destination(narrow.version, narrow.first, narrow.length, low, high, "".join(protocols))

    def covers(self, other: Destination) -> bool:
        return self.meet(other) == other

    def __str__(self) -> str:
        whole = self.length == _BITS[self.version]
        host = str(ipaddress.ip_address(self.first.to_bytes(_BITS[self.version] // 8, "big")))
        block = host if whole else f"{host}/{self.length}"
        every = (self.low, self.high) == (1, _MOST_PORT)
        ports = "" if every else f":{self.low}" if self.low == self.high else f":{self.low}-{self.high}"
        shown = f"[{block}]" if self.version == 6 and (ports or self.protocol) else block
        return f"{shown}{ports}{f'/{self.protocol}' if self.protocol else ''}"


def parse(text: str) -> Destination:
    """Raises InvalidInput for what has no such form, and for an address with bits beyond its prefix."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InvalidInput(f"{text[:64]!r} is no address with ports", where="destination", mend=_MEND)
    try:
        network = ipaddress.ip_network(form["four"] or form["inside"] or form["six"])
    except ValueError as error:
        raise InvalidInput(f"{text!r}: {error}", where="destination", mend=_MEND) from error
    low = int(form["low"] or 1)
    high = int(form["high"] or form["low"] or _MOST_PORT)
    if not low <= high <= _MOST_PORT:
        raise InvalidInput(f"{text!r} has no ports in it", where="destination", mend=_MEND)
    if network.version == 6 and network.overlaps(_MAPPED) and network.prefixlen >= _MAPPED.prefixlen:
        raise InvalidInput(f"{text!r} is of IPv4", where="destination", mend="Write it as an IPv4 address.")
    return Destination(
        network.version, int(network.network_address), network.prefixlen, low, high, form["protocol"] or ""
    )


def shortest(found: Iterable[Destination]) -> tuple[Destination, ...]:
    """Sorted, without those that another one covers: of the same sets of single blocks always the same."""
    every = set(found)
    return tuple(sorted(each for each in every if not any(o != each and o.covers(each) for o in every)))


def common(one: Iterable[Destination], other: Iterable[Destination]) -> tuple[Destination, ...]:
    """What both allow."""
    others = tuple(other)
    return shortest(met for each in one for their in others if (met := each.meet(their)) is not None)
