"""The proxy layer as bytes: which Envoy holds the key, how it was started, and what it has accepted of what denies.

Pids, tracers' names and the serial of the certificate that is served are volatile and stay outside, so that an Envoy
that is started again is the same proxy; the serial is a claim of its own. JSON with sorted keys and no white space, as
the processes layer has it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from attestation import digests, strictjson
from attestation.digests import Digest
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.plain import build, plain

_MOST_FILTERS = 64
_WHERE = "proxy layer"


class Known(StrEnum):
    """What was asked, and what is known of it. UNKNOWN is never good enough where an answer is required."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Delivered(StrEnum):
    """What Envoy gets from us: secrets and filters, or everything."""

    SECRETS = "sds"
    EVERYTHING = "xds"


class Denial(StrEnum):
    """Whether Envoy has what can deny its traffic."""

    IN_FORCE = "in-force"
    """It has accepted filters of ours, and refused none."""
    PENDING = "pending"
    """It has accepted nothing that could let traffic in, or its answer may still come."""
    MISSING = "missing"
    """It has a certificate or a port of ours and did not ask for a filter, or refused one."""


@dataclass(frozen=True, slots=True)
class ProxyProcess:
    """The process that holds the key socket's seat, as the measurer reads it.

    executable: digest of what it runs, empty where the kernel does not let us read it. dumpable: unknown before Linux
    6.16. drains_at_once: started with `--drain-time-s 0`, so that a listener that is taken away cuts its connections;
    from its command line, which is its own word.
    """

    executable: Digest
    traced: Known
    dumpable: Known
    drains_at_once: Known


@dataclass(frozen=True, slots=True)
class Proxy:
    """The Envoy that is given the key.

    filters: those that it has accepted, by name, sorted. resumption_off: TLS resumption, by which an expired
    certificate could be shown; known where its listeners are ours.
    """

    process: ProxyProcess
    delivered: Delivered
    denial: Denial
    filters: tuple[str, ...]
    resumption_off: Known


def pack(proxy: Proxy | None) -> bytes:
    """The canonical bytes. None: nobody holds the seat."""
    value = None if proxy is None else plain(proxy)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def unpack(body: bytes) -> Proxy | None:
    """Raises MalformedEvidence for bytes that `pack` cannot have made of what can be."""
    try:
        value = strictjson.loads(body)
        proxy = None if value is None else build(Proxy, value, where=_WHERE)
    except InvalidInput as error:
        raise MalformedEvidence("the proxy does not parse", where=_WHERE) from error
    if pack(proxy) != body or (proxy is not None and not _possible(proxy)):
        raise MalformedEvidence("the proxy is not in its canonical form", where=_WHERE)
    return proxy


def digest(body: bytes) -> Digest:
    """The layer digest of a packed proxy."""
    return digests.tagged("layer/proxy", body)


def _possible(proxy: Proxy) -> bool:
    executable, filters = proxy.process.executable, proxy.filters
    named = bool(filters) or proxy.denial is not Denial.IN_FORCE
    ordered = list(filters) == sorted(set(filters)) and len(filters) <= _MOST_FILTERS
    return (not executable or digests.well_formed(executable)) and named and ordered
