"""Somebody else's detector sees what we do not: real relays, a real sidecar, and an authority that is told."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proofbeat.bench.detect.falco import alert
from tests.system.attacks.stage import Scene, scene, user
from tests.system.authority.test_alerts import post
from tests.system.measurer.stage import ROOT
from tests.unit.attestation.alerting import CONTAINER

RULE = "Something was done"
OTHER = "0" * 12
CLOSING = {"alerts": [{"detector": "falco", "rules": [RULE], "class": "tamper"}]}
IN_THE_MACHINES_OWN_PIDS = Path("/proc/self/ns/pid").stat().st_ino == 0xEFFFFFFC


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sidecar's, by its environment; it runs in a container of this id, as far as anybody says."""
    with tempfile.TemporaryDirectory(prefix="detect-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "detectors.sock"
        monkeypatch.setenv("PROOFBEAT_DETECTORS_SOCKET", str(path))
        monkeypatch.setenv("PROOFBEAT_DETECTORS_KNOWN_AS_CONTAINER", CONTAINER)
        yield path


class Relay:
    """`proofbeat detector feed`, as Falco's `program_output` runs it."""

    def __init__(self, path: Path, *arguments: str, first: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*first, sys.executable, "-P", "-m", "proofbeat", "detector", "feed", "--to", str(path), *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def raises(self, rule: str = RULE, pid: int = 0, ago: float = 0.0, container: str = CONTAINER[:12]) -> None:
        at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=ago)
        self.writes(alert(pid or None, at, rule, container_id=container))

    def writes(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ends(self) -> tuple[int, str]:
        """Exit code, and what it said."""
        assert self.process.stdin and self.process.stderr
        self.process.stdin.close()
        said = self.process.stderr.read()
        return self.process.wait(), said


@contextmanager
def relay(path: Path, *arguments: str, first: tuple[str, ...] = ()) -> Iterator[Relay]:
    started = Relay(path, *arguments, first=first)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def until_observed(playing: Scene, beyond: Relay) -> int:
    """Everything before has been looked at: an alert that closes nothing was told. How many lines there are then."""
    beyond.raises("The last one")
    playing.until("detector-alert", lambda each: "The last one" in each["alert"])
    return len(playing.logs)


def said(playing: Scene, event: str) -> list[dict[str, Any]]:
    return [each for each in playing.logs if each["event"] == event]


def test_an_alert_about_the_workload_closes_and_says_by_which_rule_of_whose(socket: Path) -> None:
    with scene(detectors=CLOSING) as playing, relay(socket) as falco:
        proxy = playing.proxy()
        playing.until_open()
        falco.raises()
        told = playing.until_quarantined("detector-alert")
        assert told["violation_class"] == "tamper"
        assert told["text"].startswith(f"falco: {RULE} (critical): ")
        proxy.until_poisoned()
        assert falco.ends()[0] == 0
        playing.until("reported")
        known = asyncio.run_coroutine_threadsafe(
            playing.hall.town.authority.why(playing.hall.instance().instance.value), playing.hall._loop
        ).result(10)
        assert (known.state, known.open) == ("quarantined", False)
        assert known.cause is not None and known.cause.kind == "detector-alert"
        assert RULE in known.answer


def test_what_is_about_another_is_old_or_was_said_before_changes_nothing(socket: Path) -> None:
    with scene(detectors=CLOSING) as playing, relay(socket) as falco:
        playing.proxy()
        playing.until_open()
        falco.raises(container=OTHER)
        falco.raises(ago=120.0)
        falco.raises(ago=-120.0)
        until_observed(playing, falco)
        assert said(playing, "violation") == []
        assert len(said(playing, "detector-alert")) == 1
        assert playing.hall.instance().state == "fresh"


def test_a_pid_is_the_workloads_by_the_measurers_word_at_the_time_of_the_alert(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside of the machine's own pid namespace a detector's pids are no pids of ours, and say nothing."""
    monkeypatch.delenv("PROOFBEAT_DETECTORS_KNOWN_AS_CONTAINER")
    with scene(detectors=CLOSING) as playing, relay(socket) as falco:
        playing.proxy()
        playing.until_open()
        if not IN_THE_MACHINES_OWN_PIDS:
            falco.raises(pid=playing.workload.pid, container="host")
            told = playing.until("detector-alert")
            assert not told["named"] and said(playing, "violation") == []
            return
        falco.raises(pid=falco.process.pid, container="host")  # somebody else's
        falco.raises(pid=playing.workload.pid, container="host", ago=50.0)  # from before it had that pid
        falco.raises("The last one", pid=playing.workload.pid, container="host")
        playing.until("detector-alert", lambda each: "The last one" in each["alert"] and each["named"])
        assert said(playing, "violation") == []
        falco.raises(pid=playing.workload.pid, container="host")
        told = playing.until_quarantined("detector-alert")
        assert told["process"]["pid"] == playing.workload.pid


def test_a_detector_that_policy_requires_opens_nothing_before_it_is_heard_and_closes_when_it_is_gone(
    socket: Path,
) -> None:
    with scene(detectors={"sources": {"tetragon": {}}}) as playing:
        proxy = playing.comer()
        early = playing.until("round", lambda each: each["tier"] != "affirming")
        assert "detectors.tetragon: it is not heard" in early["reasons"][0]
        assert said(playing, "violation") == []
        with relay(socket, "--of", "tetragon") as tetra:
            proxy.until_identity()
            playing.until_open()
            opened = len(playing.logs)
            assert tetra.ends()[0] == 0
        gone = playing.until("violation", lambda each: each["kind"] == "detector-silent", after=opened)
        assert (gone["violation_class"], "nobody relays it" in gone["text"]) == ("drift", True)
        proxy.until_poisoned()
        with relay(socket, "--of", "tetragon"):
            proxy.until_identity()


def test_a_line_that_is_lost_closes_where_policy_requires_the_detector_and_its_relay_says_so(socket: Path) -> None:
    with scene(detectors={"sources": {"falco": {}}}) as playing, relay(socket, "--of", "falco") as falco:
        proxy = playing.proxy()
        playing.until_open()
        falco.writes('{"rule": "half')
        told = playing.until_quarantined("detector-silent")
        assert "a line that is not understood" in told["text"]
        proxy.until_poisoned()
        code, words = falco.ends()
        assert code == 1 and "line 1 of this connection was not taken" in words


def test_neither_another_user_nor_the_workload_itself_brings_alerts(
    socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever could might show a detector where there is none, or close whom it likes."""
    monkeypatch.setenv("PROOFBEAT_DETECTORS_SOCKET_MODE", str(0o666))
    with scene(detectors=CLOSING) as playing, relay(socket) as falco:
        playing.proxy()
        playing.until_open()
        asked = f"ask({str(socket)!r})"
        assert playing.workload.tries(asked) == "served", "it is answered why it is not let in"
        why = playing.until("detector-refused")["why"]
        assert "belongs to the workload" in why
        with relay(socket, first=user(65534)) as stranger:
            stranger.raises()
            why = playing.until("detector-refused", lambda each: "65534" in each["why"])["why"]
            code, words = stranger.ends()
        assert code == 1 and "does not let us in: user 65534" in words
        until_observed(playing, falco)
        assert said(playing, "violation") == []


def test_a_relay_brings_what_it_had_once_the_sidecar_is_there(socket: Path) -> None:
    with relay(socket) as falco:
        falco.raises()
        with scene(detectors=CLOSING) as playing:
            playing.comer()
            playing.until_quarantined("detector-alert")
            code, words = falco.ends()
            assert code == 0 and "No such file or directory" in words


def test_an_alert_that_was_posted_to_the_authority_closes_whom_it_is_about(socket: Path) -> None:
    with scene(detectors=CLOSING) as playing:
        proxy = playing.proxy()
        playing.until_open()
        at = datetime.datetime.now(datetime.UTC)
        body = alert(None, at, RULE, container_id=CONTAINER[:12]).encode()
        posting = asyncio.run_coroutine_threadsafe(post(playing.hall.town, body), playing.hall._loop)
        assert posting.result(10) == (200, {"instances": [playing.hall.instance().instance.value]})
        told = playing.until_quarantined("detector-alert")
        assert RULE in told["text"]
        proxy.until_poisoned()


def test_an_alert_that_policy_only_observes_is_told_for_whoever_asks_why(socket: Path) -> None:
    with scene(detectors=CLOSING) as playing, relay(socket) as falco:
        playing.proxy()
        playing.until_open()
        until_observed(playing, falco)
        town = playing.hall.town

        async def noted() -> str:
            while True:
                known = await town.authority.why((await town.authority.instances())[0].instance.value)
                found = [each.text for each in known.history if each.event == "observed"]
                if found:
                    return f"{known.state}: {found[-1]}"
                await asyncio.sleep(0.02)

        told = asyncio.run_coroutine_threadsafe(noted(), playing.hall._loop).result(10)
        assert told.startswith("fresh: falco: The last one (critical)")
