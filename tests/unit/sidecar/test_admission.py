"""Who is the workload, by descent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from attestation import digests
from sidecar.admission import KeyRules, descends_from


def test_the_workload_and_whatever_it_started_are_the_workload() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        try:
            assert descends_from(shell.pid, shell.pid)
            assert descends_from(child, shell.pid)
            assert not descends_from(os.getpid(), shell.pid)
        finally:
            os.kill(child, 9)
            shell.kill()


def test_a_process_that_is_gone_counts_as_the_workload() -> None:
    ended = subprocess.Popen(["/bin/true"])
    ended.wait()
    assert descends_from(ended.pid, os.getpid())


def test_only_an_executable_that_is_named_may_have_the_key() -> None:
    ours = digests.of_content(Path(sys.executable).read_bytes())
    with subprocess.Popen(["/bin/sleep", "30"]) as workload:
        try:
            assert KeyRules(workload.pid, "", frozenset()).refusal(os.getpid()) is None
            assert KeyRules(workload.pid, "", frozenset({ours})).refusal(os.getpid()) is None
            why = KeyRules(workload.pid, "", frozenset({"0" * 64})).refusal(os.getpid())
            assert why is not None
            assert ours in why
            assert "belongs to the workload" in str(KeyRules(workload.pid, "", frozenset()).refusal(workload.pid))
        finally:
            workload.kill()


def test_a_process_in_the_workloads_cgroup_is_the_workload_though_it_descends_from_another() -> None:
    shared = {line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()} - {"/"}
    with subprocess.Popen(["/bin/sleep", "30"]) as workload, subprocess.Popen(["/bin/sleep", "30"]) as stranger:
        try:
            assert not KeyRules(workload.pid, "", frozenset()).of_workload(stranger.pid)
            for path in shared:
                rules = KeyRules(workload.pid, f"/sys/fs/cgroup{path}", frozenset())
                assert rules.of_workload(stranger.pid)
        finally:
            workload.kill()
            stranger.kill()
