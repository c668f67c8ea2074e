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
from attestation.plain import plain
from attestation.quantities import seconds
from attestation.tally import Offence
from authority.api.answers import LatestCalls
from authority.calling import InstanceCalls
from authority.store.records import Explanation
from authority.why import Why
from proofbeat import admin
from proofbeat.operate import called

_WHERE = "--at"
_MEND = "Write 2026-01-31T12:00:00Z, or how long ago: -5m."
_LATEST = 6
"""Changes that are shown to a person; --json has more."""


async def run(socket: Path, asked: str, at: str | None, *, as_json: bool) -> bool:
    """True once the question is answered, whatever the answer."""
    answer = await ask(socket, asked, None if at is None else moment(at, time.time()))
    calls = await calls_of(socket, answer.instance) if at is None else None
    if as_json:
        print(json.dumps(document(answer, calls), indent=1))
    else:
        print("\n".join((*lines(answer, socket), *of_calls(calls))))
    return True


async def calls_of(socket: Path, instance: str) -> InstanceCalls | None:
    """What its latest evidence says of system calls; None where it says nothing, or there is none."""
    told = await admin.ask(socket, "GET", f"/admin/calls?{urlencode({'instance': instance})}", LatestCalls)
    return next(iter(told.calls), None)


def of_calls(calls: InstanceCalls | None) -> list[str]:
    """For a person."""
    if calls is None:
        return []
    told = f"{len(calls.made)} kinds, {calls.rate} a second and {calls.peak} in the busiest one, rounded up"
    outside = [f"outside of the baseline: {each.call}, first by {_who(each)}" for each in calls.outside]
    return _block("calls", told, *outside, *([f"and {calls.more} more"] if calls.more else []))


def _who(first: Offence) -> str:
    who = f"{first.executable or 'somebody'} ({first.pid})" if first.pid else "somebody whose event was lost"
    return f"{who}, {first.age_ms / 1000:g} s before it was measured"


async def ask(socket: Path, asked: str, at: float | None = None) -> Why:
    """at: Unix seconds, None for now. Raises as proofbeat/admin.py does."""
    query = {"instance": asked} | ({} if at is None else {"at": str(int(at * 1000))})
    return await admin.ask(socket, "GET", f"/admin/why?{urlencode(query)}", Why)


def moment(text: str, now: float) -> float:
    """Unix seconds of `-5m`, or of an ISO 8601 time; one without a zone is local. Raises InvalidInput."""
    if re.match(r"-\d", text):
        return now - seconds(text[1:])
    try:
        return datetime.datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text!r} is no time", where=_WHERE, mend=_MEND) from error


def document(why: Why, calls: InstanceCalls | None = None) -> dict[str, Any]:
    """The one JSON object; its keys are a contract (README). Times are ISO 8601, null where there is none."""
    return {
        "instance": why.instance,
        "spiffe_id": why.spiffe_id,
        "registration": why.registration,
        "at": _iso(why.at_ms),
        "state": why.state,
        "since": _iso(why.since_ms),
        "open": why.open,
        "held": plain(why.held),
        "answer": why.answer,
        "cause": None if why.cause is None else _cause(why.cause),
        "others": [_cause(each) for each in why.others],
        "repair": why.repair,
        "now": {"state": why.now, "since": _iso(why.now_since_ms), "gone": why.gone},
        "calls": plain(calls),
        "history_begins": _iso(why.history_begins_ms),
        "history": [
            {"at": _iso(each.at_ms), "event": each.event, "state": each.state, "text": each.text}
            for each in why.history
        ],
    }


def lines(why: Why, socket: Path) -> list[str]:
    """For a person. socket: for the commands that it names."""
    state, since, gone = called(why.state, why.held), _iso(why.since_ms), ", and gone" if why.gone else ""
    release = (f"proofbeat release --admin {socket} {why.instance}",) if _helps_to_release(why) else ()
    return [
        f"{why.instance}  {why.spiffe_id}",
        f"{state} since {since}" if since else state,
        *_block("why", why.answer),
        *(_about(why.cause) if why.cause is not None else ()),
        *_block("repair", *why.repair, *release),
        *(_allowance(why.cause.allow) if why.cause is not None else ()),
        *_block("also", *(each.text for each in why.others[-_LATEST:])),
        *_block("now", f"{why.now} since {_iso(why.now_since_ms)}{gone}"),
        *_block("history", *(f"{_iso(each.at_ms)}  {each.event}: {each.text}" for each in why.history[-_LATEST:])),
    ]


def _helps_to_release(why: Why) -> bool:
    """What a measurement heals needs none, and nobody speaks any more for who is gone."""
    if why.cause is None or why.gone or not why.repair:
        return False
    return why.lasting


def _about(cause: Explanation) -> list[str]:
    found = _block("cause", f"{cause.id}, at {_iso(cause.at_ms)}") if cause.id else []
    if process := cause.process:
        parent = f", child of {process.parent}" if process.parent else ""
        found += _block("process", f"pid {process.pid} {process.executable}{parent}")
    if cause.subject:
        found += _block("file" if _is_file(cause) else "subject", cause.subject)
    if cause.rule:
        found += _block("policy", f"{cause.place}  {cause.rule}" if cause.place else cause.rule)
    return found


def _allowance(yaml: str) -> list[str]:
    if not yaml:
        return []
    return _block("allow", "if it is meant to be so, add this to the authority's policies:", *yaml.splitlines())


def _cause(cause: Explanation) -> dict[str, Any]:
    return {
        "id": cause.id,
        "kind": cause.kind,
        "class": cause.violation_class,
        "layer": cause.layer,
        "text": cause.text,
        "at": _iso(cause.at_ms),
        "process": plain(cause.process),
        "file": cause.subject if _is_file(cause) else None,
        "subject": cause.subject,
        "policy": {"rule": cause.rule, "place": cause.place},
        "mend": cause.mend,
        "allow": cause.allow,
    }


def _is_file(cause: Explanation) -> bool:
    return cause.subject.startswith("/")


def _block(name: str, *texts: str) -> list[str]:
    """One line a text; the name stands beside the first."""
    return [f"  {name if not number else '':9}{text}" for number, text in enumerate(texts)]


def _iso(milliseconds: int) -> str | None:
    if not milliseconds:
        return None
    try:
        at = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    except (ValueError, OverflowError, OSError):  # a sidecar's clock can say anything
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
