"""The proxy layer's body: one spelling for each proxy, nothing volatile, and nothing that nobody can be."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation import manifest, processes, proxy
from attestation.channel import Inspected, decode, encode
from attestation.errors import MalformedEvidence
from attestation.layers import Method
from attestation.proxy import Delivered, Denial, Known, Proxy, ProxyProcess, pack, unpack

ENVOY = Proxy(
    ProxyProcess("ab" * 32, Known.NO, Known.UNKNOWN, Known.YES),
    Delivered.SECRETS,
    Denial.IN_FORCE,
    ("inbound", "outbound"),
    Known.UNKNOWN,
)
KNOWN = st.sampled_from(Known)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex) | st.just("")
NAMES = st.lists(st.text(max_size=20), min_size=1, max_size=8, unique=True).map(lambda names: tuple(sorted(names)))
PROXIES = st.builds(
    Proxy,
    st.builds(ProxyProcess, DIGESTS, KNOWN, KNOWN, KNOWN),
    st.sampled_from(Delivered),
    st.just(Denial.IN_FORCE),
    NAMES,
    KNOWN,
)


@given(st.none() | PROXIES)
def test_a_proxy_reads_back_as_what_it_was(each: Proxy | None) -> None:
    assert unpack(pack(each)) == each


def test_everything_that_is_claimed_of_a_proxy_changes_the_digest() -> None:
    process = ENVOY.process
    variants = [
        None,
        ENVOY,
        replace(ENVOY, process=replace(process, executable="cd" * 32)),
        replace(ENVOY, process=replace(process, executable="")),
        replace(ENVOY, process=replace(process, traced=Known.YES)),
        replace(ENVOY, process=replace(process, dumpable=Known.NO)),
        replace(ENVOY, process=replace(process, drains_at_once=Known.NO)),
        replace(ENVOY, delivered=Delivered.EVERYTHING),
        replace(ENVOY, denial=Denial.MISSING),
        replace(ENVOY, filters=("inbound",)),
        replace(ENVOY, resumption_off=Known.YES),
    ]
    assert len({proxy.digest(pack(each)) for each in variants}) == len(variants)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null ",
        pack(ENVOY).replace(b",", b", ", 1),
        pack(ENVOY).replace(b'"traced"', b'"watched"'),
        pack(ENVOY).replace(b'"traced":"no"', b'"traced":"maybe"'),
        pack(ENVOY).replace(b'"traced":"no"', b'"traced":false'),
        pack(ENVOY).replace(b'"traced":"no"', b'"traced":"no","traced":"no"'),
        pack(replace(ENVOY, process=replace(ENVOY.process, executable="AB" * 32))),
        pack(replace(ENVOY, filters=("outbound", "inbound"))),
        pack(replace(ENVOY, filters=("inbound", "inbound"))),
        pack(replace(ENVOY, filters=())),
        pack(replace(ENVOY, filters=tuple(f"{number:03}" for number in range(65)))),
    ],
)
def test_a_proxy_that_nobody_packed_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        unpack(body)


def test_a_proxy_is_hashed_under_a_domain_of_its_own() -> None:
    assert len({each.digest(b"x") for each in (manifest, processes, proxy)}) == 3


def test_what_the_measurer_reads_of_a_proxy_arrives_as_it_was_sent() -> None:
    seen = Inspected(Method.FULL, 1.5, 2.5, ENVOY.process, 7, "9 /bin/gdb")
    for told in (seen, Inspected(Method.FULL, 1.5, 2.5, pid=7), Inspected(Method.FULL, 1.5, 2.5)):
        assert decode(encode(told)) == told
