"""Tetragon's events: its JSON export, and what `tetra getevents -o json` prints, which is the same.

Shape: `GetEventsResponse` of api/v1/tetragon/events.proto in cilium/tetragon, by protojson with the proto's own names;
https://tetragon.io/docs/reference/grpc-api/. One event a line: the only field named `process_...` says its kind.
An event that a tracing policy asked for is an alert. What Tetragon exports of every process (`process_exec`,
`process_exit`) is none: it only shows that it is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from attestation.detectors import fields
from attestation.detectors.alerts import MOST_NAME, MOST_RULE, MOST_TEXT, About, Alert, Detector, Heard, Sign
from attestation.errors import InvalidInput
from attestation.wording import shown

_PREFIX = "process_"
_ORDINARY = ("process_exec", "process_exit", "process_loader")
_THROTTLED, _THROTTLE_OVER = "process_throttle", "THROTTLE_STOP"
_LIMITED = "rate_limit_info"
_ACTION = "KPROBE_ACTION_"
_UNREMARKABLE = ("", "UNKNOWN", "POST")


def ours(document: dict[str, Any]) -> bool:
    return any(name.startswith(_PREFIX) or name == _LIMITED for name in document)


def read(document: dict[str, Any]) -> Heard:
    """Raises InvalidInput."""
    at_ms = fields.moment(document, "time")
    kinds = [name for name in document if name.startswith(_PREFIX) or name == _LIMITED]
    if len(kinds) != 1:
        raise InvalidInput("several events in one", where="tetragon")
    (kind,) = kinds
    event = fields.below(document, kind)
    if kind in (_LIMITED, _THROTTLED):
        return Sign(Detector.TETRAGON, at_ms, lost=_lost(kind, event))
    policy = fields.text(event, "policy_name", MOST_RULE)
    if not policy and kind in _ORDINARY:
        return Sign(Detector.TETRAGON, at_ms)
    process = fields.below(event, "process")
    return Alert(
        Detector.TETRAGON,
        policy or shown(kind, MOST_RULE),
        _text(kind, event, process),
        at_ms,
        _about(document, process),
        tags=fields.texts(event, "tags"),
        executable=fields.text(process, "binary", MOST_NAME),
    )


def _lost(kind: str, event: dict[str, Any]) -> str:
    if kind == _LIMITED:
        return "events were dropped for their rate"
    over = fields.text(event, "type", MOST_NAME) == _THROTTLE_OVER
    return "" if over else f"events of {fields.text(event, 'cgroup', MOST_NAME) or 'a control group'} are throttled"


def _text(kind: str, event: dict[str, Any], process: dict[str, Any]) -> str:
    """The policy's own message, else what was hooked; by whom; and what was done about it."""
    place = ("function_name", "event", "symbol", "path")
    hooked = next((found for each in place if (found := fields.text(event, each, MOST_NAME))), kind)
    said = fields.text(event, "message", MOST_TEXT) or hooked
    by = f"{fields.text(process, 'binary', MOST_NAME)} {fields.text(process, 'arguments', MOST_NAME)}".strip()
    action = fields.text(event, "action", MOST_NAME).removeprefix(_ACTION)
    done = "" if action in _UNREMARKABLE else f"; {action.lower()}"
    return shown(f"{said}{f', by {by}' if by else ''}{done}", MOST_TEXT)


def _about(document: dict[str, Any], process: dict[str, Any]) -> About:
    pod = fields.below(process, "pod")
    container = fields.text(fields.below(pod, "container"), "id", MOST_NAME) or fields.text(
        process, "docker", MOST_NAME
    )
    return replace(
        fields.about(container, pod, "uid", "namespace", "name"),
        node=fields.name_of(document, "node_name"),
        pid=fields.pid(process, "pid"),
    )
