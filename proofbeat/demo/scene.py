"""Everything that runs in the demo, and the few things that can be done to it."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from attestation.errors import Unavailable
from attestation.layers import Layer
from proofbeat import admin, envoy, study
from proofbeat.demo import layout as layouts
from proofbeat.demo.layout import Layout, Side
from proofbeat.demo.ledger import Ledger
from proofbeat.demo.load import RECORD, Flow, dump, unpack
from proofbeat.ephemeral import authority
from proofbeat.ephemeral.children import Child, Children
from proofbeat.ephemeral.clock import now
from proofbeat.ephemeral.watch import Watch
from telemetry.names import Event
from wire.messages import Released
from xds.bootstrap import envoy_command

START_SECONDS = 15.0
FLUSH_OFTEN = ("--file-flush-interval-msec", "200")
"""So that an access log tells of what just happened."""


@dataclass(slots=True)
class Standing:
    """What runs for one side at the moment."""

    side: Side
    watch: Watch
    workload: Child | None = None
    sidecar: Child | None = None
    envoy: Child | None = None
    envoy_restarts: int = 0


class Scene:
    """One run's processes. Use within a task group that outlives it; `end` stops all of them."""

    def __init__(self, layout: Layout, tasks: asyncio.TaskGroup) -> None:
        self.layout = layout
        self.ledger = Ledger()
        self.web = Standing(layout.web, Watch())
        self.db = Standing(layout.db, Watch())
        self.authority_watch = Watch()
        self.authority: Child | None = None
        self._children = Children(layout.folder, tasks)
        self._tasks = tasks
        self._ending = False
        self._news: asyncio.Future[None] | None = None

    @property
    def standings(self) -> tuple[Standing, Standing]:
        return self.web, self.db

    async def set_up(self, *, ca_seconds: float = authority.CA_SECONDS) -> None:
        """Workloads, references taken from them, policy, the authority with a CA that lives so long."""
        layouts.write_apps(self.layout)
        for standing in self.standings:
            await self.start_workload(standing)
        taken = {}
        for standing in self.standings:
            child = _running(standing.workload)
            taken[standing.side.name] = await study.build(
                standing.side.name,
                child.pid,
                (str(standing.side.app),),
                memory=Layer.MEMORY in self.layout.terms.stated.get("layers", {}),
            )
        if self.layout.terms.envoy_attested:
            held = envoy.referenced(envoy.program())
            taken = {name: study.with_proxies(each, held) for name, each in taken.items()}
        layouts.write_policies(self.layout, taken)
        layouts.write_authority(self.layout, ca_seconds)
        await self.start_authority()

    def command(self, side: Side) -> list[str]:
        """What a side's service is started by."""
        return layouts.service_command(side)

    def inherited(self, side: Side) -> tuple[int, ...]:
        """Descriptors that a side's service is given."""
        return ()

    def listeners(self, side: Side) -> tuple[int, ...]:
        """Those of its seccomp filter, which its sidecar is given."""
        return ()

    async def start_workload(self, standing: Standing) -> None:
        side = standing.side
        standing.workload = await self._children.start(
            f"{side.name}-service",
            self.command(side),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=side.app,
            also=self.inherited(side),
        )
        stdout = standing.workload.process.stdout
        if stdout is None or not await stdout.readline():
            raise Unavailable(f"the service {side.name} did not start", where=str(side.folder.parent))

    async def start_authority(self, *, ahead: float = 0.0) -> None:
        """ahead: seconds by which its wall clock is wrong."""
        began = now()
        self.authority = await self._children.start(
            "authority",
            authority.command(self.layout.authority_config, ahead=ahead),
            heard=self.authority_watch.hear,
        )
        async with self._children.needing(self.authority):
            listens = await self.authority_watch.until(Event.LISTENING, began, within=START_SECONDS)
        if listens is None:
            raise self.authority.failed(f"the authority did not start within {START_SECONDS:g} s")

    async def stop_authority(self) -> None:
        await _running(self.authority).end()

    async def start_sidecar(self, standing: Standing, *, enrol: bool) -> None:
        """enrol: with settings for the running workload and a new token; else as it was."""
        side = standing.side
        if enrol:
            token = await admin.create_token(self.layout.authority_admin, side.name)
            layouts.write_sidecar(self.layout, side, _running(standing.workload).pid, token)
        standing.sidecar = await self._children.start(
            f"{side.name}-sidecar",
            [
                *[sys.executable, "-P", "-m", "proofbeat", "sidecar", "-c", str(side.config)],
                *(f"--listener={each}" for each in self.listeners(side)),
            ],
            heard=standing.watch.hear,
            also=self.listeners(side),
        )

    async def release(self, standing: Standing) -> None:
        """As an operator does who vouches for it."""
        started = [line for line in standing.watch.lines if line.get("event") == Event.STARTED]
        body = {"instance": str(started[-1]["instance"])}
        await admin.ask(self.layout.authority_admin, "POST", "/admin/release", Released, body)

    async def start_envoy(self, standing: Standing) -> None:
        """Kept running as a supervisor would: one that dies is started again."""
        layouts.write_envoy(self.layout, standing.side)
        self._tasks.create_task(self._keep_envoy(standing), name=f"envoy of {standing.side.name}")

    async def run_load(self, flows: list[Flow]) -> None:
        """This traffic from now to the end of the scene."""
        load = await self._children.start(
            "load",
            [sys.executable, "-P", "-m", "proofbeat.demo.load"],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        stdin = load.process.stdin
        if stdin is None:
            raise Unavailable("the load has no input", where="demo")
        stdin.write(dump(flows))
        await stdin.drain()
        self._tasks.create_task(self._collect(load), name="load")

    def attack(self, standing: Standing, command: str) -> None:
        """Makes the workload run a program, as whoever broke into it would."""
        stdin = _running(standing.workload).process.stdin
        if stdin is not None:
            stdin.write(command.encode() + b"\n")

    async def end(self) -> None:
        self._ending = True
        await self._children.end()

    async def _keep_envoy(self, standing: Standing) -> None:
        binary = envoy.execute_only(envoy.binary(), standing.side.folder)
        while not self._ending:
            child = await self._children.start(
                f"{standing.side.name}-envoy",
                envoy.without_capabilities(
                    envoy_command(binary, standing.side.bootstrap, concurrency=1, extra=FLUSH_OFTEN)
                ),
            )
            standing.envoy = child
            await child.process.wait()
            standing.envoy_restarts += 1
            await asyncio.sleep(0.1)

    async def _collect(self, load: Child) -> None:
        stdout = load.process.stdout
        if stdout is None:
            return
        pending = b""
        while chunk := await stdout.read(1 << 16):
            pending += chunk
            whole = len(pending) - len(pending) % RECORD.size
            self.ledger.add(unpack(raw) for raw in _split(pending[:whole]))
            pending = pending[whole:]
            self._tell_news()
        if not self._ending:
            raise Unavailable("the load ended early", where=str(self.layout.folder / "load.log"))

    async def news(self) -> None:
        """Waits until the load has told something new."""
        self._news = self._news or asyncio.get_running_loop().create_future()
        await asyncio.shield(self._news)

    def _tell_news(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            news.set_result(None)


def _split(raw: bytes) -> list[bytes]:
    return [raw[at : at + RECORD.size] for at in range(0, len(raw), RECORD.size)]


def _running(child: Child | None) -> Child:
    if child is None:
        raise Unavailable("it was not started", where="demo")
    return child
