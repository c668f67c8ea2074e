"""One run of `proofbeat up` from the first line to Ctrl-C, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from policies.author.learning.learned import Learned
from policies.author.learning.outcome import references
from policies.author.learning.seccomp import filtered
from proofbeat.acts.intrusions import INTRUSIONS, Intrusion
from proofbeat.ephemeral.authority import CA_NAME
from proofbeat.ephemeral.children import LogLine
from proofbeat.ephemeral.clock import now
from proofbeat.learning import watch
from proofbeat.learning.wishes import Until
from proofbeat.study import scope_of, studied
from proofbeat.telling import Telling, counted
from proofbeat.up import intruding, listening, wishes
from proofbeat.up.filter import here
from proofbeat.up.intruding import Intruded
from proofbeat.up.layout import NAME, Layout
from proofbeat.up.listening import Port
from proofbeat.up.mesh import Mesh
from proofbeat.up.program import Ended, Instance
from proofbeat.up.trying import PAUSE, Tried, call, close_and_open, refuse_other_protocols, until_calls
from proofbeat.up.wishes import Wishes
from sidecar.states import Phase
from telemetry.names import Event

MOST_TOLD = 10
"""Paths that are told one by one."""


class Story:
    """measured: absolute paths. tried: the folder in which it is closed and opened once; None: until Ctrl-C."""

    def __init__(
        self,
        wished: Wishes,
        layout: Layout,
        measured: tuple[str, ...],
        tried: str | None,
        telling: Telling,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._wished = wished
        self._layout = layout
        self._measured = measured
        self._tried = tried
        self._say = telling.say
        self._tasks = tasks
        self._anew = asyncio.Event()
        self._open = False
        self._over = False
        self._told_of: set[str] = set()

    async def tell(self, mesh: Mesh) -> bool:
        """Whether it came up and, where that is tried, closed and opened; else whether the program ended well."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._anew.set)
        # 1. The program, and what can be learned of it.
        instance, port = await self._start_program(mesh)
        self._say(f"your program runs as pid {instance.pid} and listens on {port}")
        learned = await self._learn(mesh, instance)
        # 2. Who judges it, who attests it, and its Envoy.
        await mesh.start_authority()
        await mesh.start_sidecar(instance, port)
        async with mesh.running():
            await until_calls(self._layout, served=True)
        self._say(f"{self._layout.workload.spiffe_id} is attested; its authority is of this run only ({CA_NAME})")
        self._say(f"call it through mutual TLS:  {self._how_to_call()}")
        # 3. Closed and opened: by us, or by whoever reads this.
        if self._tried is not None:
            async with mesh.running():
                tried = await self._attempt(self._tried)
            intruded = [await self._intrude(mesh, each) for each in INTRUSIONS] if self._wished.acts else []
            if self._wished.as_json:
                print(json.dumps(self._report(port, learned, tried, intruded), indent=1))
            return True
        self._say(f"close it:                    {self._how_to_close()}")
        self._say(f"ask why:                     proofbeat why --admin {self._layout.authority_admin} {NAME}")
        self._say(f"a new instance:              kill -USR1 {os.getpid()}        # the only way after a tamper")
        return await self._until_over(mesh)

    async def _start_program(self, mesh: Mesh) -> tuple[Instance, Port]:
        instance, port = await mesh.start_program(
            self._wished.program, quiet_stdout=self._wished.as_json, intruded=self._wished.acts, under=self._filter()
        )
        if self._wished.calls:
            wishes.listenable(self._layout.calls)
        if self._wished.protocol == "http":
            async with mesh.running():
                await refuse_other_protocols(port)
        return instance, port

    def _filter(self) -> bytes | None:
        """What it is started under: what was learned passes, and for all else we are asked."""
        learned = self._wished.learned
        return here(filtered(learned)) if learned is not None and self._wished.notified else None

    async def _learn(self, mesh: Mesh, instance: Instance) -> Learned:
        learned = self._wished.learned or await self._watch(mesh, instance)
        # A second port may have come up since the first was seen, and nobody may guess which is meant.
        listening.only(listening.wished(listening.now(instance.reaper.pid), self._wished.program.port))
        self._layout.write_policy(learned, intruded=self._wished.acts, notified=self._wished.notified)
        spec = references(NAME, learned).spec
        files, executables = counted(len(spec.files), "file"), counted(len(spec.executables), "executable")
        calls = f" and {counted(len(spec.calls), 'call')}" if spec.calls else ""
        self._say(f"learned {files} and {executables}{calls}: {self._layout.policy}")
        volatile = tuple(learned.volatile)
        for path in volatile[:MOST_TOLD]:
            self._say(f"it still changes, so its content is not judged: {path}")
        if len(volatile) > MOST_TOLD:
            self._say(f"and so do {len(volatile) - MOST_TOLD} more")
        return learned

    async def _watch(self, mesh: Mesh, instance: Instance) -> Learned:
        """Its files and programs. Calls and memory take longer, and more than some machines permit."""
        wished = self._wished
        self._say(f"watching it for {wished.learning:g} s; measured is {', '.join(self._measured)}")
        closer: dict[str, Any] = {"memory": watch.LOOKS, "calls": watch.EVERY_CALL} if wished.acts else {}
        scope = scope_of(instance.pid, self._measured, wished.volatile, **closer)
        async with mesh.running(), studied(scope) as study:
            watching = watch.begun(study, f"pid {instance.pid}", self._measured, wished.volatile)
            await watch.learn([watching], Until(wished.learning))
            await watching.measure()
            return watching.learned()

    async def _attempt(self, folder: str) -> Tried:
        tried = await close_and_open(self._layout, folder)
        self._say(f"a file was laid down in {folder}: calls were refused after {tried.closed_ms:.0f} ms")
        self._say(f"it was taken away: calls are served again after {tried.reopened_ms:.0f} ms")
        return tried

    async def _intrude(self, mesh: Mesh, intrusion: Intrusion) -> Intruded:
        """One act of the intruder, who is gone with the instance that he was in."""
        self._say(intrusion.about)
        why = intruding.left_out(intrusion, mesh.said)
        if why:
            self._say(f"left out: {why}")
            return Intruded(intrusion.name, left_out=why)
        began = now()
        async with mesh.running():
            mesh.order(intrusion.source)
            closed = await until_calls(self._layout, served=False)
            violation = await intruding.told(intrusion, mesh.said, began)
        self._say(
            f"{intrusion.done}: {intrusion.signal}; calls were refused after {_milliseconds(began, closed):.0f} ms"
        )
        again = now()
        await self._replace(mesh)
        async with mesh.running():
            opened = await until_calls(self._layout, served=True)
        self._say(f"a new instance is served after {_milliseconds(again, opened):.0f} ms")
        return Intruded(
            intrusion.name,
            intrusion.signal,
            violation_ms=_milliseconds(began, float(violation["at"])),
            closed_ms=_milliseconds(began, closed),
            reopened_ms=_milliseconds(again, opened),
        )

    async def _until_over(self, mesh: Mesh) -> bool:
        """Until the program ends or Ctrl-C; SIGUSR1 replaces the instance, as a tamper wants it."""
        try:
            while True:
                async with mesh.running():
                    await self._anew.wait()
                self._anew.clear()
                instance = await self._replace(mesh)
                self._say(f"a new instance: pid {instance.pid}, enrolled with a new token")
        except Ended as end:
            self._say(f"your program ended, with exit code {end.code}")
            return end.code == 0
        except asyncio.CancelledError:
            # Ctrl-C is how this ends; what runs is ended by whoever called.
            return True

    async def _replace(self, mesh: Mesh) -> Instance:
        """By a new one, with a new token."""
        await mesh.end_instance()
        self._open = False  # a sidecar that had to be killed did not say so
        instance, port = await self._start_program(mesh)
        await mesh.start_sidecar(instance, port)
        return instance

    def heard(self, line: LogLine) -> None:
        """The sidecar's log, in the words of somebody who watches it for the first time."""
        match line.get("event"):
            case Event.VIOLATION if line["text"] not in self._told_of:
                self._told_of.add(line["text"])
                self._say(f"violation: {line['text']}")
                self._say(f"  to mend it: {line['mend']}")
                if line["kind"].startswith("file-"):
                    self._say(f"  or allow it: start again with --volatile {shlex.quote(line['subject'])}")
            case Event.CLOSED:
                self._say(f"CLOSED: new calls are refused, {counted(line['destroyed'], 'open connection')} ended")
            case Event.PHASE if line["phase"] != Phase.FRESH:
                self._open = False
            case Event.OPENED if not self._open:
                self._open = True
                self._told_of.clear()
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

    def _how_to_call(self) -> str:
        host, _, port = self._layout.calls.rpartition(":")
        return f"curl {self._layout.url}" if self._layout.protocol == "http" else f"nc {host.strip('[]')} {port}"

    def _how_to_close(self) -> str:
        if not self._measured:
            return "do something that it was not seen to do"
        first = self._measured[0]
        if not Path(first).is_dir():
            return f"change {first}"
        return f"touch {shlex.quote(first)}/anything        # and rm it to open it again"

    def _report(self, port: Port, learned: Learned, tried: Tried, intruded: Sequence[Intruded]) -> dict[str, Any]:
        spec = references(NAME, learned).spec
        return {
            "ok": True,
            "spiffe_id": self._layout.workload.spiffe_id,
            "listens": str(port),
            "url": self._layout.url,
            "include": list(self._measured),
            "learned": {
                "files": len(spec.files),
                "executables": len(spec.executables),
                "volatile": list(learned.volatile),
            },
            "closed_ms": round(tried.closed_ms, 2),
            "reopened_ms": round(tried.reopened_ms, 2),
            "acts": [asdict(each) for each in intruded],
        }


def _milliseconds(began: float, ended: float) -> float:
    return round((ended - began) * 1000, 2)
