"""Nonces: what each fault is called, and that nobody else can make one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attestation import nonce
from attestation.instance import InstanceId
from attestation.nonce import NonceFault
from tests.unit.attestation.world import INSTANCE

SECRET, ANOTHER_SECRET = b"k" * 32, b"l" * 32
MINE = nonce.holder(INSTANCE, "a" * 64)
VALID = 20_000


def issued(**changes: int) -> bytes:
    facts = {"sequence": 5, "issued_ms": 1_000_000, "epoch": 3} | changes
    return nonce.issue(SECRET, MINE, random=b"r" * 8, **facts)


def faults(value: bytes, *, by: bytes = MINE, now_ms: int = 1_000_500, epoch: int = 3) -> tuple[NonceFault, ...]:
    return nonce.check(SECRET, value, by, epoch=epoch, now_ms=now_ms, valid_ms=VALID).faults


def test_a_nonce_comes_back_with_its_facts_and_fits_the_bounds_of_ear() -> None:
    facts = nonce.read(SECRET, issued())
    assert facts is not None
    assert (facts.sequence, facts.issued_ms, facts.epoch) == (5, 1_000_000, 3)
    assert faults(issued()) == ()
    assert 8 <= len(issued()) <= 64


def test_each_fault_is_told_apart() -> None:
    other_instance = nonce.holder(InstanceId("i-" + "f" * 32), "a" * 64)
    other_key = nonce.holder(INSTANCE, "b" * 64)
    assert faults(issued(), by=other_instance) == (NonceFault.FOREIGN,)
    assert faults(issued(), by=other_key) == (NonceFault.FOREIGN,)
    assert faults(issued(epoch=2)) == (NonceFault.EPOCH,)
    assert faults(issued(), now_ms=999_999) == (NonceFault.EARLY,)
    assert faults(nonce.issue(ANOTHER_SECRET, MINE, sequence=5, issued_ms=1_000_000, epoch=3, random=b"r" * 8)) == (
        NonceFault.FORGED,
    )


def test_a_nonce_is_stale_from_the_last_moment_of_its_life() -> None:
    assert faults(issued(), now_ms=1_000_000 + VALID - 1) == ()
    assert faults(issued(), now_ms=1_000_000 + VALID) == (NonceFault.STALE,)


def test_every_fault_that_holds_is_named() -> None:
    everything = faults(issued(epoch=2), by=b"x" * 16, now_ms=2_000_000)
    assert set(everything) == {NonceFault.EPOCH, NonceFault.FOREIGN, NonceFault.STALE}


@given(st.integers(0, nonce.SIZE * 8 - 1))
def test_whatever_bit_is_changed_the_nonce_is_forged(bit: int) -> None:
    changed = bytearray(issued())
    changed[bit // 8] ^= 1 << bit % 8
    assert faults(bytes(changed)) == (NonceFault.FORGED,)


@given(st.binary(max_size=80))
def test_what_was_never_issued_is_forged(value: bytes) -> None:
    assert faults(value) == (NonceFault.FORGED,)
