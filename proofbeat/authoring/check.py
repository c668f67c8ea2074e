"""`proofbeat policy check`: every fault and every doubt, for a person, a program or a code host."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attestation.errors import InvalidConfiguration, InvalidInput
from policies.author.check import Report, Terms, check
from policies.author.remarks import Level, Remark
from policies.author.sarif import sarif
from proofbeat.authoring.writing import write


async def run(paths: Sequence[Path], terms: Terms, *, strict: bool, as_json: bool, sarif_file: Path | None) -> bool:
    """True where an authority would take all of them; strict: and there is no warning. Raises InvalidConfiguration."""
    report = check(paths, terms)
    if not report.remarks and not any(True for _ in report.policies.documents):
        raise InvalidInput(
            "no document is there",
            where=", ".join(map(str, paths)),
            mend="Name files, or folders of *.yaml; folders in these are not looked into.",
        )
    if sarif_file is not None:
        write(sarif_file, json.dumps(sarif(report.remarks, version("proofbeat"), Path.cwd()), indent=1) + "\n")
    print(json.dumps(document(report), indent=1) if as_json else "\n".join(_lines(report)))
    if errors := report.count(Level.ERROR):
        raise InvalidConfiguration(
            f"{errors} error{'s' if errors > 1 else ''}: whom they concern gets no identity",
            where=", ".join(map(str, paths)),
            mend="Each is told above, with its line.",
        )
    return not (strict and report.remarks)


def document(report: Report) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (docs/policies.md)."""
    return {
        "ok": not report.count(Level.ERROR),
        "errors": report.count(Level.ERROR),
        "warnings": report.count(Level.WARNING),
        "remarks": [_remark(each) for each in report.remarks],
        "registrations": [
            {
                "name": name,
                "spiffe_id": governing.registration.spec.spiffe_id,
                "policy": governing.policy.metadata.qualified,
                "mode": governing.policy.spec.mode,
                "references": governing.references.metadata.qualified,
            }
            for name, governing in sorted(report.policies.governing.items())
        ],
        "unruled": sorted({*report.policies.unruled, *report.policies.faulty}),
    }


def _remark(remark: Remark) -> dict[str, Any]:
    return {
        "level": remark.level,
        "check": remark.check,
        "file": str(remark.place.file),
        "line": remark.place.line,
        "column": remark.place.column,
        "text": remark.text,
        "mend": remark.mend,
    }


def _lines(report: Report) -> list[str]:
    said = [str(each) for each in report.remarks]
    for name, governing in sorted(report.policies.governing.items()):
        identity, mode = governing.registration.spec.spiffe_id, governing.policy.spec.mode
        policies = " + ".join(each.policy.metadata.qualified for each in governing.applying)
        said.append(f"{name}: {identity} under {policies} ({mode}), against {governing.references.metadata.qualified}")
    return [*said, f"{report.count(Level.ERROR)} errors, {report.count(Level.WARNING)} warnings"]
