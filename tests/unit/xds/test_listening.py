"""The socket appears complete, replaces the dead, and spares the living."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from xds.errors import SocketInUse, SocketUnusable
from xds.listening import Endpoint, listen


def test_only_its_owner_may_connect_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    listening = listen(Endpoint(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listening.close()
    listening = listen(Endpoint(path, mode=0o660))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    listening.close()


def test_it_can_be_connected_to_and_is_gone_when_closed(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    listening = listen(Endpoint(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listening.close()
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".lock"] == []


def test_a_dead_server_s_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listening = listen(Endpoint(path))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    listening.close()


def test_a_living_server_is_left_in_peace_not_even_connected_to(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    living = listen(Endpoint(path))
    with pytest.raises(SocketInUse, match=r"xds\.sock.*already answers.*stop it or choose another"):
        listen(Endpoint(path))
    with pytest.raises(BlockingIOError):
        living.socket.accept()
    living.close()


def test_a_living_server_of_another_kind_is_left_in_peace(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        with pytest.raises(SocketInUse):
            listen(Endpoint(path))
        assert path.exists()


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    path.write_text("precious")
    with pytest.raises(SocketUnusable, match="no socket"):
        listen(Endpoint(path))
    assert path.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(SocketUnusable, match="choose a shorter socket path"):
        listen(Endpoint(tmp_path / ("x" * 108)))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SocketUnusable, match=r"check that .*missing exists"):
        listen(Endpoint(tmp_path / "missing" / "xds.sock"))


def test_closing_spares_a_successor_s_socket(tmp_path: Path) -> None:
    path = tmp_path / "xds.sock"
    listening = listen(Endpoint(path))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        listening.close()
        assert path.exists()


def test_a_file_that_is_gone_is_noticed_and_made_again_under_the_same_lock(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "xds.sock")
    listening = listen(endpoint)
    assert listening.stands
    endpoint.path.unlink()
    assert not listening.stands
    renewed = listening.again(endpoint)
    listening.socket.close()
    assert renewed.stands
    with pytest.raises(SocketInUse):
        listen(endpoint)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(endpoint.path))
    renewed.close()


def test_a_place_that_somebody_else_took_is_left_to_him(tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "xds.sock")
    listening = listen(endpoint)
    endpoint.path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(endpoint.path))
        other.listen()
        assert not listening.stands
        with pytest.raises(SocketInUse):
            listening.again(endpoint)
        listening.close()
        assert endpoint.path.exists()
