"""Denying one instance of an identity that many share: its certificates by fingerprint, or all of them by subject.

A listener writes down, once a handshake, which certificate the caller presented (`peer_marks`); the delivered RBAC
filter looks that up in two maps of exact strings (`http_deny_peers`, `tcp_deny_peers`). The listener never changes for
it, so a denial cuts nobody else.

Envoy takes any string for a key and then never finds it: an upper-case fingerprint would be acknowledged, and deny
nobody. So a DeniedPeer holds none but what Envoy itself would write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from xds.errors import DenialError
from xds.messages import FILTER_STATE_INPUT, HTTP_RBAC, RBAC_ACTION, TCP_RBAC, TYPE_PREFIX, encode
from xds.resources.rbac import TypedConfig, http_allow_all, policy_name, tcp_allow_all
from xds.resources.transport import Json
from xds.snapshot import type_url

FINGERPRINT_MARK: Final = "peer.fingerprint"
SUBJECT_MARK: Final = "peer.subject"

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")
_SUBJECT: Final = re.compile(r"[ -~]+=[ -~]+")
_SET_FILTER_STATE: Final = "envoy.extensions.filters.network.set_filter_state.v3.Config"
_ALLOWED: Final = "allow"


@dataclass(frozen=True, slots=True)
class DeniedPeer:
    """A peer that is to be refused, whoever else has its identity.

    reason: what the refused one reads, as the policy's name. fingerprints: SHA-256 of certificates (DER), in lower
    case. subjects: whole subjects of certificates as Envoy writes them, the last attribute first (RFC 2253).
    Raises DenialError for what Envoy would accept and never find.
    """

    reason: str
    fingerprints: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for fingerprint in self.fingerprints:
            if not _FINGERPRINT.fullmatch(fingerprint):
                raise DenialError(f"fingerprint {fingerprint!r}", "write the 64 hexadecimal digits in lower case")
        for subject in self.subjects:
            if not _SUBJECT.fullmatch(subject):
                raise DenialError(f"subject {subject!r}", "write it whole, as OU=unit,O=organisation")
        if not (self.fingerprints or self.subjects):
            raise DenialError(f"peer denied for {self.reason!r}", "name a fingerprint or a subject of it")


def peer_marks() -> Json:
    """The network filter (as JSON) that keeps, for as long as a connection lasts, what its certificate is."""
    marks = {FINGERPRINT_MARK: "%DOWNSTREAM_PEER_FINGERPRINT_256%", SUBJECT_MARK: "%DOWNSTREAM_PEER_SUBJECT%"}
    return {
        "name": "envoy.filters.network.set_filter_state",
        "typed_config": {
            "@type": TYPE_PREFIX + _SET_FILTER_STATE,
            "on_downstream_tls_handshake": [_mark(key, value) for key, value in marks.items()],
        },
    }


def http_deny_peers(denied: Sequence[DeniedPeer]) -> TypedConfig:
    """An HTTP filter that answers the denied with 403, on open connections too, and lets everybody else pass.

    Only where the listener keeps `peer_marks`: without them nobody is found.
    """
    if not denied:
        return http_allow_all()
    return TypedConfig(type_url(HTTP_RBAC), encode(HTTP_RBAC, matcher=_matcher(denied)))


def tcp_deny_peers(denied: Sequence[DeniedPeer]) -> TypedConfig:
    """A network filter that closes new connections of the denied; as `http_deny_peers`. Open ones are not touched."""
    if not denied:
        return tcp_allow_all()
    return TypedConfig(type_url(TCP_RBAC), encode(TCP_RBAC, matcher=_matcher(denied), stat_prefix="rbac"))


def _mark(key: str, value: str) -> Json:
    return {
        "object_key": key,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": value}},
    }


def _matcher(denied: Iterable[DeniedPeer]) -> dict[str, object]:
    """The fields of Envoy's Matcher (xds.type.matcher.v3). Who is named twice is denied for the first reason."""
    fingerprints: dict[str, object] = {}
    subjects: dict[str, object] = {}
    for peer in denied:
        denial = _action(peer.reason, "DENY")
        for fingerprint in peer.fingerprints:
            fingerprints.setdefault(fingerprint, denial)
        for subject in peer.subjects:
            subjects.setdefault(subject, denial)
    decision = _action(_ALLOWED, "ALLOW")
    for mark, entries in ((SUBJECT_MARK, subjects), (FINGERPRINT_MARK, fingerprints)):
        if entries:
            decision = {"matcher": _looked_up(mark, entries, decision)}
    return {"on_no_match": decision}


def _looked_up(mark: str, entries: dict[str, object], otherwise: dict[str, object]) -> dict[str, object]:
    looked_at = _extension(FILTER_STATE_INPUT, encode(FILTER_STATE_INPUT, key=mark))
    return {"matcher_tree": {"input": looked_at, "exact_match_map": {"map": entries}}, "on_no_match": otherwise}


def _action(reason: str, action: str) -> dict[str, object]:
    return {"action": _extension(RBAC_ACTION, encode(RBAC_ACTION, name=policy_name(reason), action=action))}


def _extension(message: str, body: bytes) -> dict[str, object]:
    return {"name": message, "typed_config": {"type_url": type_url(message), "value": body}}
