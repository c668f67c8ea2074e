"""Where an Envoy listens for its peers, in the one form that both sides of a comparison have: `192.0.2.7:9443`,
`[2001:db8::7]:9443`.

Names are no addresses: who they mean is for others to say. Nor is what stands for every address of a machine.
"""

from __future__ import annotations

import ipaddress
import re

from attestation.errors import InvalidInput

_FORM = re.compile(r"(\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:]{2,39}\]):([1-9]\d{0,4})", re.ASCII)
_MOST_PORT = 65_535


def address(host: str, port: int) -> str:
    """The one form of an IP address and a port. Raises InvalidInput where none can be connected to."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError as error:
        raise InvalidInput(f"{host!r} is no IP address", where="address", mend=_MEND) from error
    if found.version == 6 and (found.scope_id is not None or found.ipv4_mapped is not None):
        raise InvalidInput(f"{host!r} is an IPv6 address with a zone, or an IPv4 one", where="address", mend=_MEND)
    if found.is_unspecified or found.is_multicast or not 0 < port <= _MOST_PORT:
        raise InvalidInput(f"nobody can connect to {host!r} at port {port}", where="address", mend=_MEND)
    return f"[{found}]:{port}" if found.version == 6 else f"{found}:{port}"


def parse(text: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises InvalidInput for another form than that of `address`."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise InvalidInput(f"{text[:64]!r} is not IP:PORT", where="address", mend=_MEND)
    host, port = form[1].strip("[]"), int(form[2])
    if address(host, port) != text:
        raise InvalidInput(f"{text!r} has another form: {address(host, port)}", where="address", mend=_MEND)
    return host, port


_MEND = "Written like 192.0.2.7:9443 or [2001:db8::7]:9443, as short as can be."
