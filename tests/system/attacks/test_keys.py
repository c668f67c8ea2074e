"""Attacks on the key socket."""

from __future__ import annotations

import os
import signal
import socket

from tests.system.attacks.stage import POISON, REFUSED, Proxy, scene, user

US = 61803


def ask(path: str) -> bool:
    """Is whoever runs this test served?"""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        try:
            return bool(asking.recv(1))
        except ConnectionResetError:
            return False


def test_root_in_the_workload_that_becomes_our_user_is_refused_the_key() -> None:
    limited = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all")
    ours = user(US, "dac_read_search", "sys_ptrace", "kill")
    with scene(workload=limited, sidecar=ours, owner=US) as playing:
        playing.until_open()
        playing.isolation(lambda each: each.workload_can_become_us and each.distinct_user)
        playing.workload.do(f"os.setresgid({US}, {US}, {US}); os.setresuid({US}, {US}, {US})")
        through = f"/proc/{playing.sidecar.pid}/root{playing.socket}"
        assert playing.workload.tries(f"ask({through!r})") == "PermissionError"
        assert playing.workload.tries(f"ask({str(playing.socket)!r})") == REFUSED
        told = playing.until_quarantined("key-socket-second-client")
        assert told["violation_class"] == "tamper"


def test_a_process_that_left_the_workload_by_losing_its_parent_takes_the_empty_seat_and_gets_no_key() -> None:
    with scene() as playing:
        playing.until_open()
        playing.workload.starts_orphan(f"(ask({str(playing.socket)!r}), time.sleep(60))")
        told = playing.until_quarantined("key-socket-second-client")
        assert told["violation_class"] == "tamper"
        assert "losing its parent" in told["text"]
        playing.until("escalated")
        assert not [each for each in playing.logs if each["event"] == "envoy-admitted"]


def test_nobody_gets_the_key_before_the_measurer_has_spoken() -> None:
    with scene(deadman="5s") as playing:
        playing.until_open()
        os.kill(playing.measurer, signal.SIGSTOP)
        try:
            first = Proxy(playing.socket)
            given = first.given()
        finally:
            os.kill(playing.measurer, signal.SIGCONT)
        assert given == POISON
        first.until_identity()
        first.end()


def test_a_second_client_is_refused_closes_and_does_not_take_the_place_of_the_guarded_envoy() -> None:
    with scene() as playing:
        playing.until_open()
        proxy = playing.proxy()
        assert not ask(str(playing.socket))
        told = playing.until_quarantined("key-socket-second-client")
        assert told["violation_class"] == "drift"
        proxy.until_poisoned()
        assert playing.until("closed")["detail"] == "verified"
        proxy.until_identity()
        os.kill(playing.sidecar.pid, 9)
        assert proxy.killed(), "it was still the guarded one"


def test_a_client_of_another_user_is_refused_and_closes_nothing() -> None:
    with scene(envoys=[US]) as playing:
        playing.until_open()
        before = len(playing.logs)
        assert not ask(str(playing.socket))
        playing.until("envoy-refused", after=before)
        proxy = playing.proxy(user(US, "dac_read_search"))
        playing.until("round", after=len(playing.logs))
        assert not [each for each in playing.logs if each["event"] == "violation"]
        playing.isolation(lambda each: each.envoy_distinct_user)
        assert proxy.process.poll() is None


def test_another_server_in_the_sockets_place_gets_envoys_requests_and_no_key_and_the_closing_still_arrives() -> None:
    with scene() as playing:
        playing.until_open()
        proxy = playing.proxy()
        path = str(playing.socket)
        playing.workload.do(f"os.unlink({path!r}); fake = socket.socket(socket.AF_UNIX); fake.bind({path!r})")
        playing.workload.do("fake.listen()")
        (playing.folder / "app" / "main").write_text("changed")
        proxy.until_poisoned()
        playing.until_quarantined("file-modified")
        playing.until("closed")
