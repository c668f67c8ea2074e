"""What `up --acts` adds to a policy, and what comes of each act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestation.errors import Unavailable
from policies.author.learning.learned import Learned
from policies.model.references import ReferenceSpec
from proofbeat.acts.intrusions import Intrusion, absent
from proofbeat.baseline import BASELINE
from proofbeat.ephemeral.watch import Line, Watch
from telemetry.names import Event

WITHIN_SECONDS = 15.0
LOOKS = "1s"
_OWN_CONNECTIONS = "the program connects by itself, and nobody has listed where to (`egress.allowed`)"


@dataclass(frozen=True, slots=True)
class Intruded:
    """One act. Milliseconds; None where it was left out, for the reason that `left_out` says."""

    name: str
    signal: str = ""
    violation_ms: float | None = None
    closed_ms: float | None = None
    reopened_ms: float | None = None
    left_out: str = ""


def rules(said: Mapping[str, Any], learned: Learned) -> dict[str, Any]:
    """With looks into memory once a second. Connections are watched where the program makes none."""
    more = {**said, "memory": {**said.get("memory", {}), "period": LOOKS}}
    return more if "connect" in learned.called else {**more, "egress": {"allowed": [], "every": "200ms"}}


def allowed(spec: ReferenceSpec) -> ReferenceSpec:
    """Nobody watched it for long enough to know all that it calls."""
    return spec.model_copy(update={"syscalls": {**spec.syscalls, **BASELINE}})


def left_out(intrusion: Intrusion, said: Watch) -> str:
    """Why this act is not done; empty where it is. said: by the sidecar."""
    covered = [line for line in said.lines if line.get("event") == Event.COVERAGE]
    why = absent(covered[-1], intrusion.collector)
    if why and intrusion.collector not in covered[-1]["stopped"]:
        why = _OWN_CONNECTIONS
    return intrusion.prevented or why


async def told(intrusion: Intrusion, said: Watch, since: float) -> Line:
    """The violation that it was told as. Raises Unavailable."""
    line = await said.until(
        Event.VIOLATION, since, within=WITHIN_SECONDS, matching=lambda each: each["kind"] == intrusion.signal
    )
    if line is None:
        others = [str(each["kind"]) for each in said.since(since) if each.get("event") == Event.VIOLATION]
        what = f"{intrusion.name} was not told as {intrusion.signal} within {WITHIN_SECONDS:g} s"
        raise Unavailable(f"{what}; told was {', '.join(others) or 'nothing'}", where="proofbeat up --acts")
    return line
