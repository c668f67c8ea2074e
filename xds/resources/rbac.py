"""RBAC filters that allow or deny everything, and say why.

Envoy puts the name of the policy that denied a request into `%RESPONSE_CODE_DETAILS%` as
`rbac_access_denied_matched_policy[NAME]`, so the name carries the reason to whoever was refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from xds.messages import HTTP_RBAC, TCP_RBAC, encode
from xds.snapshot import type_url

MAX_REASON: Final = 200
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._:/=-]+")
_EVERYTHING: Final = {"permissions": [{"any": True}], "principals": [{"any": True}]}


@dataclass(frozen=True, slots=True)
class TypedConfig:
    """A serialised filter configuration and its type."""

    type_url: str
    body: bytes


def http_allow_all(reason: str = "allow") -> TypedConfig:
    """An HTTP filter that lets every request pass."""
    return TypedConfig(type_url(HTTP_RBAC), encode(HTTP_RBAC, **http_rules("ALLOW", reason)))


def http_deny_all(reason: str) -> TypedConfig:
    """An HTTP filter that answers every request with 403, on open connections too."""
    return TypedConfig(type_url(HTTP_RBAC), encode(HTTP_RBAC, **http_rules("DENY", reason)))


def tcp_allow_all(reason: str = "allow") -> TypedConfig:
    """A network filter that lets every connection pass."""
    return TypedConfig(type_url(TCP_RBAC), encode(TCP_RBAC, **tcp_rules("ALLOW", reason)))


def tcp_deny_all(reason: str) -> TypedConfig:
    """A network filter that closes every new connection; open ones are not touched."""
    return TypedConfig(type_url(TCP_RBAC), encode(TCP_RBAC, **tcp_rules("DENY", reason)))


def http_rules(action: str, reason: str) -> dict[str, object]:
    """The fields of an HTTP RBAC filter, in the form that both messages and Envoy's JSON take."""
    return {"rules": {"action": action, "policies": {policy_name(reason): _EVERYTHING}}}


def tcp_rules(action: str, reason: str) -> dict[str, object]:
    """The fields of a network RBAC filter; as `http_rules`."""
    return {**http_rules(action, reason), "stat_prefix": "rbac"}


def policy_name(reason: str) -> str:
    """`reason` as a policy name: unfit characters become `-`. It never fails, for a denial must not."""
    return _UNFIT.sub("-", reason)[:MAX_REASON] or "unspecified"
