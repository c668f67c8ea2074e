"""`proofbeat bench NAME`: runs one, prints its report, answers whether every budget holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attestation.errors import InvalidInput
from proofbeat.bench import deadman, gate, idle, merge, start, telemetry, violation
from proofbeat.bench import round as round_bench
from proofbeat.bench.appraise import run as appraise
from proofbeat.bench.calls import run as syscalls
from proofbeat.bench.cut import run as cut
from proofbeat.bench.detect import run as detect
from proofbeat.bench.faults import run as faults
from proofbeat.bench.figures import Distribution, Figure, Report
from proofbeat.bench.files import run as files
from proofbeat.bench.memory import run as memory
from proofbeat.bench.node.run import run as node
from proofbeat.bench.push import run as push
from proofbeat.bench.storm import run as storm

BENCHES: Mapping[str, tuple[Callable[..., Awaitable[Report]], str]] = {
    "round": (round_bench.run, "one round with evidence, stage by stage"),
    "violation": (violation.run, "a modified file: seen, refused, cut, open again"),
    "cut": (cut.run, "open connections of each kind, in each mode: when each end sees them cut"),
    "detect": (detect.run, "each act of an intruder: told as what it is, and closed for"),
    "deadman": (deadman.run, "a sidecar killed or stopped: traffic closed; a starved one: closed for nothing"),
    "start": (start.run, "start to first certificate; memory and idle cost"),
    "idle": (idle.run, "what a sidecar and its measurer cost over an hour in which nothing happens"),
    "node": (node, "1, 10 and 30 workloads under one measurer, beside a measurer each"),
    "xds-push": (push.run, "one secret to 1, 200 and 1,000 streams, beside go-control-plane"),
    "appraise": (appraise.run, "10,000 files and 20 rules, judged, beside Open Policy Agent"),
    "merge": (merge.run, "what rules 10,000 workloads under 1,000 policies"),
    "syscalls": (syscalls.run, "redis and nginx, their calls looked at, beside strace, perf and bpftrace"),
    "storm": (storm.run, "20,000 files and 50,000 programs at once: what is told, and what the workload pays"),
    "telemetry": (telemetry.run, "what exporting costs a round"),
    "files": (files.run, "100,000 files read, checked again, and one changed, beside AIDE and sha256sum"),
    "gate": (gate.run, "what an execution takes with a gate before it, beside the same without one"),
    "memory": (memory.run, "the code of redis, a JVM and Node looked into, beside hashing it; a patched page found"),
    "faults": (faults.run, "random faults under load: what leaked, what was lost, how long it was out"),
}


async def run(name: str, *, as_json: bool, quick: bool, options: Mapping[str, Any] | None = None) -> bool:
    """True when every budget holds. options: only for a benchmark that has them. Raises InvalidInput."""
    if name == "list":
        for known, (_, what) in BENCHES.items():
            print(f"{known:12}{what}")
        return True
    if name not in BENCHES:
        raise InvalidInput(f"no benchmark {name!r}", where="bench", mend=f"There are: {', '.join(BENCHES)}.")
    print(f"bench {name}: {BENCHES[name][1]}; this takes a while", file=sys.stderr)
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if given and name != "faults":
        raise InvalidInput(f"{name} takes no --{next(iter(given))}", where="bench", mend="`bench faults` does.")
    report = await BENCHES[name][0](quick=quick, **given)
    if as_json:
        print(json.dumps(report.plain(), indent=1))
    else:
        _print(report)
    return report.holds


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"bench {report.bench}", title_justify="left", box=None, pad_edge=False)
    for column in ("", "unit", "samples", "p50", "p95", "p99", "max"):
        table.add_column(column, justify="left" if column in ("", "unit") else "right")
    for name, figure in report.figures.items():
        table.add_row(*_row(name, figure))
    for peer, figures in report.peers.items():
        for name, each in figures.items():
            if not isinstance(each, str):
                table.add_row(*_row(f"{peer}: {name}", each), style="dim")
    console = Console(highlight=False)
    console.print(table)
    for budget in report.budgets:
        mark = "[green]holds[/]" if budget.holds else "[red]does not hold[/]"
        bound = "at least " if budget.at_least else ""
        console.print(f"{mark}  {budget.what}: {budget.measured:g} (budget {bound}{budget.budget:g})")
    for peer, figures in report.peers.items():
        if "missing" in figures:
            console.print(f"[dim]{peer}: {figures['missing']}[/]")


def _row(name: str, figure: Figure) -> list[str]:
    if isinstance(figure, Distribution):
        shown = [str(figure.samples), *(f"{each:g}" for each in (figure.p50, figure.p95, figure.p99, figure.max))]
    else:
        shown = ["", f"{figure.value:g}", "", "", ""]
    return [name.replace("_", " "), figure.unit, *shown]
