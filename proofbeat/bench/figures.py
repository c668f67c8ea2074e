"""Figures, budgets and the shape of a report. Pure."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Distribution:
    """Samples by nearest-rank percentiles."""

    unit: str
    samples: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float], unit: str = "ms") -> Distribution:
        ordered = sorted(values)
        p50, p95, p99 = (round(_rank(ordered, share), 3) for share in (0.50, 0.95, 0.99))
        return cls(unit, len(ordered), p50, p95, p99, round(ordered[-1], 3) if ordered else float("nan"))


@dataclass(frozen=True, slots=True)
class Value:
    unit: str
    value: float


Figure = Distribution | Value


@dataclass(frozen=True, slots=True)
class Budget:
    """what: in words. budget, measured: in the unit that `what` names. at_least: more is better."""

    what: str
    budget: float
    measured: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Never where nothing was measured, which is not a number."""
        return self.measured >= self.budget if self.at_least else self.measured <= self.budget

    def plain(self) -> dict[str, Any]:
        """The contract's shape."""
        measured = _written(self.measured)
        return {"what": self.what, "budget": self.budget, "measured": measured, "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Report:
    """One benchmark's outcome. peers: figures by name; one that is not here says so, under `missing`."""

    bench: str
    figures: dict[str, Figure]
    budgets: tuple[Budget, ...]
    peers: Mapping[str, Mapping[str, Figure | str]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return all(budget.holds for budget in self.budgets)

    def plain(self) -> dict[str, Any]:
        """The contract's shape."""
        return {
            "bench": self.bench,
            "machine": machine(),
            "figures": _plain(self.figures),
            "peers": {name: _plain(figures) for name, figures in self.peers.items()},
            "budgets": [budget.plain() for budget in self.budgets],
        }


def _plain(figures: Mapping[str, Figure | str]) -> dict[str, Any]:
    return {
        name: figure if isinstance(figure, str) else {key: _written(value) for key, value in asdict(figure).items()}
        for name, figure in figures.items()
    }


def _written(value: Any) -> Any:
    """JSON has no word for what is not a number: null says that nothing was measured."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def _rank(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]
