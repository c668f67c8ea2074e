"""What leads to a fence in the kernel, without one: its rules as the kernel compares them, what it tells, addresses."""

from __future__ import annotations

import hashlib
import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.destinations import TCP, UDP, Destination, parse
from attestation.facts import Passage
from measurer import addresses
from measurer.bpf import fence
from measurer.bpf.btf import Btf
from measurer.bpf.elf import Elf
from measurer.bpf.fence import EVERYTHING, LOOPBACK, Kind, Refusal, Rule
from measurer.fence import host_of, passage_of, protocol_of

OBJECT = fence.OBJECT.read_bytes()
UNSPECIFIED = str(ipaddress.IPv4Address(0))
RULE_BYTES, HEAD_BYTES = 48, 24


def holds(rule: Rule, version: int, address: int, port: int, protocol: int) -> bool:
    """As fence.bpf.c compares, of 128 bits at once."""
    mapped = address | (0xFFFF << 32 if version == 4 else 0)
    same = rule.version == version and not (mapped ^ rule.first) & rule.mask
    return same and rule.low <= port <= rule.high and rule.protocol in (0, protocol)


def blocks(version: int, bits: int) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.integers(0, bits).flatmap(
        lambda length: st.tuples(
            st.just(version),
            st.integers(0, (1 << length) - 1).map(lambda high: high << (bits - length)),
            st.just(length),
        )
    )


ports = st.integers(1, 65_535)
destinations = st.builds(
    lambda block, ends, protocol: Destination(block[0], block[1], block[2], min(ends), max(ends), protocol),
    st.one_of(blocks(4, 32), blocks(6, 128)),
    st.tuples(ports, ports),
    st.sampled_from(["", TCP, UDP]),
)


@given(destinations, st.data())
def test_a_rule_holds_what_its_destination_holds_and_nothing_else(
    destination: Destination, data: st.DataObject
) -> None:
    version = data.draw(st.sampled_from([4, 6]))
    bits = 32 if version == 4 else 128
    inside = destination.first | data.draw(st.integers(0, (1 << (bits - min(bits, destination.length))) - 1))
    address = data.draw(st.sampled_from([inside % (1 << bits), data.draw(st.integers(0, (1 << bits) - 1))]))
    port, protocol = data.draw(ports), data.draw(st.sampled_from([TCP, UDP]))
    wanted = destination.holds(version, address, port, protocol)
    assert holds(Rule.of(destination), version, address, port, {TCP: 6, UDP: 17}[protocol]) == wanted


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.254", UNSPECIFIED, "::1", "::"])
def test_loopback_and_the_unspecified_addresses_are_home(host: str) -> None:
    address = ipaddress.ip_address(host)
    assert any(holds(each, address.version, int(address), 1, 6) for each in LOOPBACK)
    assert not any(holds(each, 4, int(ipaddress.ip_address("128.0.0.1")), 1, 6) for each in LOOPBACK)


def test_everything_is_everything() -> None:
    for version in (0, 4, 6):
        assert any(holds(each, version, 0, port, 132) for each in EVERYTHING for port in (0, 65_535))


def test_what_the_kernel_is_told_is_as_long_as_what_it_holds_and_has_the_first_rules_first() -> None:
    rules = [Rule.of(parse(f"10.0.0.0/{8 + number % 20}:{number + 1}")) for number in range(fence.MOST_RULES + 3)]
    text = fence.packed(rules)
    found = {each.name: each for each in Btf(Elf(OBJECT)).maps}
    assert len(text) == found["fences"].value_size == HEAD_BYTES + fence.MOST_RULES * RULE_BYTES
    assert struct.unpack_from("=I", text, 16) == (fence.MOST_RULES,)
    first, mask = text[HEAD_BYTES : HEAD_BYTES + 16], text[HEAD_BYTES + 16 : HEAD_BYTES + 32]
    assert (first, mask) == (bytes(10) + b"\xff\xff\x0a\0\0\0", b"\xff" * 13 + bytes(3))
    assert struct.unpack_from("=4I", text, HEAD_BYTES + 32) == (1, 1, 4 << 16, 0xFFFF0000)
    udp = fence.packed([Rule.of(parse("10.0.0.53:53/udp"))])
    assert struct.unpack_from("=4I", udp, HEAD_BYTES + 32) == (53, 53, 4 << 16 | 17, 0xFFFFFFFF)


def test_the_object_is_the_one_whose_digest_stands_beside_it_and_has_each_program() -> None:
    told = fence.OBJECT.with_suffix(".o.sha256").read_text()
    assert told == f"{hashlib.sha256(OBJECT).hexdigest()}  {fence.OBJECT.name}\n"
    elf = Elf(OBJECT)
    for section in (*fence.MEMBERSHIP, *fence.AROUND):
        assert {each.symbol.name for each in elf.references(elf.number(section))} >= {"members", "fences"}


def refused(kind: Kind, type_: int = 1, protocol: int = 6, version: int = 4, address: int = 0) -> Refusal:
    return Refusal(kind, 1, 7, 7, type_, protocol, version, 443, address, "name")


@pytest.mark.parametrize(
    ("refusal", "protocol", "passage"),
    [
        (refused(Kind.CONNECT), TCP, Passage.REFUSED),
        (refused(Kind.CONNECT, 2, 17), UDP, Passage.UNSENT),
        (refused(Kind.DATAGRAM, 2, 17), UDP, Passage.REFUSED),
        (refused(Kind.DATAGRAM, 2, 136), UDP, Passage.REFUSED),
        (refused(Kind.SOCKET, 3, 6, 0), "raw", Passage.REFUSED),
        (refused(Kind.SOCKET, 1, 132, 0), "protocol 132", Passage.REFUSED),
    ],
)
def test_what_was_refused_is_told_by_the_words_of_destinations(
    refusal: Refusal, protocol: str, passage: Passage
) -> None:
    assert (protocol_of(refusal), passage_of(refusal)) == (protocol, passage)
    assert bool(host_of(refusal)) == (refusal.kind is not Kind.SOCKET)


def test_an_address_is_told_as_what_it_is_of() -> None:
    assert host_of(refused(Kind.CONNECT, address=int(ipaddress.ip_address("203.0.113.9")))) == "203.0.113.9"
    six = int(ipaddress.ip_address("2001:db8::9"))
    assert host_of(refused(Kind.CONNECT, version=6, address=six)) == "2001:db8::9"


def answer(family: int, *attributes: tuple[int, bytes]) -> bytes:
    parts = [struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in attributes]
    return struct.pack("=BBBBI", family, 24, 0, 0, 1) + b"".join(parts)


def test_of_a_pair_of_ends_our_own_is_the_address() -> None:
    ours, theirs = b"\xc6\x33\x64\x01", b"\xc6\x33\x64\x02"
    assert list(addresses.parse(answer(2, (1, theirs), (2, ours)))) == [(4, int.from_bytes(ours, "big"))]
    assert list(addresses.parse(answer(10, (1, bytes(15) + b"\x01")))) == [(6, 1)]
    assert list(addresses.parse(answer(10, (1, ours)))) == []
    assert list(addresses.parse(answer(1, (1, ours)))) == []


@given(st.binary(max_size=64))
def test_an_answer_that_nobody_wrote_gives_no_address_or_one(body: bytes) -> None:
    assert len(list(addresses.parse(body))) <= 1
