"""`proofbeat up`, from the first line to Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from proofbeat.ephemeral.authority import CA_NAME
from proofbeat.ephemeral.children import Child, LogLine
from proofbeat.up import scope
from proofbeat.up.layout import NAME, Layout
from proofbeat.up.learning import Learned, learn
from proofbeat.up.listening import Port
from proofbeat.up.mesh import Mesh, Program
from proofbeat.up.trying import PAUSE, Tried, call, close_and_open, until_calls
from sidecar.freshness import Phase
from telemetry.names import Event


@dataclass(frozen=True, slots=True)
class Wishes:
    """include, volatile: what the policy measures and what of it nobody judges; empty: learned.

    learning: seconds. calls: address on which the service is called. attempt: close and open it once, then end.
    """

    program: Program
    include: tuple[str, ...]
    volatile: tuple[str, ...]
    learning: float
    calls: str | None
    protocol: Literal["http", "tcp"]
    attempt: bool
    as_json: bool


async def up(wishes: Wishes) -> bool:
    """True when it came up and, where that was asked for, closed and opened. Raises what stands in its way."""
    scope.refuse_shared(map(Path, wishes.include), Path.home())
    include = wishes.include or scope.folders(
        wishes.program.command, wishes.program.cwd, Path.home(), Path.is_file, Path.is_dir
    )
    folder = Path(tempfile.mkdtemp(prefix="proofbeat-up-"))
    try:
        layout = Layout.make(folder, wishes.protocol, wishes.calls)
        async with asyncio.TaskGroup() as tasks:
            story = Story(wishes, layout, include, tasks)
            mesh = Mesh(layout, tasks, story.heard)
            try:
                return await story.tell(mesh)
            finally:
                story.over()
                await mesh.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Story:
    """One run, and what is said of it."""

    def __init__(self, wishes: Wishes, layout: Layout, include: tuple[str, ...], tasks: asyncio.TaskGroup) -> None:
        self._wishes = wishes
        self._layout = layout
        self._include = include
        self._tasks = tasks
        self._began = time.monotonic()
        self._open = False
        self._over = False
        self._told_of: set[str] = set()

    async def tell(self, mesh: Mesh) -> bool:
        # 1. The program, and what can be learned of it.
        program, port = await mesh.start_program(self._wishes.program, quiet_stdout=self._wishes.as_json)
        self._say(f"your program runs as pid {program.pid} and listens on {port}")
        learned = await self._learn(program)
        # 2. Who judges it, who attests it, and its Envoy.
        await mesh.start_authority()
        sidecar = await mesh.start_sidecar(program, port)
        await until_calls(self._layout, served=True)
        self._say(f"{self._layout.spiffe_id} is attested; its authority is of this run only ({CA_NAME})")
        self._say(f"call it through mutual TLS:  {self._how_to_call()}")
        # 3. Closed and opened: by us, or by whoever reads this.
        if self._wishes.attempt:
            return await self._attempt(port, learned)
        self._say(f"close it:                    touch {self._include[0]}/anything        # and rm it to open it again")
        self._say(f"ask why:                     proofbeat why --admin {self._layout.admin} {NAME}")
        self._say(f"a new instance:              kill -USR1 {os.getpid()}        # the only way after a tamper")
        return await self._until_over(mesh, program, sidecar)

    async def _learn(self, program: Child) -> Learned:
        wishes = self._wishes
        self._say(f"watching it for {wishes.learning:g} s; measured is {', '.join(self._include)}")
        learned = await learn(NAME, program.pid, self._include, wishes.learning)
        self._layout.write_policy(self._include, learned, wishes.volatile)
        spec = learned.references.spec
        self._say(f"learned {len(spec.files)} files and {len(spec.executables)} executables: {self._layout.policy}")
        for path in learned.volatile:
            self._say(f"it still changes, so its content is not judged: {path}")
        return learned

    async def _attempt(self, port: Port, learned: Learned) -> bool:
        tried = await close_and_open(self._layout, self._include[0])
        self._say(f"a file was laid down in {self._include[0]}: calls were refused after {tried.closed_ms:.0f} ms")
        self._say(f"it was taken away: calls are served again after {tried.reopened_ms:.0f} ms")
        if self._wishes.as_json:
            print(json.dumps(self._report(port, learned, tried), indent=1))
        return True

    async def _until_over(self, mesh: Mesh, program: Child, sidecar: Child) -> bool:
        """Until the program ends or Ctrl-C; SIGUSR1 replaces the instance, as a tamper wants it."""
        turn = Turn()
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, turn.ask)
        try:
            while await turn.replacing(self._tasks, program):
                await program.end()
                await sidecar.process.wait()
                program, port = await mesh.start_program(self._wishes.program, quiet_stdout=self._wishes.as_json)
                sidecar = await mesh.start_sidecar(program, port)
                self._say(f"a new instance: pid {program.pid}, enrolled with a new token")
        except asyncio.CancelledError:
            # Ctrl-C is how this ends; what runs is ended by whoever called.
            return True
        self._say(f"your program ended, with exit code {program.process.returncode}")
        return program.process.returncode == 0

    def heard(self, line: LogLine) -> None:
        """The sidecar's log, in the words of somebody who watches it for the first time."""
        match line.get("event"):
            case Event.VIOLATION if line["cause"] not in self._told_of:
                self._told_of.add(line["cause"])
                self._say(f"violation: {line['text']}")
                self._say(f"  to mend it: {line['mend']}")
            case Event.CLOSED:
                self._say(f"CLOSED: new calls are refused, {line['destroyed']} open connections were ended")
            case Event.PHASE if line["phase"] != Phase.FRESH:
                self._open = False
            case Event.OPENED if not self._open:
                self._open = True
                self._tasks.create_task(self._once_served(), name="first call")

    def over(self) -> None:
        """Nothing will be served any more: who waits for it must not wait for ever."""
        self._over = True

    async def _once_served(self) -> None:
        """Envoy binds a listener a moment after it has acknowledged it; what counts is a call that is served."""
        while True:
            if self._over or not self._open:
                return
            if await call(self._layout):
                self._say("OPEN: calls are served")
                return
            await asyncio.sleep(PAUSE)

    def _say(self, text: str) -> None:
        out = sys.stderr if self._wishes.as_json else sys.stdout
        print(f"{time.monotonic() - self._began:6.1f}s  {text}", file=out, flush=True)

    def _how_to_call(self) -> str:
        host, _, port = self._layout.calls.rpartition(":")
        return f"curl {self._layout.url}" if self._layout.protocol == "http" else f"nc {host} {port}"

    def _report(self, port: Port, learned: Learned, tried: Tried) -> dict[str, Any]:
        spec = learned.references.spec
        return {
            "ok": True,
            "spiffe_id": self._layout.spiffe_id,
            "listens": str(port),
            "url": self._layout.url,
            "include": list(self._include),
            "learned": {
                "files": len(spec.files),
                "executables": len(spec.executables),
                "volatile": list(learned.volatile),
            },
            "closed_ms": round(tried.closed_ms, 2),
            "reopened_ms": round(tried.reopened_ms, 2),
        }


class Turn:
    """What comes first: the wish for a new instance, or the end of the present one."""

    def __init__(self) -> None:
        self._asked = False
        self._news = asyncio.Event()

    def ask(self) -> None:
        self._asked = True
        self._news.set()

    async def replacing(self, tasks: asyncio.TaskGroup, program: Child) -> bool:
        """Whether a new instance is wanted while the program still runs."""
        tasks.create_task(self._watch(program), name="the program's end")
        while program.running and not self._asked:
            await self._news.wait()
            self._news.clear()
        self._asked = False
        return program.running

    async def _watch(self, program: Child) -> None:
        await program.process.wait()
        self._news.set()
