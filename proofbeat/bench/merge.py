"""`bench merge`: which policies are for whom, and what they come to together, for all workloads of an authority.

From documents in memory to what rules each workload; reading YAML and signing are no part of it. What policies state is
drawn at random, always the same way.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from policies.model.load import PolicySet
from policies.model.metadata import Metadata
from policies.model.origin import Mark, Origin
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.reading import Document
from policies.model.references import ReferenceValues
from policies.model.registration import RegistrationSpec, WorkloadRegistration
from policies.model.selection import ROOT_NAMESPACE
from proofbeat.bench.figures import Budget, Distribution, Figure, Report, Value

NAMESPACES, WORKLOADS = 50, 10_000
FLOOR, TIERED, OWN = 5, 45, 18
"""In the root namespace for all, and by tier; in each namespace by application, beside one for all of it."""
TIERS = 5
POLICIES = FLOOR + TIERED + NAMESPACES * (1 + OWN)
MOST_MS = 1000.0


async def run(*, quick: bool) -> Report:
    found = list(documents())
    taken = [_taken(found) for _ in range(3 if quick else 20)]
    everybody = Distribution.of([wall for wall, _ in taken])
    selections = {id(each.policy): len(each.applying) for each in PolicySet(found).governing.values()}
    figures: dict[str, Figure] = {
        "everybody": everybody,
        "everybody_cpu": Distribution.of([cpu for _, cpu in taken]),
        "a_workload": Value("us", round(everybody.p50 * 1000 / WORKLOADS, 1)),
        "different_selections": Value("", len(selections)),
        "policies_a_selection": Value("", round(mean(selections.values()), 1)),
    }
    what = f"{POLICIES:,} policies over {WORKLOADS:,} workloads, p50 in ms"
    return Report("merge", figures, (Budget(what, MOST_MS, everybody.p50),))


def _taken(found: list[tuple[Document, Origin]]) -> tuple[float, float]:
    """Milliseconds that passed, and of CPU; without those of throwing it all away again."""
    began, spent = time.perf_counter(), time.process_time()
    merged = PolicySet(found)
    taken = (time.perf_counter() - began) * 1000, (time.process_time() - spent) * 1000
    del merged
    return taken


def documents() -> Iterator[tuple[Document, Origin]]:
    """Of a mesh: floors, policies of namespaces and of those that they select, and the workloads."""
    chance, at = random.Random(1), Origin(Path("mesh.yaml"), Mark(1, 1))  # noqa: S311 - nothing here is secret
    for number in range(FLOOR):
        yield _policy(f"floor-{number}", ROOT_NAMESPACE, _stated(chance)), at
    for number in range(TIERED):
        selector = {"matchLabels": {"tier": f"tier-{number % TIERS}"}}
        yield _policy(f"tier-{number}", ROOT_NAMESPACE, {"selector": selector, **_stated(chance)}), at
    for namespace in (f"team-{number}" for number in range(NAMESPACES)):
        yield _policy("all", namespace, {"files": {"include": ["/srv/app"]}, **_stated(chance)}), at
        for number in range(OWN):
            selector = {"matchLabels": {"app": f"app-{number}"}}
            yield _policy(f"app-{number}", namespace, {"selector": selector, **_stated(chance)}), at
        yield ReferenceValues(metadata=Metadata(name="built", namespace=namespace)), at
        for number in range(WORKLOADS // NAMESPACES):
            yield _workload(f"workload-{number}", namespace, chance), at


def _policy(name: str, namespace: str, spec: dict[str, Any]) -> AttestationPolicy:
    return AttestationPolicy(metadata=Metadata(name=name, namespace=namespace), spec=PolicySpec.model_validate(spec))


def _workload(name: str, namespace: str, chance: random.Random) -> WorkloadRegistration:
    labels = {
        "app": f"app-{chance.randrange(OWN)}",
        "tier": f"tier-{chance.randrange(TIERS)}",
        "release": f"{chance.randrange(100)}",
    }
    spec = RegistrationSpec(spiffe_id=f"spiffe://example.org/{namespace}/{name}", references="built")
    return WorkloadRegistration(metadata=Metadata(name=name, namespace=namespace, labels=labels), spec=spec)


def _stated(chance: random.Random) -> dict[str, Any]:
    """A third of what a policy may state."""
    whole: dict[str, Any] = {
        "mode": chance.choice(["observe", "audit", "enforce"]),
        "interval": f"{chance.randint(5, 30)}s",
        "freshness": f"{chance.randint(60, 300)}s",
        "deadman": f"{chance.randint(1, 5)}s",
        "escalateAfter": f"{chance.randint(20, 250)}ms",
        "layers": {"files": {"maxAge": f"{chance.randint(30, 120)}s"}, "proxy": {"demand": "best-effort"}},
        "processes": {"mostCapabilities": f"{chance.randrange(1 << 16):x}", "requireNoNewPrivileges": True},
        "proxy": {"requireDrainNow": True, "requireDenyFilters": chance.random() < 0.5},
        "coverage": {"cutting": "kill", "isolation": chance.sample(["non-dumpable", "distinct-user", "no-tracing"], 2)},
        "recovery": {"drift": chance.choice(["auto", "replace"])},
        "breakGlass": {"longest": f"{chance.randint(10, 60)}m"},
    }
    return {key: whole[key] for key in chance.sample(sorted(whole), 4)}
