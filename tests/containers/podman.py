"""Real containers: podman with runc, images made FROM scratch of what this machine has, no network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from attestation.channel import Scope
from tests.system.measurer.stage import PATIENCE, ROOT, Sidecar

PODMAN = ("podman", "--runtime", "runc", "--log-level", "error")
LIMITS = ("--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
"""What a nested machine refuses to raise is asked for as it is."""
BUSYBOX = Path("/bin/busybox")
APPLETS = ("cat", "chmod", "cp", "echo", "ln", "mkdir", "mount", "mv", "rm", "sh", "sleep", "touch", "true", "unshare")
FULL = ("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH", "NET_ADMIN", "KILL")
RESTRICTED = ("SYS_PTRACE",)


def podman(*arguments: str) -> str:
    """Its answer. Raises AssertionError with its complaint."""
    done = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


def refusal(*options: str) -> str:
    """Why this kernel runs no container with these options; empty where it does."""
    command = [*PODMAN, "run", "--rm", *LIMITS, *options, image(), "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def image() -> str:
    """A root of one static program under many names, and a folder to be measured. Made once a content."""
    name = f"localhost/proofbeat-workload:{hashlib.sha256(BUSYBOX.read_bytes()).hexdigest()[:12]}"
    if subprocess.run([*PODMAN, "image", "exists", name], check=False).returncode == 0:
        return name
    with TemporaryDirectory() as folder:
        root = Path(folder, "root")
        for each in ("bin", "srv/app", "tmp", "var", "proc", "sys", "dev", "etc"):
            (root / each).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin" / "busybox")
        for applet in APPLETS:
            (root / "bin" / applet).symlink_to("busybox")
        (root / "srv" / "app" / "first").write_text("one")
        (root / "srv" / "app" / "second").write_text("two")
        Path(folder, "Containerfile").write_text("FROM scratch\nCOPY root /\n")
        podman("build", "-q", "-t", name, folder)
    return name


class Container:
    """A shell as the first process, which does what it is told a line at a time."""

    def __init__(self, *options: str) -> None:
        self.name = f"proofbeat-{os.getpid()}-{os.urandom(4).hex()}"
        self._options = options

    def __enter__(self) -> Container:
        command = [*PODMAN, "run", "-i", "--name", self.name, *LIMITS, *self._options, image(), "/bin/sh"]
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.do("true")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run([*PODMAN, "rm", "-f", "-t", "0", self.name], capture_output=True, check=False)
        self._shell.wait(PATIENCE)
        for pipe in (self._shell.stdin, self._shell.stdout):
            if pipe:
                pipe.close()

    def do(self, line: str) -> None:
        """Have a line executed, and wait until it is."""
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(line + "\necho done\n")
        self._shell.stdin.flush()
        assert self._shell.stdout.readline() == "done\n", f"the container ended at: {line}"

    def restart(self) -> None:
        """The same container, another run of it."""
        podman("stop", "-t", "0", self.name)
        self._shell.wait(PATIENCE)
        command = [*PODMAN, "start", "-a", "-i", self.name]
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.do("true")

    def execute(self, *command: str) -> None:
        """As an operator does, or a probe."""
        podman("exec", self.name, *command)

    @property
    def pid(self) -> int:
        return int(self._inspected["State"]["Pid"])

    @property
    def cgroup(self) -> str:
        """Its path in the hierarchies of version 1, or in that of version 2."""
        return str(self._inspected["State"]["CgroupPath"])

    @property
    def upper(self) -> Path:
        """Where its writable layer lies on this machine."""
        return Path(self._inspected["GraphDriver"]["Data"]["UpperDir"])

    @property
    def _inspected(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(podman("inspect", self.name))
        return found[0]


class Beside(Sidecar):
    """The measurer in a container of its own, in the workload's pid namespace, with these capabilities and no others.

    Its root is empty but for this machine's programs, mounted read-only.
    """

    def __init__(self, scope: Scope, workload: Container, capabilities: Sequence[str], *options: str) -> None:
        super().__init__(replace(scope, pid=1))
        self.name = f"{workload.name}-beside"
        added = [f"--cap-add={each}" for each in capabilities]
        mounts = [f"--volume={each}:{each}:ro" for each in _programs()]
        inner = [sys.executable, "-P", "-m", "tests.containers.relay", "3"]
        self._command = [
            *PODMAN, "run", "--name", self.name, *LIMITS, "--read-only", f"--pid=container:{workload.name}",
            "--preserve-fds=1", "--cap-drop=ALL", *added, *mounts, f"--env=PYTHONPATH={ROOT}",
            "--env=PYTHONDONTWRITEBYTECODE=1", *options, image(), *inner,
        ]  # fmt: skip

    def spawn(self, channel: int) -> subprocess.Popen[bytes]:
        renumbered = ["/bin/bash", "-c", f'exec "$@" 3<&{channel}', "bash", *self._command]
        return subprocess.Popen(renumbered, pass_fds=[channel], start_new_session=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            subprocess.run([*PODMAN, "rm", "-f", "-t", "0", self.name], capture_output=True, check=False)


def _programs() -> list[str]:
    """What this interpreter and our sources need."""
    wanted = {"/usr", "/lib", "/lib64", "/etc/ld.so.cache", str(ROOT), sys.prefix, sys.base_prefix}
    there = sorted(each for each in wanted if Path(each).exists())
    return [each for each in there if not any(each.startswith(other + "/") for other in there)]
