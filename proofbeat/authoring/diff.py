"""`proofbeat policy diff`: whose verdict would change if other policies came into force."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from policies.appraise.reasons import Finding
from policies.author import saved
from policies.author.compare import Compared, Outcome, compared
from policies.model import signing
from policies.model.load import load


async def run(before: Path, after: Path, evidence: Path, root: str, trusted: Sequence[Path], *, as_json: bool) -> bool:
    """True when nobody would close, and that could be told of everybody."""
    trust = signing.demanded(trusted)
    found = compared(load([before], root, trust), load([after], root, trust), saved.read(evidence), time.time())
    print(json.dumps(document(found), indent=1) if as_json else "\n".join(_lines(found)))
    return not any(each.closes or each.untold for each in found)


def document(found: Sequence[Compared]) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (docs/policies.md)."""
    return {
        "instances": len(found),
        "closing": sum(each.closes for each in found),
        "untold": sum(bool(each.untold) for each in found),
        "changes": [
            {
                "instance": each.instance,
                "registration": each.registration,
                "closes": each.closes,
                "untold": each.untold,
                "before": _outcome(each.before),
                "after": _outcome(each.after),
            }
            for each in found
            if each.changes or each.untold
        ],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "mode": outcome.mode,
        "tier": outcome.tier,
        "opens": outcome.opens,
        "reasons": [
            {"signal": each.kind, "subject": each.subject, "text": each.text, "rule": each.rule}
            for each in outcome.reasons
        ],
    }


def _lines(found: Sequence[Compared]) -> Iterator[str]:
    for each in found:
        who = f"{each.instance}  {each.registration}"
        if each.untold:
            yield f"{who}: cannot be told; {each.untold}"
        elif each.changes:
            verdict = "CLOSES: " if each.closes else "opens: " if each.after.opens > each.before.opens else ""
            yield f"{who}: {verdict}{_short(each.before)} -> {_short(each.after)}"
            yield from (f"  {one.kind}: {one.text}  ({one.rule})" for one in _telling(each))
    changing, closing = sum(each.changes for each in found), sum(each.closes for each in found)
    yield f"{len(found)} instances: {changing} would change, {closing} would close"


def _telling(each: Compared) -> list[Finding]:
    """All that closes it, else what is new."""
    known = set() if each.closes else {(one.kind, one.subject) for one in each.before.reasons}
    return [one for one in each.after.reasons if (one.kind, one.subject) not in known]


def _short(outcome: Outcome) -> str:
    return f"{outcome.tier} ({outcome.mode})" if outcome.mode else "ruled by nothing"
