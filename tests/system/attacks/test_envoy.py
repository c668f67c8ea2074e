"""Attacks on the real Envoy's memory: in the layout that docs/hardening.md recommends, and in one that it warns of."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attestation.coverage import Isolation
from proofbeat.envoy import execute_only, without_capabilities
from tests.system.attacks.stage import Scene, scene, user
from tests.system.xds.rig import ENVOY, describe
from xds.bootstrap import envoy_bootstrap, envoy_command, write_bootstrap

ENVOYS, THE_WORKLOAD = 61802, 61804


@contextmanager
def envoy(playing: Scene, binary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """As a user of its own."""
    folder = playing.folder / "loot"
    description = describe(playing.folder / "keys", 1, before_first="refuse")
    config = folder / "envoy.json"
    write_bootstrap(envoy_bootstrap(description), config)
    # Its own files go where it may write; the socket of the key stays where it is.
    config.write_text(config.read_text().replace(str(playing.folder / "keys" / "a"), str(folder / "a")))
    config.chmod(0o644)
    with (folder / "envoy.log").open("wb") as log:
        command = envoy_command(binary, config, concurrency=1)
        process = subprocess.Popen(command, user=ENVOYS, group=ENVOYS, extra_groups=[], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def graded(playing: Scene, pid: int) -> Isolation:
    """What is signed once this Envoy is guarded."""
    playing.until("envoy-admitted", lambda each: each["envoy"] == pid)
    return playing.isolation(lambda each: each.envoy_distinct_user)


def test_nobody_of_envoys_user_reads_an_envoy_that_is_execute_only() -> None:
    with (
        scene(workload=user(THE_WORKLOAD, "dac_read_search"), envoys=[ENVOYS]) as playing,
        envoy(playing, execute_only(ENVOY, playing.folder)) as running,
    ):
        found = graded(playing, running.pid)
        assert (found.envoy_non_dumpable, found.workload_can_trace_envoy) == (True, False)
        assert Path(f"/proc/{running.pid}/mem").stat().st_uid == 0
        reading = ["head", "-c1", f"/proc/{running.pid}/environ"]
        assert subprocess.run([*user(ENVOYS), *reading], capture_output=True, check=False).returncode != 0


def test_an_envoy_that_its_user_may_read_is_graded_dumpable() -> None:
    with scene(workload=user(THE_WORKLOAD, "dac_read_search"), envoys=[ENVOYS]) as playing:
        readable = execute_only(ENVOY, playing.folder)
        readable.chmod(0o755)
        with envoy(playing, readable) as running:
            found = graded(playing, running.pid)
            assert not found.envoy_non_dumpable
            reading = ["head", "-c1", f"/proc/{running.pid}/environ"]
            assert subprocess.run([*user(ENVOYS), *reading], capture_output=True, check=False).returncode == 0


def test_even_roots_envoy_is_not_dumpable_once_it_has_no_capabilities() -> None:
    with scene() as playing:
        description = describe(playing.folder / "keys", 1, before_first="refuse")
        write_bootstrap(envoy_bootstrap(description), playing.folder / "envoy.json")
        command = envoy_command(
            execute_only(ENVOY, playing.folder), playing.folder / "envoy.json", concurrency=1, log_level="off"
        )
        running = subprocess.Popen(without_capabilities(command))
        try:
            playing.until("envoy-admitted", lambda each: each["envoy"] == running.pid)
            assert playing.isolation(lambda each: each.envoy_non_dumpable).workload_can_trace_envoy
        finally:
            running.kill()
            running.wait()
