"""The story on a terminal, while it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proofbeat.demo.closing import Act
from proofbeat.demo.ledger import Ledger
from proofbeat.demo.load import Flow
from proofbeat.demo.scene import Scene

_PHASE_STYLE = {"fresh": "bold green", "quarantined": "bold red", "stale": "bold red", "unattested": "yellow"}
_OUTCOME_STYLE = {"ok": "bold green", "FAILED": "bold red", "left out": "yellow"}
MOST_LEAKS = 10
"""Leaks that are told one by one."""
RECENT = 60
"""Records of a flow that its line of dots shows."""


class Telling:
    """Lines of story, and below them the present state of both sides. Plain lines where stdout is no terminal."""

    def __init__(self, *, quiet_stdout: bool) -> None:
        self._console = Console(file=sys.stderr if quiet_stdout else sys.stdout, highlight=False)
        self._began = time.monotonic()
        self._live: Live | None = None
        self._scene: Scene | None = None
        self._flows: Sequence[Flow] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def watch(self, scene: Scene, flows: Sequence[Flow]) -> None:
        """From now on the state below the story is this scene's."""
        self._scene, self._flows = scene, flows
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._state, console=self._console, refresh_per_second=8, transient=True)
            self._live.start()

    def title(self, text: str) -> None:
        self._console.print()
        self._console.print(Text(text, style="bold"), soft_wrap=True)

    def say(self, text: str) -> None:
        moment = time.monotonic() - self._began
        self._console.print(Text.assemble((f"{moment:6.1f}s  ", "dim"), text), soft_wrap=True)

    def verdict(self, act: Act) -> None:
        self._console.print(Text.assemble("        ", (_outcome(act), _OUTCOME_STYLE[_outcome(act)])))

    def table(self, acts: Sequence[Act], ledger: Ledger) -> None:
        """All acts at a glance."""
        table = Table(title="milliseconds from the act", title_justify="left", box=None, pad_edge=False)
        for name in ("act", "", "seen", "new refused", "open cut", "peer refused", "recovered"):
            table.add_column(name, justify="left" if name in ("act", "") else "right")
        for act in acts:
            figures = (
                act.observed_ms,
                act.own_envoy_refused_ms,
                act.open_connections_cut_ms,
                act.peer_refused_ms,
                act.recovered_ms,
            )
            table.add_row(act.name, _outcome(act), *("" if each is None else f"{each:.1f}" for each in figures))
        self._console.print()
        self._console.print(table)
        leaks = ledger.leaked()
        for record, closure in leaks[:MOST_LEAKS]:
            flow = self._flows[record.flow].name if record.flow < len(self._flows) else str(record.flow)
            self._console.print(
                f"leaked: {flow}, begun {(record.began - closure.closed) * 1000:.1f} ms after the closing, served "
                f"{(record.ended - record.began) * 1000:.1f} ms later, {(closure.opened - record.ended) * 1000:.1f} ms "
                "before the opening",
                soft_wrap=True,
            )
        leaked = len(leaks)
        if leaked > MOST_LEAKS:
            self._console.print(f"leaked: and {leaked - MOST_LEAKS} more")
        self._console.print()
        self._console.print(
            f"{ledger.served()} requests served, {ledger.refused()} refused, "
            f"[{'green' if leaked == 0 else 'red'}]{leaked} leaked[/]"
        )

    def _state(self) -> Group:
        if self._scene is None:
            return Group()
        lines: list[Text] = [Text()]
        for standing in self._scene.standings:
            phase = standing.watch.phase or "starting"
            lines.append(Text.assemble(f"  {standing.side.name:4}", (phase, _PHASE_STYLE.get(phase, "dim"))))
        for number, flow in enumerate(self._flows):
            dots = Text(f"  {flow.name:32}", style="dim")
            for served in self._scene.ledger.recent(number, RECENT):
                dots.append("." if served else "x", style="green" if served else "red")
            lines.append(dots)
        return Group(*lines)


def _outcome(act: Act) -> str:
    if act.left_out:
        return "left out"
    return "ok" if act.ok else "FAILED"
