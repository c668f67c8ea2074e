"""Claims as a compact CBOR map with small integer keys. Durations in whole micro- or milliseconds: no floats."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, TypeVar

from attestation import calls, digests
from attestation.claims import Claims, LayerClaim
from attestation.coverage import EXECUTIONS, CollectorCoverage, Coverage, Cutting, Grade, Isolation, Mechanism
from attestation.errors import InvalidInput, MalformedEvidence
from attestation.instance import InstanceId
from attestation.layers import Layer, Method
from attestation.plain import NEWEST, introduced
from attestation.tally import MOST_EXECUTABLE, MOST_MAGNITUDE, MOST_OFFENCES, Offence, Tally
from attestation.wording import shown

# The numbers on the wire: a word's place in its table. Append; never reorder.
_LAYERS = (
    Layer.FILES,
    Layer.PROCESSES,
    Layer.SYSCALLS,
    Layer.MEMORY,
    Layer.IMAGE,
    Layer.ORCHESTRATOR,
    Layer.HARDWARE,
    Layer.PROXY,
    Layer.ATTESTER,
)
_METHODS = (Method.FULL, Method.INCREMENTAL, Method.EVENT)
_MECHANISMS = (
    Mechanism.FANOTIFY,
    Mechanism.INOTIFY,
    Mechanism.PROC_CONNECTOR,
    Mechanism.POLL,
    Mechanism.BPF,
    Mechanism.DETECTOR,
    Mechanism.SECCOMP,
)
_CUTTINGS = (Cutting.DESTROY, Cutting.KILL, Cutting.CAPPED)
_ISOLATION_1_0 = ("non_dumpable", "distinct_user", "workload_can_trace", "shared_pid_namespace")
_ISOLATION = (
    *_ISOLATION_1_0,
    "workload_can_become_us",
    "envoy_non_dumpable",
    "envoy_distinct_user",
    "workload_can_trace_envoy",
)
_GRADES = (Grade.CLOSED_BY_GUARDIAN, Grade.BOUNDED_NEW_CONNECTIONS_ONLY)

_SHAPE: dict[int, type] = {1: bytes, 2: int, 3: int, 4: int, 5: int, 6: bytes, 7: str, 8: list, 9: list}
_SERVED, _CALLS = 10, 11
_EXECUTIONS_BY_BPF = 8
"""The minor from which on the kernel's programs count as what tells of every execution."""
_MOST_SERIAL = 20
"""Bytes of a certificate's serial number (RFC 5280 section 4.1.2.2)."""
_LAYER_SHAPE = (int, bytes, int, int, int, int)
_COLLECTOR_SHAPE = (str, int, int, int, bool, int, str)
_COVERAGE_SHAPE = (list, list, int, int, list)
_TALLY_SHAPE = (bytes, int, int, int, list, int)
_OFFENCE_SHAPE = (str, int, str, int)
_MOST_CALLS = 1024
_MOST_LAYERS = len(_LAYERS)
_MOST_COLLECTORS = 64
_MOST_DETAIL = 200

Word = TypeVar("Word", bound=StrEnum)


def encode(claims: Claims, *, minor: int = NEWEST) -> dict[int, Any]:
    """The map, ready for `cbor.dumps`.

    minor: of the wire that its reader speaks. What came later is left out: it would be refused with all the rest.
    """
    return {
        1: bytes.fromhex(claims.instance.value[2:]),
        2: claims.sequence,
        3: claims.generation,
        4: claims.policy_epoch,
        5: claims.revocation,
        6: claims.leaf_key,
        7: claims.boot_id,
        8: [_encode_layer(each) for each in claims.layers],
        9: _encode_coverage(claims.coverage, minor),
        **_encode_served(claims.served, minor),
        **_encode_tally(claims.calls, minor),
    }


def decode(value: Any) -> Claims:
    """`encode` reversed. Raises MalformedEvidence for a missing, unknown or mistyped claim, or a word not known.

    One statement has one spelling: what `encode` would write otherwise (a name that is not printable, a row longer
    than it need be) is refused, so that no two signed byte strings claim the same.
    """
    if not isinstance(value, dict) or value.keys() - {_SERVED, _CALLS} != _SHAPE.keys():
        raise MalformedEvidence("claims are missing, or there are unknown ones", where="claims")
    for number, kind in _SHAPE.items():
        if type(value[number]) is not kind:
            raise MalformedEvidence(f"claim {number} is not of its type", where="claims")
    if len(value[1]) != 16 or len(value[8]) > _MOST_LAYERS:
        raise MalformedEvidence("an instance of another length, or a layer more than exist", where="claims")
    claims = Claims(
        instance=InstanceId("i-" + value[1].hex()),
        sequence=value[2],
        generation=value[3],
        policy_epoch=value[4],
        revocation=value[5],
        leaf_key=value[6],
        boot_id=value[7],
        layers=tuple(_decode_layer(each) for each in value[8]),
        coverage=_decode_coverage(value[9]),
        served=_decode_served(value[_SERVED]) if _SERVED in value else None,
        calls=_decode_tally(value[_CALLS]) if _CALLS in value else None,
    )
    if encode(claims) != value:
        raise MalformedEvidence("claims that are not written as `encode` writes them", where="claims")
    return claims


def _encode_served(serial: int | None, minor: int) -> dict[int, bytes]:
    if serial is None or minor < introduced(Claims, "served"):
        return {}
    return {_SERVED: serial.to_bytes((serial.bit_length() + 7) // 8)}


def _decode_served(number: Any) -> int:
    if type(number) is not bytes or not 0 < len(number) <= _MOST_SERIAL:
        raise MalformedEvidence("no serial number of a certificate", where="claims")
    return int.from_bytes(number)


def _encode_tally(tally: Tally | None, minor: int) -> dict[int, list[Any]]:
    if tally is None or minor < introduced(Claims, "calls"):
        return {}
    offences = [[each.call, each.pid, shown(each.executable, MOST_EXECUTABLE), each.age_ms] for each in tally.offences]
    return {_CALLS: [bytes(tally.counts), tally.rate, tally.peak, tally.events, offences, tally.more]}


def _decode_tally(row: Any) -> Tally:
    counts, rate, peak, events, offences, more = _row(row, _TALLY_SHAPE, "calls")
    if len(counts) > _MOST_CALLS or len(offences) > MOST_OFFENCES:
        raise MalformedEvidence("more calls than there are, or more offences than are told", where="calls")
    if not all(0 <= each <= MOST_MAGNITUDE for each in (*counts, rate, peak, events)) or more < 0:
        raise MalformedEvidence("an amount that is no magnitude", where="calls")
    return Tally(tuple(counts), rate, peak, events, tuple(map(_decode_offence, offences)), more)


def _decode_offence(row: Any) -> Offence:
    offence = Offence(*_row(row, _OFFENCE_SHAPE, "calls"))
    if not calls.well_formed(offence.call) or min(offence.pid, offence.age_ms) < 0:
        raise MalformedEvidence("an offence that cannot be", where="calls")
    return offence


def _encode_layer(claim: LayerClaim) -> list[Any]:
    return [
        _LAYERS.index(claim.layer),
        _digest_bytes(claim.digest),
        _METHODS.index(claim.method),
        claim.age_ms,
        claim.full_age_ms,
        claim.items,
    ]


def _digest_bytes(digest: str) -> bytes:
    if not digests.well_formed(digest):
        raise InvalidInput(f"{digest!r} is not a digest", where="claims")
    return bytes.fromhex(digest)


def _decode_layer(row: Any) -> LayerClaim:
    layer, digest, method, age_ms, full_age_ms, items = _row(row, _LAYER_SHAPE, "layer")
    if len(digest) != 32:
        raise MalformedEvidence("a digest that is not 32 bytes long", where="layer")
    return LayerClaim(_word(_LAYERS, layer), digest.hex(), _word(_METHODS, method), age_ms, full_age_ms, items)


def _encode_coverage(coverage: Coverage, minor: int) -> list[Any]:
    return [
        [_encode_collector(each, minor) for each in coverage.collectors],
        [_LAYERS.index(layer) for layer in coverage.absent],
        _CUTTINGS.index(coverage.cutting),
        _GRADES.index(coverage.grade),
        _encode_isolation(coverage.isolation),
    ]


def _encode_isolation(isolation: Isolation) -> list[bool]:
    """Four words as wire 1.0 has them; the later four only where one of them says more than their absence does."""
    row = [getattr(isolation, name) for name in _ISOLATION]
    known = len(_ISOLATION_1_0)
    return row if row[known:] != [getattr(Isolation(), name) for name in _ISOLATION[known:]] else row[:known]


def _decode_isolation(row: list[Any]) -> Isolation:
    names = _ISOLATION_1_0 if len(row) == len(_ISOLATION_1_0) else _ISOLATION
    return Isolation(**dict(zip(names, _row(row, (bool,) * len(names), "isolation"), strict=True)))


def _mechanism(each: CollectorCoverage, minor: int) -> Mechanism:
    """An earlier reader knows one mechanism that tells of every fork, execution and end."""
    told = each.name == EXECUTIONS and each.mechanism is Mechanism.BPF and minor < _EXECUTIONS_BY_BPF
    return Mechanism.PROC_CONNECTOR if told else each.mechanism


def _encode_collector(each: CollectorCoverage, minor: int) -> list[Any]:
    return [
        shown(each.name),
        _LAYERS.index(each.layer),
        _MECHANISMS.index(_mechanism(each, minor)),
        round(each.latency_ms * 1000),
        each.running,
        each.lost,
        shown(each.detail, _MOST_DETAIL),
    ]


def _decode_coverage(row: Any) -> Coverage:
    collectors, absent, cutting, grade, isolation = _row(row, _COVERAGE_SHAPE, "coverage")
    if len(collectors) > _MOST_COLLECTORS or len(absent) > _MOST_LAYERS:
        raise MalformedEvidence("more collectors or layers than can be", where="coverage")
    return Coverage(
        collectors=tuple(_decode_collector(each) for each in collectors),
        absent=tuple(_word(_LAYERS, number) for number in absent),
        cutting=_word(_CUTTINGS, cutting),
        grade=_word(_GRADES, grade),
        isolation=_decode_isolation(isolation),
    )


def _decode_collector(row: Any) -> CollectorCoverage:
    name, layer, mechanism, latency_us, running, lost, detail = _row(row, _COLLECTOR_SHAPE, "collector")
    return CollectorCoverage(
        name, _word(_LAYERS, layer), _word(_MECHANISMS, mechanism), latency_us / 1000, running, lost, detail
    )


def _row(row: Any, shape: Sequence[type], where: str) -> list[Any]:
    if not isinstance(row, list) or [type(each) for each in row] != list(shape):
        raise MalformedEvidence("a row that is not of its shape", where=where)
    return row


def _word(table: tuple[Word, ...], number: Any) -> Word:
    if type(number) is not int or not 0 <= number < len(table):
        raise MalformedEvidence(f"{number!r} is no {type(table[0]).__name__}", where="claims")
    return table[number]
