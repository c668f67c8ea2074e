"""SPIFFE IDs, instances, durations, trust, errors: the small words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import digests
from attestation.errors import InvalidInput, MalformedResult, ProofbeatError
from attestation.instance import InstanceId
from attestation.quantities import duration, seconds
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector
from attestation.wording import shown


@pytest.mark.parametrize(
    "text", ["spiffe://example.org", "spiffe://example.org/web", "spiffe://a-b_c.d/ns/x/sa/Y.z_-9", "spiffe://1/2"]
)
def test_a_spiffe_id_by_the_letter_reads_back(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.org/web",
        "https://example.org/web",
        "SPIFFE://example.org/web",
        "spiffe:///web",
        "spiffe://Example.org/web",
        "spiffe://example.org:8443/web",
        "spiffe://user@example.org/web",
        "spiffe://example.org/web?q",
        "spiffe://example.org/web#f",
        "spiffe://example.org/",
        "spiffe://example.org/web/",
        "spiffe://example.org//web",
        "spiffe://example.org/.",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/%41",
        "spiffe://example.org/wéb",
        "spiffe://exämple.org/web",
        "spiffe://example.org/web\n",
        "spiffe://" + "a" * 256,
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_any_deviation_from_the_standard_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        SpiffeId.parse(text)


def test_the_authority_has_a_reserved_id_and_what_only_looks_like_it_is_not_reserved() -> None:
    assert str(SpiffeId.authority("example.org")) == "spiffe://example.org/proofbeat/authority"
    assert SpiffeId.authority("example.org").reserved
    assert not SpiffeId("example.org", "/proofbeatish/authority").reserved
    with pytest.raises(InvalidInput):
        SpiffeId("example.org", "proofbeat/authority")


def test_an_instance_is_one_run_and_never_another() -> None:
    runs = {
        InstanceId.of_run(boot_id=boot, cgroup=cgroup, pid=pid, start_ticks=ticks)
        for boot in ("a", "b")
        for cgroup in (0, 1)
        for pid in (10, 11)
        for ticks in (5, 6)
    }
    assert len(runs) == 16
    assert InstanceId.of_run(boot_id="a", cgroup=1, pid=10, start_ticks=5) in runs


@pytest.mark.parametrize("text", ["", "i-", "i-" + "g" * 32, "i-" + "A" * 32, "i-" + "0" * 33, "0" * 34])
def test_what_is_no_instance_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        InstanceId(text)


def test_structures_under_different_domains_or_cut_differently_never_share_a_digest() -> None:
    made = {
        digests.tagged("a", b"bc"),
        digests.tagged("a", b"b", b"c"),
        digests.tagged("a", b"", b"bc"),
        digests.tagged("ab", b"c"),
        digests.of_content(b"bc"),
    }
    assert len(made) == 5
    assert all(digests.well_formed(each) for each in made)
    assert not digests.well_formed("A" * 64)
    assert not digests.well_formed("a" * 63)


@pytest.mark.parametrize(
    ("text", "value"), [("250ms", 0.25), ("10s", 10.0), ("5m", 300.0), ("1h", 3600.0), ("2d", 172800.0), ("1.5s", 1.5)]
)
def test_durations_are_seconds(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "10", "s", "10 s", "-1s", "1e3s", "10S", "10sec", "1h30m", "inf"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="duration"):
        seconds(text)


@given(st.integers(1, 10**9))
def test_a_duration_of_whole_milliseconds_is_written_so_that_it_reads_back(milliseconds: int) -> None:
    assert seconds(duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@pytest.mark.parametrize(
    ("claim", "tier"),
    [
        (-1, Tier.NONE),
        (0, Tier.NONE),
        (1, Tier.NONE),
        (2, Tier.AFFIRMING),
        (31, Tier.AFFIRMING),
        (32, Tier.WARNING),
        (95, Tier.WARNING),
        (96, Tier.CONTRAINDICATED),
        (127, Tier.CONTRAINDICATED),
        (-2, Tier.CONTRAINDICATED),
        (-128, Tier.CONTRAINDICATED),
    ],
)
def test_every_claim_belongs_to_its_tier(claim: int, tier: Tier) -> None:
    assert Tier.of(claim) is tier


@pytest.mark.parametrize("claim", [-129, 128])
def test_a_claim_beyond_eight_bits_is_none(claim: int) -> None:
    with pytest.raises(MalformedResult):
        Tier.of(claim)


@pytest.mark.parametrize(
    ("vector", "tier"),
    [
        (TrustVector(), Tier.NONE),
        (TrustVector(executables=2), Tier.AFFIRMING),
        (TrustVector(executables=2, file_system=1), Tier.NONE),
        (TrustVector(executables=2, file_system=-1), Tier.NONE),
        (TrustVector(executables=32, file_system=1), Tier.WARNING),
        (TrustVector(executables=2, file_system=96, hardware=32), Tier.CONTRAINDICATED),
    ],
)
def test_a_vector_is_no_better_than_its_worst_claim(vector: TrustVector, tier: Tier) -> None:
    assert vector.tier is tier


def test_an_error_says_what_where_and_how_to_mend_it_on_one_line() -> None:
    assert str(ProofbeatError("it broke", where="here", mend="Glue it.")) == "here: it broke. Glue it."
    assert str(ProofbeatError("it broke")) == "it broke"


@given(st.text(st.characters(), max_size=60))
def test_text_from_a_measured_machine_is_shown_harmless_and_the_same_when_shown_twice(text: str) -> None:
    once = shown(text)
    assert once.isprintable()
    assert shown(once) == once
    once.encode()


def test_what_is_shown_keeps_what_is_readable_and_is_bounded() -> None:
    assert shown("/srv/naïve/データ") == "/srv/naïve/データ"
    assert shown("a\x1b[31m\n\udcff") == "a\\x1b[31m\\n\\udcff"
    assert len(shown("x" * 5000)) == 2000
    assert shown("xyz", 2) == "xy"
