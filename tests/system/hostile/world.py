"""A real sidecar process with its measurer, a workload, an xDS client in Envoy's place, and a hostile authority."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from attestation.quantities import duration
from tests.news import News
from tests.system.hostile.authority import (
    TRUST_DOMAIN,
    HostileAuthority,
    Move,
    honestly,
    listening,
    made_ca,
    reserved,
)
from wire.messages import AttestNow

ROOT = Path(__file__).parents[3]
PATIENCE = 20.0
SLACK = 1.0
"""Seconds between an end of a lease and a line on another process's stdout, on a machine that is busy."""
Line = Mapping[str, Any]


@dataclass
class Program:
    """A child process whose lines of JSON are kept as they come."""

    process: asyncio.subprocess.Process
    lines: list[Line] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    _news: News = field(default_factory=News)
    _listening: asyncio.Task[None] = field(init=False)

    @classmethod
    async def start(cls, *command: str, stream: str) -> Program:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *command),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            limit=1 << 22,
            stdout=asyncio.subprocess.PIPE if stream == "stdout" else None,
            stderr=asyncio.subprocess.PIPE if stream == "stderr" else None,
        )
        program = cls(process)
        reader = process.stdout if stream == "stdout" else process.stderr
        assert reader is not None
        program._listening = asyncio.get_running_loop().create_task(program._listen(reader))
        return program

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while line := (await reader.readline()).decode():
            if line.startswith("{"):
                self.lines.append(json.loads(line))
            else:
                self.other.append(line)
            self._news.tell()
        self._news.tell()

    async def heard(self, wanted: Callable[[Line], bool], since: int = 0) -> Line:
        """The first line, from number `since` on, that is wanted."""
        await self._news.until(lambda: any(map(wanted, self.lines[since:])), PATIENCE)
        return next(filter(wanted, self.lines[since:]))

    async def end(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(PATIENCE):
                code = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            code = await self.process.wait()
        await self._listening
        return code

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._listening
        return code


@dataclass
class World:
    folder: Path
    authority: HostileAuthority
    sidecar: Program
    envoy: Program
    page: Path

    @property
    def mark(self) -> int:
        """How many lines the sidecar has written up to now."""
        return len(self.sidecar.lines)

    async def said(self, event: str, part: str, since: int) -> Line:
        """A log line of this event that says this."""
        return await self.sidecar.heard(lambda line: line["event"] == event and part in json.dumps(line), since)

    async def play(self, move: Move) -> int:
        """One round that is answered so. Returns the mark from before it."""
        mark, done = self.mark, self.authority.play(move)
        await self._ask()
        async with asyncio.timeout(PATIENCE):
            await done
        return mark

    async def _ask(self) -> None:
        """Ask for a round now rather than at the next interval, where there is a session to ask on."""
        if self.authority.session is not None:
            with contextlib.suppress(ConnectionError):
                await self.authority.push(AttestNow(self.authority.nonce()))

    async def opened(self) -> None:
        """Honest rounds, until Envoy has what one of them earned."""
        before = len(self.authority.given)
        await self.play(honestly)
        await self.envoy.heard(lambda line: line["leaf"] in list(self.authority.given)[before:])

    async def closed(self, since: int) -> Line:
        """Envoy has poison. since: a number of its lines."""
        return await self.envoy.heard(lambda line: line["leaf"] is None, since)

    def check(self) -> None:
        """The invariant, over everything Envoy was ever served: only earned identities, only while they last, and none
        of an earlier generation after a closing.
        """
        served, generation = self.envoy.lines, 0
        closings = [line for line in self.sidecar.lines if line["event"] == "phase" and line["phase"] == "quarantined"]
        for line, after in zip(served, [*served[1:], {"at": time.clock_gettime(time.CLOCK_BOOTTIME)}], strict=True):
            if line["leaf"] is None:
                generation = max((each["generation"] for each in closings if each["at"] <= line["at"]), default=0)
                continue
            given = self.authority.given.get(line["leaf"])
            assert given is not None, f"an identity that was never earned: {line}"
            assert after["at"] <= given.end + SLACK, f"served {after['at'] - given.end:.2f} s beyond its lease"
            assert given.generation >= generation, f"generation {given.generation} after {generation} was closed"


def policy(folder: Path, freshness: float) -> dict[str, Any]:
    return {
        "mode": "enforce",
        "interval": "200ms",
        "freshness": duration(freshness),
        "deadman": "5s",
        "files": {"include": [str(folder / "app")]},
    }


def references(page: Path) -> dict[str, Any]:
    digest = hashlib.sha256(page.read_bytes()).hexdigest()
    sleep = Path(shutil.which("sleep") or "/bin/sleep").resolve()
    return {
        "files": {str(page): {"digests": [digest]}},
        "executables": {str(sleep): [hashlib.sha256(sleep.read_bytes()).hexdigest()]},
    }


def decent(folder: Path, freshness: float = 4.0) -> HostileAuthority:
    """It has the workload's policy, and so far it behaves."""
    (folder / "app").mkdir()
    page = folder / "app" / "page"
    page.write_text("as it should be")
    return HostileAuthority(made_ca(folder), policy(folder, freshness), references(page), freshness)


@contextlib.asynccontextmanager
async def workload() -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        yield process.pid
    finally:
        process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def sidecar(folder: Path, url: str, bundle: str, pid: int, **more: Any) -> AsyncIterator[Program]:
    """The program itself, as a user starts it. more: of its settings."""
    (folder / "bundle.pem").write_text(bundle)
    (folder / "token").write_text("token")
    config = {
        "trustDomain": TRUST_DOMAIN,
        "authority": {"url": url, "bundle": str(folder / "bundle.pem")},
        "enrolment": {"joinTokenFile": str(folder / "token")},
        "workload": {"pid": pid},
        "delivery": {"socket": str(folder / "xds.sock")},
        "state": str(folder / "state"),
        **more,
    }
    (folder / "sidecar.yaml").write_text(yaml.safe_dump(config))
    program = await Program.start(
        "-P", "-m", "proofbeat", "sidecar", "-c", str(folder / "sidecar.yaml"), stream="stderr"
    )
    try:
        yield program
    finally:
        await program.end()


@contextlib.asynccontextmanager
async def world(
    folder: Path, freshness: float = 4.0, authority: HostileAuthority | None = None, **more: Any
) -> AsyncIterator[World]:
    """Enrolled, open, and everything honest so far. more: of the sidecar's settings."""
    authority = authority or decent(folder, freshness)
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(listening(authority.routes(), reserved(authority.ca)))
        pid = await stack.enter_async_context(workload())
        program = await stack.enter_async_context(sidecar(folder, url, authority.ca.bundle, pid, **more))
        await program.heard(lambda line: line["event"] == "enrolled")
        envoy = await Program.start("-m", "tests.system.hostile.envoy", str(folder / "xds.sock"), stream="stdout")
        stack.push_async_callback(envoy.end)
        made = World(folder, authority, program, envoy, folder / "app" / "page")
        await made.opened()
        yield made
        made.check()
