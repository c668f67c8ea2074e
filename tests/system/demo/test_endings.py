"""A demo that is not played to its end: by what cannot be had here, or by its user."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.system.demo.stage import begin, place, running_below


@pytest.mark.timeout(120)
def test_what_a_policy_asks_for_and_this_run_cannot_give_is_said_and_nothing_opens() -> None:
    """TLS resumption is known only where the listeners are ours; an ordinary user lacks more than that."""
    with place() as folder:
        demo = begin(folder, "--json", "--policy", "payments", "--delivery", "sds")
        out, told = demo.communicate(timeout=110)
    report: dict[str, Any] = json.loads(out)
    assert demo.returncode == 1
    assert (report["policy"], report["requests"]["ok"]) == ("payments", 0)
    assert [(act["name"], act["ok"]) for act in report["acts"]] == [("identity", False)]
    assert "where no TLS session may be resumed" in told
    assert ("Run it as root" in told) == (os.geteuid() != 0)


@pytest.mark.timeout(90)
def test_ctrl_c_in_the_middle_leaves_no_process_and_no_file() -> None:
    with place() as folder:
        demo = begin(folder)
        assert demo.stdout is not None
        began, said = time.monotonic(), ""
        while "traffic flows both ways" not in said:
            said = demo.stdout.readline()
            assert said, "the demo ended before its first act"
        assert list(folder.iterdir())
        assert running_below(str(folder))
        os.kill(demo.pid, signal.SIGINT)
        demo.communicate(timeout=60)
    assert time.monotonic() - began < 60
