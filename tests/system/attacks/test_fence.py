"""A fence that policy asks for, and egress that is denied as containment: by real authority, sidecar and measurer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.system.attacks.stage import PATIENCE, Scene, scene
from tests.system.attacks.test_containment import contained, tampers
from tests.system.measurer.networks import ALONE, THEIRS, Elsewhere

REQUIRED: dict[str, Any] = {"egress": {"allowed": [], "deny": "required"}}


def connects(made: Scene, there: Elsewhere) -> str:
    """What comes of it, as the workload sees it."""
    return made.workload.tries(f"bool(socket.create_connection(('{there.host}', {there.port}), 5))")


def test_what_is_refused_is_not_connected_and_is_a_tamper() -> None:
    with scene(workload=ALONE, **REQUIRED) as made:
        there = Elsewhere(made.workload)
        made.until_open()
        assert connects(made, there) == "PermissionError"
        told = made.until_quarantined("egress-refused")
        assert told["violation_class"] == "tamper"
        assert f"{THEIRS}:{there.port}/tcp, where policy allows no destinations; that was refused" in told["text"]
        assert told["process"]["pid"] == made.workload.pid
        assert {each["kind"] for each in made.logs if each["event"] == "violation"} == {"egress-refused"}
        there.close()


def test_where_policy_calls_it_drift_traffic_comes_back_since_nothing_was_sent() -> None:
    with scene(workload=ALONE, **REQUIRED, onViolation={"egress-refused": "drift"}) as made:
        there = Elsewhere(made.workload)
        made.until_open()
        assert connects(made, there) == "PermissionError"
        made.until_quarantined("egress-refused")
        made.until_open(after=len(made.logs))
        there.close()


@pytest.mark.parametrize("mode", ["audit", "observe"])
def test_where_policy_does_not_enforce_nothing_is_refused_and_what_is_made_is_told(mode: str) -> None:
    with scene(workload=ALONE, mode=mode, **REQUIRED) as made:
        there = Elsewhere(made.workload)
        made.until("coverage")
        made.until("enrolled")
        made.attested()
        made.workload.do(f"kept = socket.create_connection(('{there.host}', {there.port}))")
        made.until("violation", lambda each: each["kind"] == "egress-foreign")
        there.close()


@pytest.mark.parametrize(
    "rules", [REQUIRED, {"containment": {"tamper": "deny-egress"}}], ids=["by-list", "as-containment"]
)
def test_a_workload_that_can_have_no_fence_is_not_affirmed_where_one_is_required(rules: dict[str, Any]) -> None:
    less = ("setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon,-net_admin")
    with scene(sidecar=less, **rules) as made:
        told = made.until("coverage", lambda each: "fence" in each)
        assert told["fence"].startswith("not in force: no fence: ")
        reasons = made.until("round")["reasons"]
        assert "coverage-weak: coverage.fence: none stands, where a fence is required" in reasons
        made.attested(2)
        assert "fresh" not in {each["phase"] for each in made.logs if each["event"] == "phase"}


def test_a_fence_that_policy_comes_to_require_closes_nothing_while_it_is_put_up() -> None:
    with scene(workload=ALONE) as made:
        there = Elsewhere(made.workload)
        made.until_open()
        file = made.folder / "authority" / "policies.yaml"
        before = len(made.logs)
        asks = "mode: enforce\n  egress: {allowed: [], deny: required}"
        file.write_text(file.read_text().replace("mode: enforce", asks))
        made.hall.reload()
        made.until("coverage", lambda each: each.get("fence", "").startswith("in force"), after=before)
        made.attested(2)
        assert {each["event"] for each in made.logs[before:]}.isdisjoint({"phase", "violation"})
        assert connects(made, there) == "PermissionError"
        made.until_quarantined("egress-refused")
        there.close()


def released(made: Scene) -> None:
    """By an operator."""
    told = made.hall.town.authority.release(made.hall.instance().instance)
    asyncio.run_coroutine_threadsafe(told, made.hall._loop).result(PATIENCE)


def test_a_tampered_workload_connects_to_nothing_until_it_is_released() -> None:
    with scene(workload=ALONE, containment={"tamper": "deny-egress"}) as made:
        there = Elsewhere(made.workload)
        made.until_open()
        made.workload.do(f"kept = socket.create_connection(('{there.host}', {there.port}))")
        there.accept()
        tampers(made)
        done = contained(made, "deny-egress")
        assert (done["means"], done["left"], done["refusal"]) == ("fence", 0, "")
        made.workload.done()
        there.held[0].settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            there.held[0].recv(1)
        assert connects(made, there) == "PermissionError"
        told = asyncio.run_coroutine_threadsafe(
            made.hall.town.authority.why(str(made.hall.instance().instance)), made.hall._loop
        ).result(PATIENCE)
        assert "passes until its traffic is opened again" in told.cause.mend
        before = len(made.logs)
        released(made)
        made.until_open(after=before)
        contained(made, "none", after=before)
        assert connects(made, there) == "True"
        there.close()
