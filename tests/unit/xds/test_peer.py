"""The process at the other end is pinned, or refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.xds.stage import descriptors
from xds.admission import Admission, Refusal, Seat
from xds.errors import PeerError
from xds.peer import Peer, identify

_CONNECT = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()"


@contextmanager
def connected(folder: Path) -> Iterator[tuple[socket.socket, subprocess.Popen[bytes]]]:
    """A connection from a process of its own, which lives until its standard input ends."""
    path = folder / f"{os.urandom(4).hex()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        client = subprocess.Popen([sys.executable, "-c", _CONNECT, str(path)], stdin=subprocess.PIPE)
        connection, _ = listener.accept()
        try:
            with connection:
                yield connection, client
        finally:
            end(client)


def end(client: subprocess.Popen[bytes]) -> None:
    client.communicate(timeout=10)


@pytest.mark.parametrize("by_kernel_pidfd", [True, False])
def test_a_peer_is_described_by_what_the_kernel_says(tmp_path: Path, by_kernel_pidfd: bool) -> None:
    with connected(tmp_path) as (connection, client):
        peer = identify(connection, by_kernel_pidfd=by_kernel_pidfd)
        assert (peer.pid, peer.uid, peer.gid) == (client.pid, os.getuid(), os.getgid())
        assert peer.executable == str(Path(f"/proc/{client.pid}/exe").readlink())
        assert peer.start_time is not None
        assert peer.alive()
        end(client)
        assert not peer.alive()
        peer.close()


@pytest.mark.parametrize("by_kernel_pidfd", [True, False])
def test_two_connections_of_one_process_are_the_same_and_of_two_are_not(tmp_path: Path, by_kernel_pidfd: bool) -> None:
    with connected(tmp_path) as (first, _), connected(tmp_path) as (second, _):
        one, again, other = (
            identify(connection, by_kernel_pidfd=by_kernel_pidfd) for connection in (first, first, second)
        )
        assert one.identity == again.identity
        assert one.identity != other.identity
        for peer in (one, again, other):
            peer.close()


@pytest.mark.parametrize("by_kernel_pidfd", [True, False])
def test_a_peer_that_has_ended_is_not_identified(tmp_path: Path, by_kernel_pidfd: bool) -> None:
    with connected(tmp_path) as (connection, client):
        end(client)
        before = descriptors()
        with pytest.raises(PeerError):
            identify(connection, by_kernel_pidfd=by_kernel_pidfd)
        assert descriptors() == before


def test_without_the_kernel_s_own_pidfd_a_peer_that_hung_up_is_not_trusted_to_be_the_one_found() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    before = descriptors()
    with ours, pytest.raises(PeerError, match="ended while"):
        identify(ours, by_kernel_pidfd=False)
    assert descriptors() == before - 1


def test_the_seat_is_for_one_process_until_it_has_ended(tmp_path: Path) -> None:
    seat = Seat(Admission(frozenset({os.getuid()})))
    with connected(tmp_path) as (first, client), connected(tmp_path) as (second, _):
        one, other = identify(first), identify(second)
        assert seat.take(one) is None
        assert seat.take(one) is None, "its second connection is welcome"
        one.close()
        assert isinstance(seat.take(other), Refusal), "that the first connection closed frees nothing"
        end(client)
        assert seat.holder is None
        assert seat.take(other) is None
        assert seat.holder is not None
        assert seat.holder.pid == other.pid
        seat.vacate()
        other.close()


def test_the_caller_s_rule_sees_only_peers_of_allowed_users(tmp_path: Path) -> None:
    seen: list[Peer] = []

    def admit(peer: Peer) -> Refusal | None:
        seen.append(peer)
        return Refusal("no")

    with connected(tmp_path) as (connection, _):
        peer = identify(connection)
        refusal = Seat(Admission(frozenset({os.getuid() + 1}), admit)).take(peer)
        assert refusal is not None
        assert "may not connect" in refusal.reason
        assert seen == []
        assert Seat(Admission(frozenset({os.getuid()}), admit)).take(peer) == Refusal("no")
        assert seen == [peer]
        peer.close()
