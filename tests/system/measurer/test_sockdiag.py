"""What the kernel says of connections, and what others would like it to have said."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from random import Random

import pytest

from attestation.destinations import TCP
from attestation.facts import Opened
from measurer import kernel as k
from measurer.connections import parse
from measurer.sockdiag import Diagnosis

_LISTEN = 1 << 10


@pytest.mark.skipif(os.geteuid() != 0, reason="writing to another process's netlink port takes CAP_NET_ADMIN")
def test_an_end_of_the_list_that_the_kernel_did_not_send_ends_nothing() -> None:
    diagnosis = Diagnosis()
    list(diagnosis.dump(_LISTEN))  # the kernel gives the port with the first request
    port = diagnosis._socket.getsockname()[0]
    end = struct.pack("=IHHIIi", 20, k.NLMSG_DONE, 0, 1, port, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, k.NETLINK_SOCK_DIAG) as forger:
            forger.sendto(end, (port, 0))
        assert inode in {each.inode for each in diagnosis.dump(_LISTEN)}
    diagnosis.close()


def _told(own: set[int]) -> dict[int, Opened]:
    """Inode -> who opened the connection, as the kernel's own counts have it."""
    diagnosis = Diagnosis()
    found = [parse(body, TCP) for body in diagnosis.tcp(0xFFFF, 1 << (k.INET_DIAG_INFO - 1))]
    diagnosis.close()
    return {each.inode: each.opened for each in found if each is not None and each.inode in own and not each.takes}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_opened_a_connection_is_told_whatever_was_sent_and_whoever_has_ended_it(
    family: socket.AddressFamily,
) -> None:
    random = Random(7)  # noqa: S311 - the same bytes each time
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    pairs = []
    with socket.create_server((host, 0), family=family) as server:
        for _ in range(100):
            here = socket.create_connection(server.getsockname()[:2])
            pairs.append((here, server.accept()[0]))
    truth = {os.fstat(here.fileno()).st_ino: Opened.HERE for here, _ in pairs}
    truth |= {os.fstat(there.fileno()).st_ino: Opened.THERE for _, there in pairs}
    assert _told(set(truth)) == truth
    for pair in pairs:
        for one, other in (pair, pair[::-1]):
            one.setblocking(False)
            with suppress(BlockingIOError):  # its window is full, which is one of the states
                one.sendall(random.randbytes(random.choice([0, 1, 2, 1000, 10_000_000])))
            with suppress(BlockingIOError):
                other.setblocking(False)
                other.recv(random.choice([1, 100, 1_000_000]))
    assert _told(set(truth)) == truth
    for pair in pairs:
        for each in random.sample(pair, random.choice([0, 1, 2])):
            each.shutdown(socket.SHUT_WR)
    told = _told(set(truth))
    assert told and told.items() <= truth.items()
    for pair in pairs:
        for each in pair:
            each.close()
