"""Where the peers of somebody else's Envoy are, by its operator's word; whom it calls nobody else can tell us."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self

from attestation.errors import InvalidInput
from xds.resources.service import HostPort

MOST_RANGES = 64
"""Of one setting: each address of a list of denials is looked for in every one."""

_WITH_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+)):([1-9]\d{0,4})", re.ASCII)
_MOST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Range:
    """A network, and the port at which peers listen there; None for any."""

    network: IPv4Network | IPv6Network
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """ADDRESS:PORT, NETWORK or NETWORK:PORT. Raises InvalidInput."""
        form = _WITH_PORT.fullmatch(text)
        host, port = (form[1] or form[2], int(form[3])) if form is not None else (text, None)
        # An address alone may be an IPv6 one whose last group was meant to be a port.
        if (port is None and "/" not in host) or "%" in host or (port or 0) > _MOST_PORT:
            raise _invalid(text, "neither an address with its port nor a network")
        try:
            network = ipaddress.ip_network(host)
        except ValueError as error:
            raise _invalid(text, str(error)) from error
        if isinstance(network.network_address, IPv6Address) and network.network_address.ipv4_mapped is not None:
            raise _invalid(text, "IPv4 addresses, which no peer is known by in this form")
        return cls(network, port)

    def holds(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        return self.port in (None, port) and address in self.network


@dataclass(frozen=True, slots=True)
class Peers:
    """Those in any of these ranges."""

    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Raises InvalidInput."""
        return cls(tuple(Range.parse(each) for each in texts))

    def named(self, where: HostPort) -> bool:
        address = ipaddress.ip_address(where.host)
        return any(each.holds(address, where.port) for each in self.ranges)


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(f"{text[:64]!r}: {why}", where="peers", mend=_MEND)


_MEND = "Written like 192.0.2.7:9443, 192.0.2.0/24:9443 or 192.0.2.0/24; or [2001:db8::7]:9443, and so on."
