"""What a program started ends with it, wherever that has gone: whoever still runs holds its standard output open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from proofbeat.up.reaper import GRACE_SECONDS, command

SHELL = ("sh", "-c")
DAEMON = "(setsid sleep 600 &)"
PATIENCE = 30
pytestmark = pytest.mark.timeout(PATIENCE)


@contextmanager
def reaped(*program: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """The reaper of a program, and the standard output of both."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reaper = subprocess.Popen(command(program), stdin=theirs.fileno(), stdout=subprocess.PIPE, text=True)
        assert reaper.stdout is not None
        try:
            assert ours.recv(100).strip().isdigit()
            yield reaper, reaper.stdout
        finally:
            reaper.send_signal(signal.SIGQUIT)
            reaper.wait(PATIENCE)


def test_what_a_program_leaves_behind_ends_with_it_and_its_exit_code_is_told() -> None:
    with reaped(*SHELL, f"{DAEMON}; sleep 600 & exit 3") as (reaper, output):
        assert output.read() == ""
        assert reaper.wait(PATIENCE) == 3


def test_a_program_that_is_ended_ends_with_the_daemons_that_left_its_session() -> None:
    with reaped(*SHELL, f"{DAEMON}; sleep 600 & echo ready; wait") as (reaper, output):
        output.readline()
        reaper.terminate()
        assert output.read() == ""
        assert reaper.wait(PATIENCE) == 128 + signal.SIGTERM


@pytest.mark.parametrize(("number", "grace"), [(signal.SIGTERM, GRACE_SECONDS), (signal.SIGQUIT, 0.0)])
def test_what_does_not_listen_is_killed_at_once_where_that_is_asked(number: signal.Signals, grace: float) -> None:
    with reaped(*SHELL, f"trap '' TERM; {DAEMON}; echo ready; while :; do sleep 600; done") as (reaper, output):
        output.readline()
        began = os.times().elapsed
        reaper.send_signal(number)
        assert output.read() == ""
        assert reaper.wait(PATIENCE) == 128 + signal.SIGKILL
        assert os.times().elapsed - began >= grace


def test_the_death_of_whoever_started_it_ends_the_program() -> None:
    reaper = command([*SHELL, f"{DAEMON}; echo ready; sleep 600"])
    starting = f"import subprocess, time; subprocess.Popen({reaper!r}); time.sleep(600)"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        parent = subprocess.Popen(
            [sys.executable, "-c", starting], stdin=theirs.fileno(), stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        parent.stdout.readline()
        parent.kill()
        assert parent.stdout.read() == ""
        parent.wait(PATIENCE)


def test_whoever_cannot_be_told_is_taken_for_dead() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        done = subprocess.run(command(["sleep", "600"]), stdin=theirs.fileno(), timeout=PATIENCE, check=False)
    assert done.returncode == 128 + signal.SIGTERM


def test_the_program_blocks_no_signal_and_leads_a_session_as_it_would_anywhere() -> None:
    asked = "import os, signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), os.getsid(0) == os.getpid())"
    with reaped(sys.executable, "-c", asked) as (_, output):
        assert output.read() == "set() True\n"


def test_what_cannot_be_started_is_told_in_the_systems_words() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert subprocess.run(command(["/no/such/program"]), stdin=theirs.fileno(), check=False).returncode == 127
        assert ours.recv(100) == b"No such file or directory\n"
