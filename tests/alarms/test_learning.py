"""What `policy learn` wrote is enforced at once, calls and memory with it: a restart under load raises nothing."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import pytest

from tests.alarms.services import SERVICES, Service
from tests.alarms.stage import lay_out, measured, occupy, pid_of, proofbeat, restart, until_served, up

LEARNING = float(os.environ.get("LEARNING", "15"))
SECONDS = float(os.environ.get("SECONDS", "60")) / 2
PATIENCE = 120.0


def learn(service: Service, app: Path, port: int, command: list[str], written: Path) -> None:
    """Under load and with one restart, as an operator would do it; then it is asked to end."""
    options = ["--for", f"{LEARNING:g}s", "-o", str(written), *measured(app)]
    with proofbeat("policy", "learn", service.name, *options, "--", *command, app=app) as (learning, heard):
        heard.until("watching")
        until_served(service, port)
        busy = occupy(service, app, port)
        try:
            restart(service, app, port)
            heard.until("it is asked to end")
        finally:
            busy.end()
        assert learning.wait(PATIENCE) == 0, heard.lines


@pytest.mark.timeout(LEARNING + SECONDS + 2 * PATIENCE)
@pytest.mark.parametrize("how", [(), ("--notified",)], ids=["each call looked at", "under a filter that asks"])
@pytest.mark.parametrize("service", SERVICES, ids=lambda each: each.name)
def test_a_learned_policy_enforced_at_once_survives_a_restart_under_load_with_no_finding(
    service: Service, how: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a short path, for sockets
        app, port, command = lay_out(service, Path(folder))
        written = Path(folder) / "learned"
        learn(service, app, port, command, written)
        with up(app, port, command, "--learned", str(written), *how) as heard:
            heard.until("a new instance:")
            busy = occupy(service, app, port)
            try:
                before = pid_of(app)
                restart(service, app, port)
                with heard.news:
                    heard.news.wait_for(lambda: bool(heard.alarms), SECONDS)
                assert heard.alarms == []
                assert pid_of(app) != before
            finally:
                busy.end()
        learned = json.loads((written / "learned.json").read_text())
        assert {"startup", "serving"} <= learned["calls"].keys(), "what a signal ends calls nothing"
        assert learned["runs"][0]["ended"]
