"""Which certificate Envoy serves, by its own word: what it acknowledged last, and what it lists where we may ask it.

Poison names nobody, so that an Envoy that serves nothing else serves none. Both are an Envoy's word: they tell a mix-up
from what was delivered, and another source of certificates from ours; what runs there is measured apart.
"""

from __future__ import annotations

import asyncio
import io
import re
import socket
import struct
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from cryptography import x509

from attestation import strictjson
from attestation.errors import InvalidInput
from xds.acks import Verdict
from xds.resources.secrets import SECRET_TYPE, chain_of

_ASK = b"GET /certs HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n"
"""Envoy's administration interface: the certificates of every TLS context that is in use."""
_WHERE = "Envoy's admin socket"
_SERIAL = re.compile(r"[0-9a-f]{1,40}")
_SECONDS = 0.25
_CHUNK = 1 << 16
_MOST_BYTES = 1 << 20
_CREDENTIALS = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""


class Serving:
    """One Envoy's certificate. secret: its name. admin: Envoy's admin socket, where that is ours."""

    def __init__(self, secret: str, admin: Path | None) -> None:
        self._secret = secret
        self._admin = admin
        self._acknowledged = b""

    def seated(self) -> None:
        """Another Envoy: it has acknowledged nothing."""
        self._acknowledged = b""

    def answered(self, verdict: Verdict) -> None:
        if verdict.type_url == SECRET_TYPE and verdict.accepted and self._secret in verdict.resources:
            self._acknowledged = verdict.bodies[verdict.resources.index(self._secret)]

    @property
    def acknowledged(self) -> int | None:
        """Serial number of the certificate that it acknowledged; None where that names nobody."""
        return _serial(chain_of(self._acknowledged)) if self._acknowledged else None

    async def stated(self, envoy: int) -> int | None:
        """What evidence states. envoy: the pid of who holds the seat.

        An Envoy whose admin socket does not answer in time is taken at its acknowledgement.
        """
        acknowledged = self.acknowledged
        if self._admin is None:
            return acknowledged
        return differing(acknowledged, await _listed(self._admin, envoy))


def differing(acknowledged: int | None, listed: frozenset[int]) -> int | None:
    """Of two words about one certificate the one to be looked at: what it lists beside what it acknowledged."""
    return min(listed - {acknowledged}, default=acknowledged)


def named(certificates: bytes) -> Iterator[int]:
    """Serial numbers of the certificates in Envoy's list that name somebody (envoy.admin.v3.Certificates, JSON).

    Raises InvalidInput for what is no such list.
    """
    told: Any = strictjson.loads(certificates)
    try:
        for each in told["certificates"]:
            for leaf in each.get("cert_chain", ()):
                if any("uri" in name for name in leaf.get("subject_alt_names", ())):
                    yield _number(leaf["serial_number"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidInput("no list of certificates", where=_WHERE) from error


def _number(serial: str) -> int:
    """Raises TypeError, ValueError for what no certificate has (RFC 5280 section 4.1.2.2)."""
    if not _SERIAL.fullmatch(serial) or not (number := int(serial, 16)):
        raise ValueError(serial)
    return number


async def _listed(admin: Path, envoy: int) -> frozenset[int]:
    """Those that it lists; none where it does not say, or where another process answers in its place."""
    try:
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_unix_connection(admin)
            try:
                if _listening(writer) != envoy:
                    return frozenset()
                writer.write(_ASK)
                return frozenset(named(content(await _whole(reader))))
            finally:
                writer.close()
    except (OSError, TimeoutError, HTTPException, InvalidInput):
        return frozenset()


def _listening(writer: asyncio.StreamWriter) -> int:
    """The pid of whoever listens there (unix(7), SO_PEERCRED)."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[0])


async def _whole(reader: asyncio.StreamReader) -> bytes:
    """All that is said until the other side closes. Raises InvalidInput for more than any list has."""
    said = bytearray()
    while part := await reader.read(_CHUNK):
        said += part
        if len(said) > _MOST_BYTES:
            raise InvalidInput(f"more than {_MOST_BYTES} bytes", where=_WHERE)
    return bytes(said)


class _Said:
    """Bytes that are there already, in the place of the socket that http.client reads from."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._said)


def content(said: bytes) -> bytes:
    """The body of an HTTP response. Raises HTTPException, and InvalidInput for any status but 200."""
    answer = HTTPResponse(_Said(said))  # type: ignore[arg-type] # it calls nothing but makefile
    answer.begin()
    if answer.status != HTTPStatus.OK:
        raise InvalidInput(f"status {answer.status}", where=_WHERE)
    return answer.read()


def _serial(chain: bytes) -> int | None:
    """Of the leaf, None where it names nobody."""
    leaf = x509.load_pem_x509_certificate(chain)
    try:
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    return leaf.serial_number
