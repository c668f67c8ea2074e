"""Attacks on who holds the key, where policy requires that the proxy is attested itself."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authority.store.records import State
from tests.system.attacks.stage import IDENTITY, Proxy, Scene, scene

INTERPRETER = Path(sys.executable).resolve()
"""What the stand-in for Envoy runs."""
REFERENCED = (hashlib.sha256(INTERPRETER.read_bytes()).hexdigest(),)
LAYERS: dict[str, Any] = {"files": {}, "processes": {}, "proxy": {}}


@pytest.fixture
def attested() -> Iterator[Scene]:
    """A workload whose proxy must be attested; none is there yet."""
    with scene(proxies=REFERENCED, layers=LAYERS) as playing:
        yield playing


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The program that is referenced, and more: it takes a while to read, in which a key could be given away."""
    copy = Path(shutil.copy(INTERPRETER, tmp_path / "python3"))
    os.truncate(copy, copy.stat().st_size + 400_000_000)
    return copy


def given_no_identity(proxy: Proxy) -> bool:
    """Of all that it was given until now."""
    proxy.end()
    lines = []
    while True:
        try:
            lines.append(proxy._lines.get_nowait())
        except queue.Empty:
            return IDENTITY not in lines


def test_without_a_proxy_nothing_is_attested_and_the_first_one_is_measured_before_it_is_given_a_certificate(
    attested: Scene,
) -> None:
    round_ = attested.until("round", lambda each: each["tier"] == "none")
    assert "none does" in str(round_["reasons"])
    attested.proxy()
    assert attested.until("round", lambda each: each["tier"] == "affirming")


def test_a_proxy_whose_program_is_not_referenced_gets_no_identity(attested: Scene, foreign: Path) -> None:
    comer = attested.comer(python=foreign)
    told = attested.until_quarantined("proxy-foreign")
    assert told["violation_class"] == "tamper"
    assert REFERENCED[0][:12] not in told["text"]
    assert f"pid {comer.pid}" in told["text"]
    assert given_no_identity(comer)


def test_a_foreign_successor_of_an_attested_proxy_is_not_given_what_is_open(foreign: Path) -> None:
    """It comes at once, long before the next round."""
    with scene(proxies=REFERENCED, layers=LAYERS, interval="10s", freshness="60s") as playing:
        door = playing.folder / "door"
        comer = playing.comer(python=foreign, at=door)
        proxy = playing.proxy()
        playing.workload.do(f"os.kill({proxy.pid}, {int(signal.SIGKILL)})")
        assert proxy.killed()
        door.symlink_to(playing.socket)
        playing.until_quarantined("proxy-foreign")
        assert given_no_identity(comer)


def test_a_successor_that_is_as_the_one_that_was_attested_is_given_what_is_open(attested: Scene) -> None:
    proxy = attested.proxy()
    attested.workload.do(f"os.kill({proxy.pid}, {int(signal.SIGKILL)})")
    assert proxy.killed()
    before = len(attested.logs)
    attested.proxy()
    assert not [each for each in attested.logs[before:] if each["event"] == "violation"]


def test_a_successor_that_acknowledges_nothing_is_not_said_to_serve_what_its_predecessor_did(attested: Scene) -> None:
    door = attested.folder / "door"
    proxy, comer = attested.proxy(), attested.comer(at=door)
    assert attested.attested(rounds=2).served != ""
    comer.do("SocketClient.answer = lambda *_: None")
    attested.workload.do(f"os.kill({proxy.pid}, {int(signal.SIGKILL)})")
    assert proxy.killed()
    door.symlink_to(attested.socket)
    attested.until("envoy-admitted", lambda each: each["envoy"] == comer.pid)
    known = attested.attested(rounds=2)
    assert (known.state, known.served) == (State.FRESH, "")


@pytest.mark.parametrize("seconds", [0, 1])
def test_whoever_attaches_to_the_attested_proxy_is_told_by_its_own_layer(seconds: int) -> None:
    """The layer of processes, which tells of it by event, is off. seconds: from the proxy's admission."""
    with scene(proxies=REFERENCED, layers={"files": {}, "proxy": {}}) as playing:
        proxy = playing.proxy()
        playing.workload.do(f"import ctypes, time; time.sleep({seconds}); libc = ctypes.CDLL(None, use_errno=True)")
        playing.workload.do(f"assert libc.ptrace(0x4206, {proxy.pid}, 0, 0) == 0")
        try:
            told = playing.until_quarantined("proxy-traced")
            assert told["violation_class"] == "tamper"
            assert f"attached: {playing.workload.pid} " in told["text"]
            proxy.until_poisoned()
        finally:
            playing.workload.end()  # nobody can wait for a process while somebody else is attached to it


def test_a_proxy_without_filters_that_deny_is_closed_where_policy_asks_for_them() -> None:
    with scene(proxies=REFERENCED, layers=LAYERS, proxy={"requireDenyFilters": True}) as playing:
        playing.comer()
        told = playing.until_quarantined("proxy-undenied")
        assert told["violation_class"] == "drift"
        assert "requireDenyFilters" in told["rule"]
