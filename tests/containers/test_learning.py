"""A container under the seccomp profile that was learned of it: it starts, works, and is refused what it never did."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.podman import LIMITS, PODMAN, Container, image

SECONDS = 6
WORK = "cat /srv/app/first > /srv/app/copy; sleep 0.2; rm /srv/app/copy; true"
"""What this workload does all its days. It makes no folder."""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    written = tmp_path_factory.mktemp("learned") / "out"
    with Container() as workload:
        options = ["--pid", str(workload.pid), "--cgroup", workload.cgroup, "--for", f"{SECONDS}s", "-o", str(written)]
        command = [sys.executable, "-P", "-m", "proofbeat", "policy", "learn", "box", *options]
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.1):
                workload.do(WORK)

        working = threading.Thread(target=work)
        working.start()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        finally:
            over.set()
            working.join()
    assert done.returncode == 0, done.stderr
    yield written / "seccomp.json"


def run(line: str, *options: str) -> subprocess.CompletedProcess[str]:
    """In a container of its own."""
    command = [*PODMAN, "run", "--rm", *LIMITS, *options, image(), "/bin/sh", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("privileges", [(), ("--security-opt=no-new-privileges",), ("--user=65534:65534",)])
def test_a_container_starts_and_works_under_the_profile_that_was_learned_of_it(
    profile: Path, privileges: tuple[str, ...]
) -> None:
    """Without no-new-privileges runc loads the filter before it drops privileges, with it right before the program."""
    done = run("cat /srv/app/first; true", f"--security-opt=seccomp={profile}", *privileges)
    assert (done.returncode, done.stdout) == (0, "one"), done.stderr


def test_what_it_was_learned_of_goes_on_under_it(profile: Path) -> None:
    with Container(f"--security-opt=seccomp={profile}") as confined:
        for _ in range(3):
            confined.do(WORK)


def test_a_call_that_it_never_made_is_refused(profile: Path) -> None:
    making = "mkdir /srv/app/new"
    free, confined = run(making), run(making, f"--security-opt=seccomp={profile}")
    assert free.returncode == 0, free.stderr
    assert confined.returncode != 0
    assert "Operation not permitted" in confined.stderr
