"""`proofbeat why`: what closed an instance, which line forbids it, what would allow it and what repairs it."""

from __future__ import annotations

import datetime
import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attestation.errors import InvalidInput
from attestation.quantities import seconds
from proofbeat import admin

_WHERE = "--at"
_MEND = "Write 2026-01-31T12:00:00Z, or how long ago: -5m."
_LATEST = 6
"""Changes that are shown to a person; --json has more."""


async def run(socket: Path, asked: str, at: str | None, *, as_json: bool) -> bool:
    """True once the question is answered, whatever the answer."""
    answer = await ask(socket, asked, None if at is None else moment(at, time.time()))
    if as_json:
        print(json.dumps(document(answer), indent=1))
    else:
        print("\n".join(lines(answer, socket)))
    return True


async def ask(socket: Path, asked: str, at: float | None = None) -> dict[str, Any]:
    """The authority's answer (authority.why.Why as JSON). at: Unix seconds, None for now."""
    query = {"instance": asked} | ({} if at is None else {"at": str(int(at * 1000))})
    answer: dict[str, Any] = await admin.ask(socket, "GET", f"/admin/why?{urlencode(query)}")
    return answer


def moment(text: str, now: float) -> float:
    """Unix seconds of `-5m`, or of an ISO 8601 time; one without a zone is local. Raises InvalidInput."""
    if re.match(r"-\d", text):
        return now - seconds(text[1:])
    try:
        return datetime.datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text!r} is no time", where=_WHERE, mend=_MEND) from error


def document(answer: dict[str, Any]) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (README). Times are ISO 8601, null where there is none."""
    return {
        "instance": answer["instance"],
        "spiffe_id": answer["spiffe_id"],
        "registration": answer["registration"],
        "at": _iso(answer["at_ms"]),
        "state": answer["state"],
        "since": _iso(answer["since_ms"]),
        "open": answer["open"],
        "answer": answer["answer"],
        "cause": _cause(answer["cause"]),
        "others": [_cause(each) for each in answer["others"]],
        "repair": answer["repair"],
        "now": {"state": answer["now"], "since": _iso(answer["now_since_ms"]), "gone": answer["gone"]},
        "history_begins": _iso(answer["history_begins_ms"]),
        "history": [
            {"at": _iso(each["at_ms"]), "event": each["event"], "state": each["state"], "text": each["text"]}
            for each in answer["history"]
        ],
    }


def lines(answer: dict[str, Any], socket: Path) -> list[str]:
    """For a person. socket: for the commands that it names."""
    state, since = answer["state"], _iso(answer["since_ms"])
    said = [f"{answer['instance']}  {answer['spiffe_id']}", f"{state} since {since}" if since else state]
    said += [_line("why", answer["answer"])]
    cause = answer["cause"]
    if cause is not None:
        said += _about(cause)
    said += [_line("repair" if not number else "", each) for number, each in enumerate(answer["repair"])]
    if cause is not None and cause["violation_class"] != "drift" and answer["repair"] and not answer["gone"]:
        said.append(_line("", f"proofbeat release --admin {socket} {answer['instance']}"))
    if cause is not None and cause["allow"]:
        said.append(_line("allow", "if it is meant to be so, add this to the authority's policies:"))
        said += [f"           {each}" for each in cause["allow"].splitlines()]
    others = answer["others"][-_LATEST:]
    said += [_line("also" if not number else "", each["text"]) for number, each in enumerate(others)]
    gone = ", and gone" if answer["gone"] else ""
    said.append(_line("now", f"{answer['now']} since {_iso(answer['now_since_ms'])}{gone}"))
    for number, each in enumerate(answer["history"][-_LATEST:]):
        said.append(_line("history" if not number else "", f"{_iso(each['at_ms'])}  {each['event']}: {each['text']}"))
    return said


def _about(cause: dict[str, Any]) -> list[str]:
    found = [_line("cause", f"{cause['id']}, at {_iso(cause['at_ms'])}")] if cause["id"] else []
    if process := cause["process"]:
        parent = f", child of {process['parent']}" if process["parent"] else ""
        found.append(_line("process", f"pid {process['pid']} {process['executable']}{parent}"))
    if cause["subject"]:
        found.append(_line("file" if cause["subject"].startswith("/") else "subject", cause["subject"]))
    if cause["rule"]:
        found.append(_line("policy", f"{cause['place']}  {cause['rule']}" if cause["place"] else cause["rule"]))
    return found


def _cause(cause: dict[str, Any] | None) -> dict[str, Any] | None:
    if cause is None:
        return None
    return {
        "id": cause["id"],
        "kind": cause["kind"],
        "class": cause["violation_class"],
        "layer": cause["layer"],
        "text": cause["text"],
        "at": _iso(cause["at_ms"]),
        "process": cause["process"],
        "file": cause["subject"] if cause["subject"].startswith("/") else None,
        "subject": cause["subject"],
        "policy": {"rule": cause["rule"], "place": cause["place"]},
        "mend": cause["mend"],
        "allow": cause["allow"],
    }


def _line(name: str, text: str) -> str:
    return f"  {name:9}{text}"


def _iso(milliseconds: int) -> str | None:
    if not milliseconds:
        return None
    try:
        at = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):  # a sidecar's clock can say anything
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
