"""What `policy learn` says in the end: to people, and as one JSON object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation.wording import shown
from policies.author.learning.learned import Contents, Learned
from policies.author.learning.remarks import remarks, standing
from policies.model.memory import CodeAllowance, amount_text
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues

_MOST_TOLD = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """earlier: what it was merged with; None where with nothing. findings: what of what was seen the policy would close
    for all the same. written: files.
    """

    name: str
    learned: Learned
    policy: AttestationPolicy
    references: ReferenceValues
    earlier: Learned | None
    findings: Sequence[str]
    written: Sequence[Path]


def document(found: Outcome) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (docs/learning.md)."""
    learned, spec = found.learned, found.references.spec
    return {
        "name": found.name,
        "converged": learned.converged,
        "runs": [
            {
                "id": run.id,
                "of": shown(run.of),
                "seconds": run.seconds,
                "converged": run.converged,
                "quiet": run.quiet,
                "needed": run.needed,
                "lost": run.lost,
            }
            for run in learned.runs
        ],
        "calls": {name: list(calls) for name, calls in spec.syscalls.items()},
        "executables": _shown(spec.executables),
        "mapped": _shown(learned.mapped),
        "files": len(learned.files),
        "volatile": _shown(learned.volatile),
        "memory": [_allowed(each) for each in found.policy.spec.memory.jit],
        "unseen": _shown(learned.unseen),
        "beyond": None if found.earlier is None else _beyond(learned, found.earlier),
        "remarks": _shown(remarks(learned)),
        "findings": _shown(found.findings),
        "written": [str(each) for each in found.written],
    }


def lines(found: Outcome) -> Iterator[str]:
    told = document(found)
    yield f"{found.name}: {', '.join(f'{run.of}: {standing(run)}' for run in found.learned.runs)}"
    sets = ", ".join(f"{name} {len(calls)}" for name, calls in told["calls"].items())
    yield f"  calls     {sets or 'not looked at'}"
    yield f"  programs  {len(told['executables'])} may be executed, {len(told['mapped'])} files may be mapped as code"
    yield f"  files     {told['files']} as they are, {len(told['volatile'])} that change"
    for each in told["memory"]:
        yield f"  memory    {each['executable']} may make {each['most']} of code{', writable' * each['writable']}"
    if told["beyond"] is not None:
        yield f"  beyond    what was merged: {'; '.join(_news(told['beyond'])) or 'nothing'}"
    yield from (f"  note      {each}" for each in told["remarks"])
    for finding in told["findings"][:_MOST_TOLD]:
        yield f"  TOLD      under this policy all the same: {finding}"
    if len(told["findings"]) > _MOST_TOLD:
        yield f"  TOLD      and {len(told['findings']) - _MOST_TOLD} more (--json has them)"
    yield from (f"  written   {each}" for each in told["written"])


def _news(beyond: dict[str, list[str]]) -> Iterator[str]:
    for what, names in beyond.items():
        if names:
            more = ", ..." if len(names) > _MOST_TOLD else ""
            yield f"{len(names)} {what} ({', '.join(names[:_MOST_TOLD])}{more})"


def _beyond(learned: Learned, earlier: Learned) -> dict[str, list[str]]:
    """What this run brought: the less, the sooner the next one brings nothing."""
    return {
        "calls": sorted(learned.called - earlier.called),
        "executables": _new(learned.executables, earlier.executables),
        "mapped": _new(learned.mapped, earlier.mapped),
    }


def _new(now: Contents, before: Contents) -> list[str]:
    return _shown(path for path, contents in now.items() if contents.keys() - before.get(path, {}).keys())


def _allowed(allowance: CodeAllowance) -> dict[str, Any]:
    return {
        "executable": shown(allowance.executable),
        "most": amount_text(allowance.most),
        "writable": allowance.writable,
        "memfd": allowance.memfd,
    }


def _shown(texts: Iterable[str]) -> list[str]:
    return [shown(each) for each in texts]
