"""Which lists of the authority are believed, and what Envoy makes of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.errors import MalformedResult
from attestation.instance import InstanceId
from authority.issuer.ca import Ca
from sidecar import denials
from sidecar.answers import Membership, believe_denials
from sidecar.denials import Refusals
from sidecar.peers import Peers
from sidecar.states import Now
from tests.unit.sidecar.listed import (
    ADDRESS,
    CAUSE,
    DB,
    FINGERPRINT,
    INSTANCE,
    SERIAL,
    START,
    WEB,
    chain,
    denied,
    issued,
    made,
    member,
    told,
)
from wire.messages import Denials, Denied, DeniedLeaf
from xds.resources.denials import DeniedPeer, http_deny_peers, tcp_deny_peers
from xds.resources.rbac import http_allow_all
from xds.resources.service import HostPort, Service, Upstream
from xds.resources.transport import Identities

NOW = Now(boot=1.0, wall=START.timestamp() + 60)


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return made(tmp_path / "ca")


@pytest.fixture
def other(tmp_path: Path) -> Ca:
    return made(tmp_path / "other")


def test_a_list_in_order_is_believed_again_and_again(ca: Ca) -> None:
    for last in (0, 3, 4):
        believe_denials(told(ca, denied(ADDRESS)), last, chain(ca), member(ca), NOW)


def test_a_list_of_nobody_is_believed(ca: Ca) -> None:
    believe_denials(told(ca), 0, chain(ca), member(ca), NOW)


def _renamed(**changes: object) -> Callable[[Denials], Denials]:
    return lambda good: replace(good, denied=(replace(good.denied[0], **changes),))  # type: ignore[arg-type] # by name


def _held(**changes: object) -> Callable[[Denials], Denials]:
    def change(good: Denials) -> Denials:
        held = replace(good.denied[0].leaves[0], **changes)  # type: ignore[arg-type] # by name
        return replace(good, denied=(replace(good.denied[0], leaves=(held,)),))

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda good: replace(good, version=3), "older than the one in force"),
        (lambda good: replace(good, denied=good.denied * 501), "of 501 instances"),
        (lambda good: replace(good, denied=good.denied * 1001), "of too many certificates"),
        (_renamed(addresses=(ADDRESS,) * 1001), "of too many addresses"),
        (_renamed(addresses=("db.example.org:9443",)), "of what no certificate has"),
        (_renamed(addresses=("0.0.0.0:9443",)), "of what no certificate has"),
        (_renamed(spiffe_id="spiffe://elsewhere.org/db"), "of what no certificate has"),
        (_renamed(spiffe_id="db"), "of what no certificate has"),
        (_renamed(cause="c-1]; allow"), "of what no certificate has"),
        (_held(fingerprint=FINGERPRINT.replace("3", "A")), "of what no certificate has"),
        (_held(serial=b""), "of what no certificate has"),
        (_held(serial=bytes(21)), "of what no certificate has"),
        (_held(serial=b"\x01"), "a CRL of other certificates"),
        (lambda good: replace(good, denied=()), "a CRL of other certificates"),
        (lambda good: replace(good, crl=b""), "a CRL that does not parse"),
        (lambda good: replace(good, crl=b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"), "does not parse"),
        (lambda good: replace(good, crl=good.crl + b" " * 300_000), "a CRL that does not parse: 300"),
    ],
)
def test_a_list_that_envoy_could_not_carry_out_as_it_is_meant_is_refused(
    ca: Ca, change: Callable[[Denials], Denials], named: str
) -> None:
    with pytest.raises(MalformedResult, match=named):
        believe_denials(change(told(ca, denied(ADDRESS))), 4, chain(ca), member(ca), NOW)


def test_a_crl_of_another_authority_of_the_same_name_is_refused(ca: Ca, other: Ca) -> None:
    with pytest.raises(MalformedResult, match="a CRL of another authority"):
        believe_denials(told(other, denied()), 0, chain(ca), member(ca), NOW)


def test_a_crl_that_is_over_is_refused_since_envoy_would_refuse_everybody(ca: Ca) -> None:
    late = Now(boot=1.0, wall=START.timestamp() + 3601)
    with pytest.raises(MalformedResult, match="a CRL that is over"):
        believe_denials(told(ca), 0, chain(ca), member(ca), late)


def test_a_crl_that_is_not_valid_yet_is_refused(ca: Ca) -> None:
    early = Now(boot=1.0, wall=START.timestamp() - 31)
    with pytest.raises(MalformedResult, match="not valid yet"):
        believe_denials(told(ca), 0, chain(ca), member(ca), early)


def test_without_a_certificate_of_our_own_no_crl_can_be_checked(ca: Ca) -> None:
    with pytest.raises(MalformedResult, match="does not parse"):
        believe_denials(told(ca), 0, b"", member(ca), NOW)


def test_an_instance_is_denied_by_its_certificates_and_by_its_subject_for_its_cause(ca: Ca) -> None:
    refusals = Refusals.of(told(ca, denied(ADDRESS)))
    peer = DeniedPeer(f"peer-denied:{CAUSE}", (FINGERPRINT,), (f"OU={INSTANCE},O=Proofbeat",))
    assert (refusals.http, refusals.tcp) == (http_deny_peers([peer]), tcp_deny_peers([peer]))
    assert refusals.version == 4
    assert denials.nobody().http == http_allow_all()


def test_the_subject_is_the_one_that_the_authority_writes(ca: Ca) -> None:
    subject = x509.load_pem_x509_certificate(issued(ca, DB, INSTANCE)).subject.rfc4514_string()
    assert subject == f"OU={INSTANCE},O=Proofbeat"


def service(*upstreams: Upstream) -> Service:
    return Service(Path("log"), upstreams=upstreams)


def upstream(name: str, identity: str, *peers: HostPort) -> Upstream:
    return Upstream(name, HostPort("127.0.0.1", 1), peers, "tcp", Identities(exact=(identity,)))


HERE, THERE, SIX = HostPort("192.0.2.7", 9443), HostPort("192.0.2.8", 9443), HostPort("2001:db8::7", 9443)


TEXTS = st.text(max_size=8)
ADDRESSES = st.sampled_from([ADDRESS, "[2001:db8::7]:9443", "[::1]:1", "127.0.0.1:65535"]) | TEXTS
LEAVES = st.builds(
    DeniedLeaf,
    st.binary(max_size=21),
    st.just(FINGERPRINT) | st.binary(min_size=32, max_size=32).map(bytes.hex) | TEXTS,
    st.integers(0, 1),
)
LISTED = st.builds(
    Denied,
    st.binary(min_size=16, max_size=16).map(lambda number: InstanceId("i-" + number.hex())),
    st.sampled_from([DB, WEB, "spiffe://elsewhere.org/db"]) | TEXTS,
    st.just(CAUSE) | TEXTS,
    st.lists(LEAVES, max_size=2).map(tuple),
    st.lists(ADDRESSES, max_size=2).map(tuple),
)


@cache
def one_town() -> tuple[Ca, bytes, Membership]:
    with TemporaryDirectory() as folder:
        ca = made(Path(folder) / "ca")
    return ca, chain(ca), member(ca)


@settings(max_examples=50, deadline=None)
@given(st.lists(LISTED, max_size=3))
def test_whatever_is_believed_can_be_carried_out(listed: list[Denied]) -> None:
    ca, ours, membership = one_town()
    serials = {int.from_bytes(leaf.serial) for each in listed for leaf in each.leaves} - {0}
    one = told(ca, *listed, serials=tuple(serial for serial in serials if serial.bit_length() < 160))
    try:
        believe_denials(one, 0, ours, membership, NOW)
    except MalformedResult:
        return
    refusals = Refusals.of(one)
    peers = {address for _, address in refusals.listening}
    everybody = service(upstream("db", DB, *peers), upstream("web", WEB, *peers)) if peers else service()
    gone = refusals.unreachable(everybody).values()
    assert peers == frozenset().union(*gone)


def test_an_address_is_taken_only_from_upstreams_that_would_take_the_instance_for_their_peer(ca: Ca) -> None:
    refusals = Refusals.of(told(ca, denied(ADDRESS, "[2001:db8::7]:9443", "192.0.2.9:1"), serials=(SERIAL,)))
    ours = service(upstream("db", DB, HERE, THERE, SIX), upstream("web", WEB, HERE, THERE))
    assert refusals.unreachable(ours) == {"db": frozenset({HERE, SIX}), "web": frozenset()}
    assert refusals.addresses(ours) == (ADDRESS, "[2001:db8::7]:9443")


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ((), ()),
        ((ADDRESS,), (ADDRESS,)),
        (("192.0.2.0/29",), (ADDRESS,)),
        (("192.0.2.0/24:5432",), ("192.0.2.9:5432",)),
        (("192.0.2.0/24:9443", "2001:db8::/64"), (ADDRESS, "[2001:db8::7]:9443")),
        (("[2001:db8::7]:9443",), ("[2001:db8::7]:9443",)),
        (("[2001:db8::/64]:5432", "192.0.2.7:5432", "198.51.100.0/24"), ()),
    ],
)
def test_where_envoys_upstreams_are_not_ours_a_denied_one_is_cut_only_where_its_operator_says_that_peers_are(
    ca: Ca, named: tuple[str, ...], found: tuple[str, ...]
) -> None:
    refusals = Refusals.of(told(ca, denied(ADDRESS, "192.0.2.9:5432", "[2001:db8::7]:9443")))
    assert refusals.among(Peers.of(named)) == found
