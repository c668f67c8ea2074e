"""Remarks as SARIF 2.1.0 (OASIS), which code hosts and editors show beside the line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from policies.author.remarks import MEANINGS, Check, Level, Remark

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = tuple(Check)


def sarif(remarks: Sequence[Remark], version: str, folder: Path) -> dict[str, Any]:
    """One run. version: ours. folder: absolute; files below it are named relative to it, as a code host wants it."""
    driver = {
        "name": "proofbeat",
        "version": version,
        "informationUri": "https://proofbeat.dev/",
        "rules": [_rule(each) for each in _RULES],
    }
    results = [_result(each, folder) for each in remarks]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _rule(check: Check) -> dict[str, Any]:
    level = Level.ERROR if check is Check.INVALID else Level.WARNING
    return {
        "id": check.value,
        "shortDescription": {"text": MEANINGS[check]},
        "defaultConfiguration": {"level": level.value},
    }


def _result(remark: Remark, folder: Path) -> dict[str, Any]:
    place = remark.place
    said = f"{remark.text}. {remark.mend}" if remark.mend else f"{remark.text}."
    location: dict[str, Any] = {"artifactLocation": {"uri": _uri(place.file, folder)}}
    if place.line:
        location["region"] = {"startLine": place.line, "startColumn": max(1, place.column)}
    return {
        "ruleId": remark.check.value,
        "ruleIndex": _RULES.index(remark.check),
        "level": remark.level.value,
        "message": {"text": said[0].upper() + said[1:]},
        "locations": [{"physicalLocation": location}],
    }


def _uri(file: Path, folder: Path) -> str:
    absolute = folder / file
    return quote(str(absolute.relative_to(folder))) if absolute.is_relative_to(folder) else absolute.as_uri()
