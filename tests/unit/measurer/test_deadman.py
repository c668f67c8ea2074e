"""The guardian's thread when it fails itself, or finds the other thread in its way."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from measurer.deadman import Deadman
from measurer.envoy import Envoy
from measurer.guardian import Guardian


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """Stands for Envoy."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def held(process: subprocess.Popen[bytes]) -> Envoy:
    return Envoy(process.pid, os.pidfd_open(process.pid), process.pid)


class Broken(Guardian):
    """A guardian whose next thought fails."""

    def patience(self, now: float) -> float | None:
        if self.duty == "guarding":
            raise MemoryError
        return super().patience(now)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_guardian_that_fails_ends_envoy_and_the_measurer(victim: subprocess.Popen[bytes]) -> None:
    over = threading.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        over.set()

    deadman = Deadman(Broken(60.0), os.pidfd_open(os.getpid()), end)
    deadman.start()
    deadman.guard(held(victim))
    assert over.wait(5)
    assert victim.wait(5) == -signal.SIGKILL
    assert statuses == [1]
    deadman.join()


def test_a_sweep_that_stands_still_keeps_nobody_from_ending_envoy(victim: subprocess.Popen[bytes]) -> None:
    envoy, began = held(victim), time.monotonic()
    with envoy._lock:  # as the other thread has it in the midst of a sweep
        cut = envoy.cut_off()
    assert cut.left == 0
    assert victim.wait(5) == -signal.SIGKILL
    assert time.monotonic() - began < 5.0


def test_who_is_let_go_of_already_may_be_given_up_once_more() -> None:
    """A node's first thread ends it while another one lets go of a session."""
    over = threading.Event()
    deadman = Deadman(Guardian(60.0), os.pidfd_open(os.getpid()), lambda _: over.set())
    deadman.start()
    deadman.hang_up()
    assert over.wait(5)
    deadman.join()
    deadman.close()
    deadman.hang_up(1)
