"""Whom peers are told to refuse: over every mixture of certificates, times, modes and addresses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import results
from attestation.instance import InstanceId
from attestation.results import Result
from attestation.spiffe import SpiffeId
from attestation.trust import Tier, TrustVector
from authority import denials
from authority.denials import NOBODY, SKEW_MS, Listing, Registered
from authority.store.records import Accepted, Claim, Suspect, Suspects
from wire.messages import MOST_ADDRESSES, MOST_DENIED, MOST_DENIED_ADDRESSES, MOST_DENIED_LEAVES

NOW, LAST = 1_000_000, 9_000_000
WEB = SpiffeId("town.example", "/web")
LIVE, OVER, FOREIGN = NOW + 60_000, NOW - SKEW_MS, LAST + 1
REGISTERED = {
    "web": Registered(str(WEB), enforced=True),
    "api": Registered("spiffe://town.example/api", enforced=True),
    "lab": Registered("spiffe://town.example/lab", enforced=False),
    "web-lab": Registered(str(WEB), enforced=False),
}


def numbered(number: int) -> InstanceId:
    return InstanceId(f"i-{number:032x}")


def payload(number: int, tier: Tier, mode: str) -> bytes:
    vector = TrustVector(configuration={Tier.AFFIRMING: 2, Tier.CONTRAINDICATED: 99}[tier])
    result = Result(tier, vector, b"n" * 8, 1, 2, "v", numbered(number), WEB, mode, 0, 1, "a" * 64)
    return results.payload(result)


def counted(
    serial: int, end_ms: int = LIVE, tier: Tier = Tier.AFFIRMING, mode: str = "enforce", *, of: int = 1
) -> Accepted:
    return Accepted(tier, payload(of, tier, mode), b"key", serial, 1, end_ms, repeated=True)


def suspect(number: int, *rounds: Accepted, addresses: tuple[str, ...] = ()) -> Suspect:
    return Suspect(numbered(number), f"c-{number}", NOW - number, rounds, addresses)


def claim(address: str, registration: str = "api", *, by: int = 99) -> Claim:
    return Claim(address, numbered(by), registration)


def listed(*found: Suspect, claims: tuple[Claim, ...] = (), now_ms: int = NOW) -> tuple[Listing, ...]:
    return denials.listed(Suspects(found, claims, 0), REGISTERED, now_ms=now_ms, last_ms=LAST)


def serials(listing: Listing) -> list[int]:
    return [each.round.serial for each in listing.certificates]


EARNED = [(Tier.AFFIRMING, "enforce"), (Tier.AFFIRMING, "audit"), (Tier.CONTRAINDICATED, "audit")]
UNEARNED = [(Tier.CONTRAINDICATED, "enforce"), (Tier.AFFIRMING, "observe")]
_ROUND = st.builds(
    lambda serial, end_ms, kind: (serial, end_ms, kind),
    st.integers(1, 1 << 60),
    st.sampled_from((LIVE, LAST, OVER + 1, OVER, 0, FOREIGN)),
    st.sampled_from((*EARNED, *UNEARNED)),
)


@given(st.lists(st.lists(_ROUND, max_size=4), max_size=4))
def test_who_is_on_the_list_holds_a_certificate_that_may_be_valid_and_all_of_those_are_named(
    kinds: list[list[tuple[int, int, tuple[Tier, str]]]],
) -> None:
    found = [
        suspect(number, *(counted(serial, end, *kind, of=number) for serial, end, kind in rounds))
        for number, rounds in enumerate(kinds)
    ]
    expected = {
        numbered(number): [serial for serial, end, kind in rounds if OVER < end <= LAST and kind in EARNED]
        for number, rounds in enumerate(kinds)
    }
    assert {each.instance: serials(each) for each in listed(*found)} == {
        who: held for who, held in expected.items() if held
    }


def test_a_certificate_that_ends_meanwhile_makes_no_other_list_until_it_was_the_last() -> None:
    one = suspect(1, counted(8, LIVE), counted(7, OVER + 1))
    before = listed(one)
    assert serials(before[0]) == [8, 7]
    later = listed(one, now_ms=NOW + 1)
    assert serials(later[0]) == [8]
    assert denials.digest(later) == denials.digest(before) != NOBODY
    assert denials.digest(listed(one, now_ms=LIVE + SKEW_MS)) == NOBODY


def test_another_cause_address_or_instance_makes_another_list() -> None:
    one = suspect(1, counted(7), addresses=("192.0.2.1:1",))
    others = [
        listed(replace(one, cause="c-2")),
        listed(replace(one, addresses=("192.0.2.1:2",))),
        listed(one, claims=(claim(*one.addresses),)),
        listed(one, suspect(2, counted(8))),
        listed(suspect(2, counted(7), addresses=one.addresses)),
        listed(),
    ]
    assert len({denials.digest(each) for each in [*others, listed(one)]}) == len(others) + 1


def test_the_identity_is_the_one_in_the_certificates() -> None:
    assert listed(suspect(1, counted(7)))[0].spiffe_id == str(WEB)


def test_an_address_that_a_live_instance_claims_is_left_out_with_the_claim_and_the_others_are_not() -> None:
    theirs = claim("192.0.2.2:1")
    (one,) = listed(suspect(1, counted(7), addresses=("192.0.2.1:1", "192.0.2.2:1")), claims=(theirs,))
    assert (one.addresses, one.spared) == (("192.0.2.1:1",), (theirs,))


@pytest.mark.parametrize(
    ("registration", "counts"), [("web", True), ("api", True), ("web-lab", True), ("lab", False), ("deleted", False)]
)
def test_a_claim_under_policy_that_does_not_enforce_spares_only_who_has_the_same_identity(
    registration: str, counts: bool
) -> None:
    address = "192.0.2.1:1"
    (one,) = listed(suspect(1, counted(7), addresses=(address,)), claims=(claim(address, registration),))
    assert one.addresses == (() if counts else (address,))


def test_of_several_claims_to_an_address_one_that_counts_is_enough() -> None:
    address = "192.0.2.1:1"
    claims = claim(address, "lab", by=97), claim(address, "api", by=98), claim(address, "web", by=99)
    (one,) = listed(suspect(1, counted(7), addresses=(address,)), claims=claims)
    assert (one.addresses, one.spared) == ((), claims[1:2])


def test_a_list_has_its_bounds_and_within_them_nobodys_many_leave_no_room_for_anothers_one() -> None:
    greedy = [counted(serial) for serial in range(1, MOST_DENIED_LEAVES + 2)]
    places = [tuple(f"192.0.2.{number % 250}:{port}" for port in range(1, MOST_ADDRESSES + 1)) for number in range(600)]
    found = [suspect(0, *greedy, addresses=places[0])]
    found += [
        suspect(number, counted(number), counted(number + 1), addresses=places[number]) for number in range(1, 600)
    ]
    told = listed(*found)
    assert [each.instance for each in told] == [numbered(number) for number in range(MOST_DENIED)]
    assert sum(len(each.certificates) for each in told) == MOST_DENIED_LEAVES
    assert sum(len(each.addresses) for each in told) == MOST_DENIED_ADDRESSES
    assert min(len(each.certificates) for each in told) == min(len(each.addresses) for each in told) == 2
    assert serials(told[0]) == [1, 2]
    few = listed(*found[:3])
    assert [len(each.certificates) for each in few] == [MOST_DENIED_LEAVES - 4, 2, 2]
