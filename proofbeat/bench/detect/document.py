"""docs/signals.md, from the catalogue and what `bench detect --json` found: `make signals` writes it again.

Usage: python -m proofbeat.bench.detect.document REPORT [REPORT], the second by a run without any capability.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attestation.signals import Signal
from proofbeat.bench.detect.catalogue import CATALOGUE, ELSEWHERE, UNSEEN, Attack

Figures = Mapping[str, Mapping[str, Any]]

_HEAD = """# Signals

Made by `make signals` from proofbeat/bench/detect/catalogue.py and a run of `proofbeat bench detect`; a test holds
that every signal is here. The same acts are tests (tests/system/attacks/test_catalogue.py): each is one small program
that an intruder runs in a measured workload, under traffic, with a real Envoy.

*stated*: the most from the act to the violation, with all privileges and under that traffic. *violation*: until the
sidecar has it. *closed*: until the sidecar has verified that its Envoy refuses and that nothing is open.
*restricted*: until the violation where nobody has a capability, neither what measures nor what is measured, as where
all is an ordinary user's ([profiles](profiles.md)); *told* says of how many acts it was, where not of all it cannot be
relied upon. An execution is counted from before its process is forked, with what starting it takes.
A class is the signal's own; a policy may state another (`onViolation`), and `configuration` is always drift.

"""


def document(full: Mapping[str, Any], restricted: Mapping[str, Any] | None) -> str:
    """Both as `bench detect --json` prints them."""
    return "".join(_lines(full, restricted or {"figures": {}}))


def _lines(full: Mapping[str, Any], restricted: Mapping[str, Any]) -> Iterator[str]:
    machine = full["machine"]
    yield _HEAD
    yield f"Measured on {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}."
    yield f" Milliseconds from the act, by {_most_samples(full['figures'])} samples an act: p99 is the largest."
    yield "\n\n## Acts\n"
    yield "| act | signal | class | collector | stated | violation p50 | p99 | closed p50 | p99 "
    yield "| restricted p50 | p99 | told |\n|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    for attack in CATALOGUE:
        yield _row(attack, full["figures"], restricted["figures"])
    yield "\n## Signals that no act inside a workload shows\n| signal | class | meaning | when |\n|---|---|---|---|\n"
    for signal, why in ELSEWHERE.items():
        yield f"| `{signal}` | {signal.default} | {signal.meaning} | {why} |\n"
    yield "\n## What is not seen\n"
    for collector, gaps in UNSEEN.items():
        yield f"- `{collector}`: {' '.join(gaps)}\n"
    yield "\n## What each signal means\n| signal | class | meaning |\n|---|---|---|\n"
    for signal in Signal:
        if signal not in ELSEWHERE:
            yield f"| `{signal}` | {signal.default} | {signal.meaning} |\n"


def _row(attack: Attack, full: Figures, restricted: Figures) -> str:
    seen, closed = (_spread(full, f"{attack.name}_to_{what}") for what in ("violation", "closed"))
    less = f"{_spread(restricted, f'{attack.name}_to_violation')} | {_told(attack, restricted)}"
    cells = (attack.told, f"`{attack.signal}`", attack.told_class, f"`{attack.collector}`", f"{attack.within_ms:g}")
    return f"| {' | '.join(cells)} | {seen} | {closed} | {less} |\n"


def _told(attack: Attack, restricted: Figures) -> str:
    if not restricted:
        return ""
    if attack.privileged:
        return "takes a capability"
    told = restricted.get(f"{attack.name}_told")
    return f"{told['value']:g} {told['unit']}" if told is not None else ""


def _most_samples(figures: Figures) -> int:
    return max(int(each.get("samples", 0)) for each in figures.values())


def _spread(figures: Figures, name: str) -> str:
    found = figures.get(name)
    return "|" if found is None else f"{found['p50']:.1f} | {found['p99']:.1f}"


if __name__ == "__main__":
    reports = [json.loads(Path(each).read_text()) for each in sys.argv[1:3]]
    sys.stdout.write(document(reports[0], reports[1] if len(reports) > 1 else None))
