"""A workload that attacks, and what policy has done to it: by real authority, sidecar and measurer."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.attacks.stage import PATIENCE, Scene, scene
from tests.system.measurer.stage import ROOT

TICKING = "import threading, time"
TICKS = (
    "threading.Thread(target=lambda: [(open({path!r}, 'a').write('.'), time.sleep(0.005)) for _ in iter(int, 1)],"
    " daemon=True).start()"
)


@contextmanager
def playing(**rules: Any) -> Iterator[tuple[Scene, Path]]:
    """Open, and its workload busy. Gives the file that it writes to."""
    with scene(**rules) as made:
        ticks = made.folder / "loot" / "ticks"
        made.workload.do(TICKING)
        made.workload.do(TICKS.format(path=str(ticks)))
        made.until_open()
        yield made, ticks


def runs(ticks: Path, seconds: float = 0.2) -> bool:
    before = ticks.stat().st_size
    time.sleep(seconds)
    return ticks.stat().st_size > before


def tampers(made: Scene) -> None:
    """It runs what no reference allows; whether it ever hears of its end is not waited for."""
    made.workload.begin("subprocess.run(['/bin/true'])")


def contained(made: Scene, how: str, after: int = 0) -> dict[str, Any]:
    return made.until("contained", lambda each: each["how"] == how, after=after)


def shown(made: Scene, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-P", "-m", "proofbeat", "forensics", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def state(made: Scene) -> Path:
    return made.folder / "state" / "own"


def test_a_tampered_workload_is_closed_then_frozen_then_looked_at_then_killed() -> None:
    with playing(containment={"tamper": "kill"}) as (made, _):
        proxy = made.proxy()
        tampers(made)
        proxy.until_poisoned()
        done = contained(made, "kill")
        assert (done["left"], done["refusal"]) == (0, "")
        assert done["seconds"] < PATIENCE
        assert made.workload.process.wait(PATIENCE) < 0
        kept = made.until("forensics")
        events = [each["event"] for each in made.logs]
        assert events.index("violation") < events.index("contained")
        code, bundle = shown(made, "show", str(state(made)))
        assert code == 0
        assert bundle["intact"]
        assert Path(kept["bundle"]).name == bundle["name"]
        assert bundle["manifest"]["kind"] == "execution-foreign"
        states = {each["status"]["State"][0] for each in bundle["workload"] if each["is"] == "process"}
        assert states == {"T"}, "it was looked at while it stood still"
        assert any(each["kind"] == "execution-foreign" for each in bundle["about"]["causes"])
        assert any(each["is"] == "ExecutionFact" for each in bundle["about"]["facts"])
        for each in (state(made) / "forensics", Path(kept["bundle"])):
            assert stat.S_IMODE(each.stat().st_mode) == 0o700
        assert {stat.S_IMODE(each.stat().st_mode) for each in Path(kept["bundle"]).iterdir()} == {0o600}


def test_what_is_changed_in_a_bundle_is_noticed() -> None:
    with playing(containment={"tamper": "kill"}) as (made, _):
        tampers(made)
        kept = Path(made.until("forensics")["bundle"])
        with (kept / "workload.jsonl").open("ab") as file:
            file.write(b"{}\n")
        code, bundle = shown(made, "show", str(state(made)))
        assert code == 1
        assert bundle["faults"] == ["workload.jsonl is another file than was signed"]


def test_a_frozen_workload_runs_again_once_it_is_released_and_no_sooner() -> None:
    with playing(containment={"tamper": "freeze"}) as (made, ticks):
        tampers(made)
        assert contained(made, "freeze")["left"] == 0
        assert not runs(ticks)
        told = asyncio.run_coroutine_threadsafe(
            made.hall.town.authority.why(str(made.hall.instance().instance)), made.hall._loop
        ).result(PATIENCE)
        assert "frozen until its traffic is opened again" in told.cause.mend
        before = len(made.logs)
        asyncio.run_coroutine_threadsafe(
            made.hall.town.authority.release(made.hall.instance().instance), made.hall._loop
        ).result(PATIENCE)
        made.until_open(after=before)
        contained(made, "none", after=before)
        assert runs(ticks)
        assert not (state(made) / "contained.json").exists()


def test_a_drifted_workload_is_frozen_until_the_file_is_put_right() -> None:
    with playing(containment={"drift": "freeze"}) as (made, ticks):
        (made.folder / "app" / "main").write_text("what should not be there")
        assert contained(made, "freeze")["left"] == 0
        assert not runs(ticks)
        before = len(made.logs)
        (made.folder / "app" / "main").write_text("what is measured")
        made.until_open(after=before)
        contained(made, "none", after=before)
        assert runs(ticks)
        assert not (state(made) / "forensics").exists(), "drift leaves no bundle"


@pytest.mark.parametrize("mode", ["observe", "audit"])
def test_where_policy_does_not_enforce_nothing_is_contained_and_a_bundle_is_kept_all_the_same(mode: str) -> None:
    with scene(mode=mode, containment={"tamper": "kill", "drift": "kill"}) as made:
        made.until("round")
        made.workload.do("subprocess.run(['/bin/true'])")
        made.until("would-have")
        made.until("forensics")
        assert "contained" not in [each["event"] for each in made.logs]
        made.workload.do("pass")


def test_a_policy_that_wants_no_bundle_gets_none() -> None:
    with playing(containment={"tamper": "kill", "forensics": "none"}) as (made, _):
        tampers(made)
        contained(made, "kill")
        assert not (state(made) / "forensics").exists()
