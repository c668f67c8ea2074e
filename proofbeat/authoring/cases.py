"""`proofbeat policy test`: every case below a folder, tried."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from attestation.plain import plain
from policies.author import cases
from policies.author.junit import junit
from policies.author.trial import Tried, tried
from policies.model import signing
from proofbeat.authoring.writing import write


async def run(path: Path, trusted: Sequence[Path], *, as_json: bool, junit_file: Path | None) -> bool:
    """True when all came out as expected. Raises InvalidConfiguration where a case cannot be tried at all."""
    trust = signing.demanded(trusted)
    found = [each for written in cases.read(path) for each in tried(written, trust)]
    if junit_file is not None:
        write(junit_file, junit(found))
    print(json.dumps(document(found), indent=1) if as_json else "\n".join(_lines(found)))
    return not any(each.failures for each in found)


def document(found: Sequence[Tried]) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (docs/policies.md)."""
    return {
        "ok": not any(each.failures for each in found),
        "cases": len(found),
        "failed": sum(bool(each.failures) for each in found),
        "tried": [
            {
                "test": each.test,
                "name": each.name,
                "file": str(each.place.file),
                "line": each.place.line,
                "ok": not each.failures,
                "tier": each.tier,
                "opens": each.opens,
                "found": plain(each.found),
                "failures": each.failures,
            }
            for each in found
        ],
    }


def _lines(found: Sequence[Tried]) -> Iterator[str]:
    for each in found:
        yield f"{'FAILED' if each.failures else 'ok    '}  {each.test}: {each.name}"
        if each.failures:
            yield f"        {each.place}"
            yield from (f"        {failure}" for failure in each.failures)
    failed = sum(bool(each.failures) for each in found)
    yield f"{len(found)} cases, {failed} failed"
