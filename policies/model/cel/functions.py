"""What a rule may call, beside CEL's macros: with types, costs and, where CEL itself lacks them, how they are made.

Addresses, networks and versions have the names that Kubernetes gives them in its CEL. Nothing here recurses or goes
over its arguments more than a few times; each argument is a bounded text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from attestation.digests import well_formed
from attestation.errors import InvalidInput
from attestation.quantities import seconds
from attestation.spiffe import SpiffeId
from policies.model.cel.types import BOOL, CIDR, DIGEST, DURATION, INT, IP, SEMVER, SPIFFE, STRING, Scalar

Value = bool | int | str

CALL = 30
"""What calling one of ours costs, in the unit of policies/model/cel/check.py."""


@dataclass(frozen=True, slots=True)
class Function:
    """receiver: what it is called on, None where on nothing. made: None where CEL's own is taken.

    Raises ValueError for an argument that has not the form that is asked for.
    """

    name: str
    receiver: Scalar | None
    parameters: tuple[Scalar, ...]
    result: Scalar
    meaning: str
    made: Callable[..., Value] | None = None
    cost: int = CALL

    @property
    def run_as(self) -> str:
        """Its name where rules run: a receiver is the first argument there."""
        return self.name if self.receiver is None else f"{self.receiver.name.partition(' ')[0]}_{self.name}"

    @property
    def signature(self) -> str:
        """`semver.isLessThan(semver) -> bool`"""
        called = self.name if self.receiver is None else f"{self.receiver}.{self.name}"
        return f"{called}({', '.join(map(str, self.parameters))}) -> {self.result}"


def _digest(text: str) -> str:
    found = text.removeprefix("sha256:")
    if not well_formed(found):
        raise ValueError(f"{text!r} is no digest: `sha256:` and 64 lower-case hexadecimal digits")
    return found


def _ip(text: str) -> str:
    found = ipaddress.ip_address(text)
    if found.version == 6 and (found.scope_id is not None or found.ipv4_mapped is not None):
        raise ValueError(f"{text!r} has a zone, or is an IPv4 address written as IPv6")
    return str(found)


def _cidr(text: str) -> str:
    address, _, length = text.partition("/")
    if not (length.isascii() and length.isdecimal()):
        raise ValueError(f"{text!r} is no network: an address, a slash and a length")
    return str(ipaddress.ip_network(f"{_ip(address)}/{length}"))


def _contains_ip(network: str, address: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _contains_cidr(network: str, other: str) -> bool:
    around, inner = ipaddress.ip_network(network), ipaddress.ip_network(other)
    return around.version == inner.version and inner.subnet_of(around)  # type: ignore[arg-type] # of one version


_CORE = re.compile(r"(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})\.(0|[1-9][0-9]{0,17})")
_PART = re.compile(r"[0-9A-Za-z-]+")
_MOST_VERSION = 128


def _semver(text: str) -> str:
    """Semantic Versioning 2.0.0, section 2, 9 and 10; without the metadata of the build, which orders nothing."""
    version, _, build = text.partition("+")
    core, dash, before = version.partition("-")
    parts = [*(before.split(".") if dash else ()), *(build.split(".") if "+" in text else ())]
    numbers = (each for each in before.split(".") if each.isdecimal()) if dash else ()
    if (
        len(text) > _MOST_VERSION
        or not _CORE.fullmatch(core)
        or not all(_PART.fullmatch(each) for each in parts)
        or any(len(each) > 1 and each.startswith("0") for each in numbers)
    ):
        raise ValueError(f"{text!r} is no version as in Semantic Versioning: 1.40.0, 2.0.0-rc.1")
    return version


def _core(version: str, part: int) -> int:
    return int(version.partition("-")[0].split(".")[part])


def _compared(one: str, other: str) -> int:
    """-1, 0 or 1, by Semantic Versioning's section 11."""
    for part in range(3):
        if (left := _core(one, part)) != (right := _core(other, part)):
            return -1 if left < right else 1
    before, behind = one.partition("-")[2], other.partition("-")[2]
    if not before or not behind:
        return bool(behind) - bool(before) if before != behind else 0
    return _compared_identifiers(before.split("."), behind.split("."))


def _compared_identifiers(one: list[str], other: list[str]) -> int:
    for left, right in zip_longest(one, other):
        if left == right:
            continue
        if left is None or right is None:
            return -1 if left is None else 1
        numeric = left.isdecimal(), right.isdecimal()
        if all(numeric):
            return -1 if int(left) < int(right) else 1
        if any(numeric):
            return -1 if numeric[0] else 1
        return -1 if left < right else 1
    return 0


def _spiffe(text: str) -> str:
    try:
        return str(SpiffeId.parse(text))
    except InvalidInput as error:
        raise ValueError(error.sentence) from error


def _duration(text: str) -> int:
    try:
        return round(seconds(text) * 1000)
    except InvalidInput as error:
        raise ValueError(error.sentence) from error


def _is(made: Callable[[str], Value]) -> Callable[[str], bool]:
    def asked(text: str) -> bool:
        try:
            made(text)
        except ValueError:
            return False
        return True

    return asked


CONSTRUCTORS: Mapping[Scalar, str] = {
    DIGEST: "digest",
    IP: "ip",
    CIDR: "cidr",
    SEMVER: "semver",
    SPIFFE: "spiffe",
    DURATION: "duration",
}
"""The function that makes a value of such a type out of a string."""

_ALL = (
    Function("startsWith", STRING, (STRING,), BOOL, "it begins so", cost=2),
    Function("endsWith", STRING, (STRING,), BOOL, "it ends so", cost=2),
    Function("contains", STRING, (STRING,), BOOL, "that is in it", cost=4),
    Function("matches", STRING, (STRING,), BOOL, "the regular expression is found in it (RE2's syntax, less of it)"),
    Function("duration", None, (STRING,), DURATION, '`duration("60s")`, as policies write them', _duration),
    Function("digest", None, (STRING,), DIGEST, '`digest("sha256:...")`', _digest),
    Function("isDigest", None, (STRING,), BOOL, "`digest` takes it", _is(_digest)),
    Function("ip", None, (STRING,), IP, "an IPv4 or IPv6 address", _ip),
    Function("isIP", None, (STRING,), BOOL, "`ip` takes it", _is(_ip)),
    Function("family", IP, (), INT, "4 or 6", lambda address: ipaddress.ip_address(address).version),
    Function("cidr", None, (STRING,), CIDR, 'a network: `cidr("10.0.0.0/8")`', _cidr),
    Function("isCIDR", None, (STRING,), BOOL, "`cidr` takes it", _is(_cidr)),
    Function("containsIP", CIDR, (IP,), BOOL, "the address is in the network", _contains_ip),
    Function("containsCIDR", CIDR, (CIDR,), BOOL, "the other network is in it", _contains_cidr),
    Function("semver", None, (STRING,), SEMVER, 'a version of Semantic Versioning: `semver("1.40.0")`', _semver),
    Function("isSemver", None, (STRING,), BOOL, "`semver` takes it", _is(_semver)),
    Function("major", SEMVER, (), INT, "its first number", lambda version: _core(version, 0)),
    Function("minor", SEMVER, (), INT, "its second number", lambda version: _core(version, 1)),
    Function("patch", SEMVER, (), INT, "its third number", lambda version: _core(version, 2)),
    Function("compareTo", SEMVER, (SEMVER,), INT, "-1, 0 or 1: it is older, as old, newer", _compared),
    Function("isLessThan", SEMVER, (SEMVER,), BOOL, "it is older", lambda one, other: _compared(one, other) < 0),
    Function("isGreaterThan", SEMVER, (SEMVER,), BOOL, "it is newer", lambda one, other: _compared(one, other) > 0),
    Function("spiffe", None, (STRING,), SPIFFE, '`spiffe("spiffe://example.org/web")`', _spiffe),
    Function("isSpiffe", None, (STRING,), BOOL, "`spiffe` takes it", _is(_spiffe)),
    Function("trustDomain", SPIFFE, (), STRING, "its trust domain", lambda name: SpiffeId.parse(name).trust_domain),
    Function("path", SPIFFE, (), STRING, "its path, `/web`", lambda name: SpiffeId.parse(name).path),
)

FUNCTIONS: Mapping[tuple[Scalar | None, str], Function] = {(each.receiver, each.name): each for each in _ALL}
"""By receiver and name."""


# --- regular expressions ---

MOST_PATTERN = 64
_ESCAPE = r"\\[!-/:;=?@\[-^`{-~ ]"
_CLASS = rf"\[\^?(?:{_ESCAPE}|(?!&&|--|~~)[^\\\[\]])+\]"
_PATTERN = re.compile(rf"(?:{_ESCAPE}|{_CLASS}|\((?!\?)|[^\\\[\]{{}}(])*")


def pattern_fault(pattern: str) -> str:
    """Why this is no pattern that a rule may match; empty where it may.

    Counted repetitions and classes of Unicode are what makes a small pattern a large machine, and where engines
    differ in what a pattern means; without them its cost grows with its length.
    """
    if len(pattern) > MOST_PATTERN:
        return f"a pattern of more than {MOST_PATTERN} characters"
    understood = _PATTERN.match(pattern)
    known = understood.end() if understood else 0
    if known < len(pattern) or not (pattern.isascii() and pattern.isprintable()):
        return f"{pattern[known : known + 2] or pattern!r} is no part of the patterns that rules match"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"no regular expression: {error.msg}"
    return ""
