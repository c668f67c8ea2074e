"""Destinations: what is written is what is meant, and what two lists allow is what each of them allows."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.destinations import Destination, common, parse, shortest
from attestation.errors import InvalidInput


def _made(version: int, address: int, length: int, ports: tuple[int, int], protocol: str) -> Destination:
    bits = 32 if version == 4 else 128
    length %= bits + 1
    first = (address % (1 << bits)) >> (bits - length) << (bits - length)
    low, high = sorted(ports)
    return Destination(version, first, length, low, high, protocol)


PORTS = st.sampled_from([1, 53, 443, 8000, 8100, 65_535])
FEW = st.sampled_from([0, 0x0A000000, 0x0A010000, 0x0A010203, 0xC0000207, (1 << 128) - 1, 0x20010DB8 << 96])
DESTINATIONS = st.builds(
    _made,
    st.sampled_from([4, 6]),
    FEW,
    st.sampled_from([0, 8, 9, 16, 32, 64, 128]),
    st.tuples(PORTS, PORTS),
    st.sampled_from(["", "tcp", "udp"]),
)
LISTS = st.lists(DESTINATIONS, max_size=4)
POINTS = st.tuples(st.sampled_from([4, 6]), FEW, PORTS, st.sampled_from(["tcp", "udp"]))


def mapped(each: Destination) -> bool:
    """An IPv4 block in IPv6's clothes, which `parse` refuses."""
    return each.version == 6 and each.length >= 96 and each.first >> 32 == 0xFFFF


def allowed(found: tuple[Destination, ...] | list[Destination], point: tuple[int, int, int, str]) -> bool:
    version, address, port, protocol = point
    return any(each.holds(version, address % (1 << (32 if version == 4 else 128)), port, protocol) for each in found)


@given(DESTINATIONS.filter(lambda each: not mapped(each)))
def test_what_is_written_reads_as_what_it_was(one: Destination) -> None:
    assert parse(str(one)) == one


@given(LISTS, LISTS, POINTS)
def test_two_lists_together_allow_what_each_of_them_allows(
    one: list[Destination], other: list[Destination], point: tuple[int, int, int, str]
) -> None:
    assert allowed(common(one, other), point) == (allowed(one, point) and allowed(other, point))


@given(LISTS, POINTS)
def test_the_shortest_list_allows_the_same(one: list[Destination], point: tuple[int, int, int, str]) -> None:
    assert allowed(shortest(one), point) == allowed(one, point)


@given(LISTS, LISTS, LISTS)
def test_lists_come_to_the_same_however_they_are_put_together(
    one: list[Destination], two: list[Destination], three: list[Destination]
) -> None:
    assert common(one, two) == common(two, one)
    assert common(common(one, two), three) == common(one, common(two, three))
    assert common(one, one) == shortest(one)


@pytest.mark.parametrize(
    ("text", "holds", "fails"),
    [
        ("10.0.0.0/8", ("10.1.2.3", 1, "udp"), ("11.0.0.1", 1, "udp")),
        ("10.0.0.0/8:443", ("10.1.2.3", 443, "tcp"), ("10.1.2.3", 444, "tcp")),
        ("192.0.2.7:8000-8100/tcp", ("192.0.2.7", 8100, "tcp"), ("192.0.2.7", 8100, "udp")),
        ("[2001:db8::/32]:443", ("2001:db8::9", 443, "tcp"), ("2001:db9::9", 443, "tcp")),
        ("2001:db8::7", ("2001:db8::7", 22, "tcp"), ("2001:db8::8", 22, "tcp")),
        ("0.0.0.0/0", ("255.0.0.1", 9, "udp"), ("::1", 9, "udp")),
    ],
)
def test_a_destination_means_what_it_says(text: str, holds: tuple[str, int, str], fails: tuple[str, int, str]) -> None:
    def inside(host: str, port: int, protocol: str) -> bool:
        address = ipaddress.ip_address(host)
        return parse(text).holds(address.version, int(address), port, protocol)

    assert inside(*holds)
    assert not inside(*fails)
    assert str(parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "db", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0:0", "10.0.0.0:9-8", "10.0.0.0:70000", "::ffff:10.0.0.1",
     "[::ffff:0:0/96]", "2001:db8::/32:443", "10.0.0.0/8/sctp", "10.0.0.0/8:443/"],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)
