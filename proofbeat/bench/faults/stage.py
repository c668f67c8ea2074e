"""The mesh that faults are done to: its processes by name, who keeps them running, and whether all of it flows."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from attestation.errors import Unavailable
from proofbeat.bench.faults.oracle import SideStory
from proofbeat.bench.faults.plan import Target
from proofbeat.demo.layout import ALL_FLOWS, Layout, Terms, flows
from proofbeat.demo.scene import Scene, Standing
from proofbeat.ephemeral import folder
from proofbeat.ephemeral.clock import now
from sidecar.states import Phase
from telemetry.names import Event

PAUSE = 0.02
"""Seconds between two requests of a flow: the machine is for the mesh, not for the load."""
CA_SECONDS = 24 * 3600.0
STATE_BYTES, STORE_BYTES = 64 * 1024, 32 * 1024 * 1024
MOST_STARTS = 3
"""Starts of a sidecar after one fault before its operator gives it a new join token."""
KEPT_RECORDS = 20_000
"""Records of the load that are kept from before a fault: a thousand faults are a million requests."""


class Stage:
    """One mesh, kept alive over many faults. tokens: how often a sidecar could not come back by itself."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.layout = scene.layout
        self.tokens = 0
        self.held_back: set[Target] = set()
        """What nobody may start again while a fault lasts."""
        self.away = 0.0
        """Seconds that the authority was not there since the fault began."""
        self._gone: float | None = None
        self._deaths: dict[str, list[float]] = {side.name: [] for side in scene.layout.sides}
        self._starts: dict[str, int] = {side.name: 0 for side in scene.layout.sides}
        self._pidfds: list[int] = []

    async def set_up(self) -> None:
        """Both sides attested, both Envoys served, traffic in both directions."""
        for standing in self.scene.standings:
            await self.scene.start_envoy(standing)
            await self.scene.start_sidecar(standing, enrol=True)
        await self.scene.run_load([replace(flow, pause=PAUSE) for flow in flows(self.layout)])

    def standing(self, side: str) -> Standing:
        return self.scene.web if side == self.scene.web.side.name else self.scene.db

    def pids(self, target: Target, side: str) -> tuple[int, ...]:
        """The running processes that a fault is done to."""
        if target is Target.AUTHORITY:
            children = (self.scene.authority,)
        else:
            standing = self.standing(side)
            if target is Target.SIDE:
                parts = (Target.SIDECAR, Target.MEASURER, Target.ENVOY, Target.WORKLOAD)
                return tuple(pid for part in parts for pid in self.pids(part, side))
            if target is Target.MEASURER:
                return _measurers(standing)
            children = (
                {
                    Target.SIDECAR: standing.sidecar,
                    Target.ENVOY: standing.envoy,
                    Target.WORKLOAD: standing.workload,
                }[target],
            )
        return tuple(child.pid for child in children if child is not None and child.running)

    # One fault's story.

    def begin(self) -> None:
        """Forget the last fault's story; note from now on when somebody dies."""
        self.end_watch()
        self.away = 0.0
        for standing in self.scene.standings:
            side = standing.side.name
            self._deaths[side], self._starts[side] = [], 0
            for part in (Target.SIDECAR, Target.MEASURER, Target.WORKLOAD):
                for pid in self.pids(part, side):
                    self._watch_death(side, pid)
        records = self.scene.ledger.records
        del records[:-KEPT_RECORDS]

    def end_watch(self) -> None:
        loop = asyncio.get_running_loop()
        for pidfd in self._pidfds:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        self._pidfds.clear()

    def story(self, side: str, since: float) -> SideStory:
        """What that side's sidecar told since, and who died."""
        lines = [line for line in self.standing(side).watch.since(since) if float(line.get("at", 0.0)) >= since]
        phases = [(str(line["phase"]), float(line["at"])) for line in lines if line.get("event") == Event.PHASE]
        return SideStory(
            closed=tuple(float(line["at"]) for line in lines if line.get("event") == Event.CLOSED),
            died=tuple(self._deaths[side]),
            left=tuple(at for phase, at in phases if phase != Phase.FRESH),
            fresh=tuple(at for phase, at in phases if phase == Phase.FRESH),
        )

    # Keeping it running.

    async def keep(self) -> None:
        """Starts what does not run any more, as a supervisor and, in the end, an operator would."""
        authority = self.scene.authority
        if authority is None or not authority.running:
            self._gone = self._gone or now()
            if Target.AUTHORITY not in self.held_back:
                with suppress(Unavailable):
                    await self.scene.start_authority()
            return
        if self._gone is not None:
            self.away += now() - self._gone
            self._gone = None
        for standing in self.scene.standings:
            await self._keep_side(standing)

    async def _keep_side(self, standing: Standing) -> None:
        side = standing.side.name
        if standing.workload is None or not standing.workload.running:
            if standing.sidecar is not None and standing.sidecar.running:
                return  # it ends with its workload
            await self.scene.start_workload(standing)
            await self.scene.start_sidecar(standing, enrol=True)
        elif standing.sidecar is None or not standing.sidecar.running:
            self._starts[side] += 1
            anew = self._starts[side] > MOST_STARTS
            self.tokens += anew
            await self.scene.start_sidecar(standing, enrol=anew)
        else:
            return
        for part in (Target.SIDECAR, Target.WORKLOAD):
            for pid in self.pids(part, side):
                self._watch_death(side, pid)

    @contextmanager
    def drift(self, side: str) -> Iterator[None]:
        """A page of the workload is modified, and put back as it was."""
        page = self.standing(side).side.page
        original = page.read_bytes()
        page.write_bytes(original + b"<!-- changed -->\n")
        try:
            yield
        finally:
            page.write_bytes(original)

    async def renew(self) -> None:
        """New instances on both sides: after a fault that they did not recover from, the next starts clean."""
        for standing in self.scene.standings:
            for child in (standing.sidecar, standing.workload):
                if child is not None and child.running:
                    await child.end()

    def flows(self, since: float) -> bool:
        """Is everything as it should be, shown by rounds and requests that came after `since`?"""
        authority = self.scene.authority
        return (
            authority is not None
            and authority.running
            and all(self._attested(standing, since) for standing in self.scene.standings)
            and self.scene.ledger.recovered_after(ALL_FLOWS, since) is not None
        )

    def _attested(self, standing: Standing, since: float) -> bool:
        child, watch = standing.sidecar, standing.watch
        running = child is not None and child.running
        return running and watch.phase == Phase.FRESH and watch.first(Event.ROUND, since) is not None

    def _watch_death(self, side: str, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._deaths[side].append(now())
            return
        self._pidfds.append(pidfd)
        asyncio.get_running_loop().add_reader(pidfd, self._died, side, pidfd)

    def _died(self, side: str, pidfd: int) -> None:
        self._deaths[side].append(now())
        asyncio.get_running_loop().remove_reader(pidfd)


@asynccontextmanager
async def stage(terms: Terms) -> AsyncIterator[Stage]:
    """A mesh whose stores are small file systems of their own, where that is permitted. Leaves nothing behind."""
    with ExitStack() as undo:
        layout = Layout.make(undo.enter_context(folder.passing("faults")), terms)
        if os.geteuid() == 0:
            for side in layout.sides:
                undo.enter_context(_small_disk(side.state, STATE_BYTES))
            undo.enter_context(_small_disk(layout.store.parent, STORE_BYTES))
        async with asyncio.TaskGroup() as tasks:
            made = Stage(Scene(layout, tasks))
            try:
                await made.scene.set_up(ca_seconds=CA_SECONDS)
                await made.set_up()
                yield made
            finally:
                made.end_watch()
                await made.scene.end()


@contextmanager
def _small_disk(at: Path, size: int) -> Iterator[None]:
    at.mkdir(mode=0o700, parents=True)
    mount("-t", "tmpfs", "-o", f"size={size},mode=0700", "proofbeat-faults", str(at))
    try:
        yield
    finally:
        unmount(str(at))


def mount(*arguments: str) -> None:
    """mount(8). Raises CalledProcessError."""
    subprocess.run(["mount", *arguments], check=True)


def unmount(folder: str) -> None:
    """Also where somebody still holds a file of it (umount(8)). Raises CalledProcessError."""
    subprocess.run(["umount", "--lazy", folder], check=True)


def _measurers(standing: Standing) -> tuple[int, ...]:
    """The sidecar's one child (proc_pid_task(5), `children`)."""
    sidecar = standing.sidecar
    if sidecar is None or not sidecar.running:
        return ()
    try:
        return tuple(map(int, Path(f"/proc/{sidecar.pid}/task/{sidecar.pid}/children").read_text().split()))
    except OSError:
        return ()
