"""A gate that policy asks for: what it refuses closes, and where it is not in force nothing is affirmed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.system.attacks.stage import Scene, scene
from tests.system.measurer.gates import foreign

APART = ("unshare", "--mount", "--propagation", "private")
RUN = "__import__('subprocess').run([{path!r}]).returncode"


def wants_to_run(playing: Scene) -> str:
    """A program that nobody has listed. What came of it, as the workload saw it."""
    program = foreign(playing.folder / "loot")
    return playing.workload.tries(RUN.format(path=str(program)))


def gate_of(playing: Scene) -> int:
    children = Path(f"/proc/{playing.measurer}/task/{playing.measurer}/children").read_text().split()
    return next(int(each) for each in children if b"measurer.gate" in Path(f"/proc/{each}/cmdline").read_bytes())


def test_what_is_refused_does_not_run_and_is_a_tamper() -> None:
    with scene(workload=APART, processes={"gate": "required"}) as playing:
        playing.until_open()
        assert wants_to_run(playing) == "PermissionError"
        told = playing.until_quarantined("execution-refused")
        assert told["violation_class"] == "tamper"
        assert told["subject"].endswith("/loot/foreign")
        assert {each["kind"] for each in playing.logs if each["event"] == "violation"} == {"execution-refused"}


def test_where_policy_calls_it_drift_traffic_comes_back_since_nothing_ran() -> None:
    with scene(workload=APART, processes={"gate": "required"}, onViolation={"execution-refused": "drift"}) as playing:
        playing.until_open()
        assert wants_to_run(playing) == "PermissionError"
        playing.until_quarantined("execution-refused")
        playing.until_open(after=len(playing.logs))


@pytest.mark.parametrize("mode", ["audit", "observe"])
def test_where_policy_does_not_enforce_nothing_is_refused(mode: str) -> None:
    with scene(workload=APART, mode=mode, processes={"gate": "required"}) as playing:
        playing.until("coverage")
        playing.until("enrolled")
        playing.attested()
        assert wants_to_run(playing) == "0"
        playing.until("violation", lambda each: each["kind"] == "execution-foreign")


def test_a_workload_that_can_have_no_gate_is_not_affirmed_where_one_is_required() -> None:
    with scene(processes={"gate": "required"}) as playing:
        told = playing.until("coverage", lambda each: "gate" in each)
        assert told["gate"].startswith("not in force: others execute from its mounts")
        told = playing.until("round")
        assert told["reasons"] == ["coverage-weak: processes.gate: none is in force, where a gate is required"]
        playing.attested(2)
        assert "fresh" not in {each["phase"] for each in playing.logs if each["event"] == "phase"}


def test_and_is_served_without_one_where_it_is_best_effort() -> None:
    with scene(processes={"gate": "best-effort"}) as playing:
        playing.until_open()
        assert wants_to_run(playing) == "0"
        playing.until_quarantined("execution-foreign")


def test_a_gate_that_is_killed_closes_until_it_stands_again() -> None:
    with scene(workload=APART, processes={"gate": "required"}) as playing:
        playing.until_open()
        before = gate_of(playing)
        os.kill(before, signal.SIGKILL)
        told = playing.until_quarantined("collector-dead")
        assert (told["subject"], told["violation_class"]) == ("processes.gate", "drift")
        playing.until_open(after=len(playing.logs))
        assert gate_of(playing) != before
        assert wants_to_run(playing) == "PermissionError"


def test_one_that_nobody_requires_is_killed_and_nothing_closes() -> None:
    with scene(workload=APART, processes={"gate": "best-effort"}) as playing:
        playing.until_open()
        os.kill(gate_of(playing), signal.SIGKILL)
        playing.attested(2)
        assert "violation" not in {each["event"] for each in playing.logs}


def test_a_gate_that_policy_comes_to_require_closes_nothing_while_it_is_being_set_up() -> None:
    with scene(workload=APART) as playing:
        playing.until_open()
        file = playing.folder / "authority" / "policies.yaml"
        before = len(playing.logs)
        file.write_text(file.read_text().replace("mode: enforce", "mode: enforce\n  processes: {gate: required}"))
        playing.hall.reload()
        playing.until("coverage", lambda each: each.get("gate") == "in force", after=before)
        playing.attested(2)
        assert {each["event"] for each in playing.logs[before:]}.isdisjoint({"phase", "violation"})
        assert wants_to_run(playing) == "PermissionError"
        playing.until_quarantined("execution-refused")


def test_with_measurer_and_gate_stopped_the_sidecar_closes_and_lets_go_of_whoever_waits() -> None:
    with scene(workload=APART, processes={"gate": "required"}) as playing:
        playing.until_open()
        for pid in (gate_of(playing), playing.measurer):
            os.kill(pid, signal.SIGSTOP)
        playing.workload.begin(f"tell({str(playing.folder / 'loot')!r}, 'ran', lambda: {RUN.format(path='/bin/true')})")
        playing.until("measurer-lost")
        playing.workload.done()
        assert (playing.folder / "loot" / "ran").read_text() == "0"
