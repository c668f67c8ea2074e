"""`proofbeat sidecar --run-envoy`: an Envoy that is started, ended and started again, and opens only when it may."""

from __future__ import annotations

import os
import shutil
import signal
import stat
from pathlib import Path

import pytest

from sidecar.restored import LEFT_BEHIND
from tests.system.attacks.stage import DEADMAN, PATIENCE
from tests.system.delivery.stage import Own, gone, own, stopped
from tests.system.measurer.stage import ROOT

BLIND = ("setpriv", "--bounding-set=-net_admin,-sys_ptrace", "--inh-caps=-net_admin,-sys_ptrace")
"""Before a sidecar that may neither destroy sockets nor look into an Envoy that is not dumpable."""
BARE = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Before a workload that even such a sidecar may look into."""


def closed_by(running: Own, before: int, *how: str) -> dict[str, float]:
    """The rungs of the closing that ended in one of these ways, in seconds since it began."""
    closed = running.scene.until("closed", after=before)
    assert closed["how"] == "closed", closed
    assert closed["detail"] in how, closed
    assert running.closed()
    return {name: at - closed["steps"]["began"] for name, at in closed["steps"].items()}


def test_the_sidecars_own_envoy_opens_closes_and_opens_again_and_its_admin_is_nobody_elses() -> None:
    with own() as running:
        envoy = running.envoy()
        running.scene.isolation(lambda each: each.envoy_non_dumpable)
        with running.stream() as stream:
            assert stat.S_IMODE(running.admin.stat().st_mode) == 0o600
            with running.drifted() as before:
                assert stream.ended(within=5)
                rungs = closed_by(running, before, "verified")
                assert {"written", "acknowledged", "swept", "verified"} <= rungs.keys()
        with running.stream():
            assert not gone(envoy, within=0), "a closing that can be verified ends no Envoy"


def test_a_new_policy_with_other_times_drops_no_connection_and_closes_nothing() -> None:
    with own(deadman="10s", interval="300ms", freshness="4s") as running:
        envoy = running.envoy()
        with running.stream() as stream:
            for times in (("deadman: 10s", "deadman: 1s"), ("interval: 300ms", "interval: 200ms")):
                # What closes for nothing does so when a beat is late by the new time: two rounds in between at least.
                running.ruled(*times)
                assert not stream.ended(within=1.5)
            running.ruled("deadman: 1s", "deadman: 20s")
            assert not stream.ended(within=1.5)
        assert not gone(envoy, within=0)
        assert not [each for each in running.scene.logs if each["event"] in ("closed", "envoy-ended")]


def test_drift_drains_where_policy_says_so_and_tamper_cuts_what_drains() -> None:
    with own(connections="drain", deadman="8s") as running:
        running.envoy()
        with running.stream() as stream, running.drifted() as before:
            running.scene.until("draining", after=before)
            running.until_closed()
            assert not stream.ended(within=0.5)
            running.scene.workload.do(f"subprocess.run(['{shutil.which('true')}'])")
            closed_by(running, before, "verified")
            assert stream.ended(within=0.5)


def test_what_drains_is_cut_when_time_has_passed_that_nobody_vouches_for() -> None:
    with own(connections="drain", deadman="8s") as running:
        running.envoy()
        with running.stream() as stream, running.drifted() as before:
            running.scene.until("draining", after=before)
            running.scene.hall.clock.ahead += 10.0
            closed = running.scene.until("closed", after=before)
            assert closed["reason"] == LEFT_BEHIND
            assert stream.ended(within=0.5)


def test_an_envoy_that_crashes_is_started_again_and_open_while_the_lease_is_good() -> None:
    with own() as running:
        envoy = running.envoy()
        with running.stream() as stream:
            os.kill(envoy, signal.SIGKILL)
            assert stream.ended(within=5)
        ended = running.scene.until("envoy-ended")
        assert "SIGKILL" in ended["why"]
        assert not ended["looping"]
        assert running.envoy(instead_of=envoy) != envoy
        with running.stream():
            pass


def test_an_envoy_that_is_started_again_while_closed_stays_closed() -> None:
    with own() as running:
        envoy = running.envoy()
        with running.stream():
            pass
        with running.drifted() as before:
            closed_by(running, before, "verified")
            os.kill(envoy, signal.SIGKILL)
            again = running.envoy(instead_of=envoy)
            running.scene.until("phase", lambda each: each["phase"] == "quarantined")
            assert running.closed()
        with running.stream():
            assert not gone(again, within=0)


def test_an_envoy_that_stands_still_is_asked_to_quit_then_killed_and_comes_back_closed() -> None:
    with own() as running:
        envoy = running.envoy()
        with running.stream() as stream, stopped(envoy), running.drifted() as before:
            rungs = closed_by(running, before, "Envoy was killed")
            assert rungs["quit"] < rungs["killed"] < rungs["ended"] <= rungs["verified"]
            assert "acknowledged" not in rungs
            assert stream.ended(within=0.5)
            again = running.envoy(instead_of=envoy)
            assert running.closed()
        with running.stream():
            assert not gone(again, within=0)


def test_where_no_sweep_can_tell_envoy_is_asked_to_quit_and_comes_back_closed() -> None:
    with own(sidecar=BLIND, workload=BARE) as running:
        envoy = running.envoy()
        with running.stream() as stream, running.drifted() as before:
            rungs = closed_by(running, before, "Envoy quit", "Envoy was killed")
            assert rungs["acknowledged"] < rungs["quit"] < rungs["ended"] <= rungs["verified"]
            assert stream.ended(within=0.5)
            running.envoy(instead_of=envoy)
            assert running.closed()
        with running.stream():
            pass


def test_no_envoy_outlives_a_sidecar_that_dies_together_with_its_guardian() -> None:
    with own() as running:
        envoy, measurer = running.envoy(), running.scene.measurer
        with stopped(measurer):
            running.scene.sidecar.kill()
            assert gone(envoy)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_nothing_outlives_its_lifetime_in_an_envoy_whose_sidecar_and_guardian_are_gone(number: signal.Signals) -> None:
    """Nobody is left to end it, and it is nobody's child: what it was given ends by itself."""
    with own(runs=False, deadman="2s") as running, running.started() as envoy:
        running.envoy()
        with running.stream() as stream:
            for pid in (running.scene.measurer, running.scene.sidecar.pid):
                os.kill(pid, number)
            assert stream.ended(within=2.0 + 2.0)
            running.until_closed()
            assert envoy.poll() is None
            if number is signal.SIGSTOP:
                os.kill(running.scene.measurer, signal.SIGKILL)


HANGS = """
import signal, sys, time
if "proofbeat" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(600))
"""
"""What Python reads first of all: a signal then stands for a callback of the event loop that never returns."""


def test_what_is_open_ends_when_the_sidecars_event_loop_hangs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    first = ("env", f"PYTHONPATH={tmp_path}{os.pathsep}{ROOT}")
    with own(runs=False, sidecar=first) as running, running.started() as envoy:
        running.envoy()
        with running.stream() as stream:
            running.scene.sidecar.send_signal(signal.SIGUSR1)
            assert stream.ended(within=DEADMAN + 2.0)
            assert envoy.wait(5) == -signal.SIGKILL
        running.scene.sidecar.kill()


def test_no_other_envoy_of_the_same_user_is_given_the_key() -> None:
    with own() as running:
        envoy = running.envoy()
        with stopped(envoy):
            os.kill(envoy, signal.SIGKILL)
            with running.started() as other:
                refused = running.scene.until("envoy-refused", lambda each: f"process {other.pid} " in each["reason"])
                assert "not the Envoy that this sidecar runs" in refused["reason"]


def test_a_hot_restart_is_a_second_client_that_gets_no_key_and_closes() -> None:
    with own(runs=False) as running, running.started():
        running.envoy()
        with running.stream() as stream, running.started("--restart-epoch", "1") as successor:
            refused = running.scene.until("envoy-refused")
            assert f"process {successor.pid} " in refused["reason"]
            assert "second client" in refused["reason"]
            running.scene.until_quarantined("key-socket-second-client")
            assert stream.ended(within=5)


def test_a_program_that_ends_again_and_again_is_a_loop_and_its_reason_is_told(tmp_path: Path) -> None:
    program = tmp_path / "envoy"
    program.write_text("#!/bin/sh\necho '[critical] it cannot be: no such port'\nexit 3\n")
    program.chmod(0o755)
    with own(program=[str(program)]) as running:
        looping = running.scene.until("envoy-ended", lambda each: each["looping"])
        assert "exit status 3; [critical] it cannot be: no such port" in looping["why"]


def test_the_end_of_the_sidecar_is_the_end_of_its_envoy_and_of_what_ran_through_it() -> None:
    with own() as running:
        envoy = running.envoy()
        with running.stream() as stream:
            running.scene.sidecar.terminate()
            assert stream.ended(within=5)
            assert gone(envoy)
            assert running.scene.sidecar.wait(PATIENCE) == 0
