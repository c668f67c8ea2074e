"""Who is the workload, by descent."""

from __future__ import annotations

import os
import subprocess

from sidecar.admission import descends_from


def test_the_workload_and_whatever_it_started_are_the_workload() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        try:
            assert descends_from(shell.pid, shell.pid)
            assert descends_from(child, shell.pid)
            assert not descends_from(os.getpid(), shell.pid)
        finally:
            os.kill(child, 9)
            shell.kill()


def test_a_process_that_is_gone_counts_as_the_workload() -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    assert descends_from(ended.pid, os.getpid())
