"""What is told where nobody has a capability: by a mesh all of which was started without any."""

from __future__ import annotations

import json
import subprocess
import sys

from proofbeat.bench.detect.catalogue import CATALOGUE
from tests.system.measurer.stage import ROOT

NO_CAPABILITY = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
OVER_AT_ONCE = "run-what-was-dropped"
TRIED = ("write-in-place", "add", "change-the-mode", OVER_AT_ONCE, "run-what-stays", "attach", "ask-for-the-key")


def test_what_stays_is_told_without_any_capability_and_what_is_over_at_once_is_not_promised() -> None:
    command = [*NO_CAPABILITY, sys.executable, "-m", "tests.system.attacks.restricted", *TRIED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = {each["act"]: each["told"] for each in map(json.loads, done.stdout.splitlines())}
    assert set(told) == set(TRIED)
    expected = {each.name: each.told_class for each in CATALOGUE if each.name in TRIED}
    assert told.pop(OVER_AT_ONCE) in (None, "tamper")
    assert told == {name: expected[name] for name in told}
