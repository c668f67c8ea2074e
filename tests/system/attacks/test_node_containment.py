"""What policy has done to a tampered workload, where one measurer has several: to that one, and to no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.system.attacks.stage import PATIENCE
from tests.system.attacks.test_containment import contained, playing, runs, shown, state, tampers
from tests.system.attacks.test_fence import connects
from tests.system.attacks.test_node import settings
from tests.system.measurer.networks import ALONE, Elsewhere
from tests.system.measurer.nodes import Node


def test_a_tampered_workload_is_looked_at_and_killed_and_the_other_one_of_the_node_runs_on(tmp_path: Path) -> None:
    with (
        Node(tmp_path) as node,
        playing(measurer=settings(node), containment={"tamper": "kill"}) as (made, _),
        playing(measurer=settings(node), containment={"tamper": "kill"}) as (other, ticks),
    ):
        proxy = made.proxy()
        tampers(made)
        proxy.until_poisoned()
        done = contained(made, "kill")
        assert (done["left"], done["refusal"]) == (0, "")
        assert made.workload.process.wait(PATIENCE) < 0
        kept = made.until("forensics")
        code, bundle = shown(made, "show", str(state(made)))
        assert code == 0
        assert Path(kept["bundle"]).name == bundle["name"]
        looked_at = {each["pid"] for each in bundle["workload"] if each["is"] == "process"}
        assert made.workload.pid in looked_at
        assert other.workload.pid not in looked_at
        assert runs(ticks)
        assert {each["phase"] for each in other.logs if each["event"] == "phase"} == {"fresh"}


def test_a_frozen_workload_stays_so_when_the_nodes_measurer_is_killed_and_is_let_go_by_its_successor(
    tmp_path: Path,
) -> None:
    with Node(tmp_path) as node, playing(measurer=settings(node), containment={"tamper": "freeze"}) as (made, ticks):
        tampers(made)
        assert contained(made, "freeze")["left"] == 0
        assert not runs(ticks)
        after = len(made.logs)
        node.process.kill()
        made.until("measurer-lost", after=after)
        assert not runs(ticks)
        with Node(tmp_path):
            made.until("measurer-back", after=after)
            assert contained(made, "freeze", after=after)["left"] == 0
            assert not runs(ticks)
            released = made.hall.town.authority.release(made.hall.instance().instance)
            asyncio.run_coroutine_threadsafe(released, made.hall._loop).result(PATIENCE)
            made.until_open(after=after)
            contained(made, "none", after=after)
            assert runs(ticks)


def test_egress_is_denied_to_the_tampered_workload_alone_and_again_by_the_successor_of_a_measurer_that_was_killed(
    tmp_path: Path,
) -> None:
    denying = {"workload": ALONE, "containment": {"tamper": "deny-egress"}}
    with (
        Node(tmp_path) as node,
        playing(measurer=settings(node), **denying) as (made, _),
        playing(measurer=settings(node), **denying) as (other, _),
    ):
        there, elsewhere = Elsewhere(made.workload), Elsewhere(other.workload)
        tampers(made)
        assert contained(made, "deny-egress")["refusal"] == ""
        made.workload.done()
        assert (connects(made, there), connects(other, elsewhere)) == ("PermissionError", "True")
        after = len(made.logs)
        node.process.kill()
        made.until("measurer-lost", after=after)
        with Node(tmp_path):
            made.until("measurer-back", after=after)
            assert contained(made, "deny-egress", after=after)["refusal"] == ""
            assert (connects(made, there), connects(other, elsewhere)) == ("PermissionError", "True")
        there.close()
        elsewhere.close()
