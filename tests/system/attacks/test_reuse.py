"""Pids that are given out again, in a pid namespace where that can be had at will."""

from __future__ import annotations

import subprocess
import sys

from tests.system.measurer.stage import ROOT


def test_a_pid_that_is_given_out_again_stands_for_nobody_but_its_new_owner() -> None:
    own = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    told = subprocess.run(
        [*own, sys.executable, "-m", "tests.system.attacks.reuse"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
