"""What the kernel writes of sockets and counts, and what others might have it seem to have written."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.destinations import TCP, UDP
from attestation.facts import Opened
from measurer import kernel as k
from measurer.connections import Connection, Takers, cookie_of, counts, parse
from measurer.egress import SELDOM, pace

NOBODY = str(ipaddress.IPv4Address(0))
SNMP = (
    b"Ip: Forwarding DefaultTTL\nIp: 1 64\n"
    b"Tcp: RtoAlgorithm ActiveOpens PassiveOpens\nTcp: 1 42 7\n"
    b"Udp: InDatagrams NoPorts OutDatagrams\nUdp: 5 6 8\n"
    b"UdpLite: InDatagrams NoPorts OutDatagrams\nUdpLite: 1 2 3\n"
)
SNMP6 = b"Ip6OutRequests                  \t9\nUdp6OutDatagrams                \t11\nUdpLite6OutDatagrams 4\n"


def written(
    *,
    family: int = 2,
    state: int = k.TCP_ESTABLISHED,
    local: str = "192.0.2.1",
    remote: str = "203.0.113.9",
    ports: tuple[int, int] = (40000, 443),
    waiting: int = 0,
    info: tuple[int, int, int, int] | None = (1, 0, 0, 0),
) -> bytes:
    """One inet_diag_msg. info: bytes_acked, notsent_bytes, bytes_sent, bytes_retrans."""
    packed = [ipaddress.ip_address(each).packed.ljust(16, b"\0") for each in (local, remote)]
    ends = b"".join(each.to_bytes(2, "big") for each in ports)
    head = bytes([family, state, 0, 0]) + ends + b"".join(packed) + struct.pack("=IQ", 0, 77)
    body = head + struct.pack("=5I", 0, 0, waiting, 0, 5)
    if info is None:
        return body
    acked, unsent, sent, again = info
    tcp = struct.pack("=120xQ16xI52xQQ", acked, unsent, sent, again) + bytes(24)
    return body + struct.pack("=HH", 8, 1) + bytes(4) + struct.pack("=HH", len(tcp) + 4, k.INET_DIAG_INFO) + tcp


def parsed(**what: object) -> Connection:
    found = parse(written(**what), TCP)  # type: ignore[arg-type] # what `written` takes
    assert found is not None
    return found


def test_an_answer_reads_as_what_it_is_of() -> None:
    found = parsed()
    assert (found.cookie, found.inode, found.remote, found.local_port) == (77, 5, "203.0.113.9:443", 40000)
    assert (found.home, found.takes) == (False, False)
    assert cookie_of(written()) == 77


@given(st.binary(max_size=400), st.sampled_from([TCP, UDP]))
def test_no_answer_whatever_its_bytes_breaks_the_parser(body: bytes, protocol: str) -> None:
    assert (parse(body, protocol) is None) == (len(body) < 72)
    cookie_of(body)


@given(
    st.booleans(),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 20),
    st.integers(0, 1 << 20),
    st.integers(0, 1 << 20),
    st.sampled_from([k.TCP_ESTABLISHED, k.TCP_FIN_WAIT1, k.TCP_FIN_WAIT2, k.TCP_CLOSING, k.TCP_LAST_ACK, 8]),
)
def test_who_opened_a_connection_is_told_by_one_byte_whatever_is_under_way(
    here: bool, done: int, flying: int, unsent: int, again: int, state: int
) -> None:
    ends = state not in (k.TCP_ESTABLISHED, 8) and not unsent
    acked = done + int(here)
    waiting = flying + unsent + int(ends)
    found = parsed(state=state, waiting=waiting, info=(acked, unsent, done + flying + again, again))
    assert found.opened is (Opened.HERE if here else Opened.THERE)


@pytest.mark.parametrize("info", [None, (5, 0, 0, 0)], ids=["not said", "read while it changed"])
def test_what_the_kernel_does_not_say_is_told_by_who_listens(info: tuple[int, int, int, int] | None) -> None:
    found = parsed(info=info)
    assert found.opened is Opened.UNKNOWN
    listener = parsed(state=k.TCP_LISTEN, ports=(40000, 0), remote=NOBODY, info=None)
    other = parsed(state=k.TCP_LISTEN, ports=(40001, 0), remote=NOBODY, info=None)
    assert listener.listens
    assert Takers([listener]).judge(found).opened is Opened.THERE
    assert Takers([other]).judge(found).opened is Opened.HERE


def test_what_the_kernel_says_no_listener_changes() -> None:
    listener = parsed(state=k.TCP_LISTEN, ports=(40000, 0), remote=NOBODY, info=None)
    assert Takers([listener]).judge(parsed()).opened is Opened.HERE


def test_a_server_of_udp_that_connects_to_each_of_its_callers_connects_to_nobody_from_here() -> None:
    server, caller = (
        parse(written(state=7, ports=(443, 0), remote=NOBODY, info=None), UDP),
        parse(written(state=1, ports=(443, 50000), info=None), UDP),
    )
    assert server is not None and caller is not None
    assert Takers([server]).judge(caller).opened is Opened.THERE
    assert Takers().judge(caller).opened is Opened.HERE


@pytest.mark.parametrize(
    ("family", "local", "remote", "shown", "home"),
    [
        (2, "127.0.0.1", "127.9.9.9", "127.9.9.9:443", True),
        (2, "192.0.2.1", "192.0.2.1", "192.0.2.1:443", True),
        (10, "::1", "::1", "[::1]:443", True),
        (10, "2001:db8::1", "2001:db8::2", "[2001:db8::2]:443", False),
        (10, "::ffff:192.0.2.1", "::ffff:203.0.113.9", "203.0.113.9:443", False),
        (10, "::ffff:127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1:443", True),
    ],
)
def test_where_it_goes_and_whether_that_is_this_machine(
    family: int, local: str, remote: str, shown: str, home: bool
) -> None:
    found = parsed(family=family, local=local, remote=remote)
    assert (found.remote, found.home) == (shown, home)


def test_of_what_the_kernel_counts_what_leads_out_is_taken() -> None:
    assert list(counts(SNMP)) == [42, 8]
    assert list(counts(SNMP6)) == [11]


@given(st.floats(0.1, 60), st.lists(st.floats(0, 1000), max_size=6))
def test_looks_are_as_seldom_as_they_are_dear_but_not_without_end_and_never_more_often_than_asked(
    every: float, needs: list[float]
) -> None:
    interval = every
    for needed in needs:
        interval = pace(every, interval, needed)
        assert max(every, min(needed, SELDOM)) <= interval <= max(every, min(4 * needed, 2 * SELDOM))


def test_an_attempt_is_from_here_before_there_is_anything_to_count() -> None:
    assert parsed(state=k.TCP_SYN_SENT, info=None).opened is Opened.HERE
