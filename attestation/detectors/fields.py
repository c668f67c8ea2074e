"""Fields of JSON that others write: absent is empty, another type than it always has is refused, text is bounded."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from attestation.detectors.alerts import MOST_NAME, MOST_TAGS, About
from attestation.errors import InvalidInput
from attestation.wording import shown

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*", re.ASCII)
_CONTAINER = re.compile(r"[0-9a-f]{12,64}", re.ASCII)
_UID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.ASCII)
_MOST_PID = 1 << 22
"""PID_MAX_LIMIT of linux/threads.h."""
_NOTHING = ("<NA>", "null")
"""What Falco writes where it has no value."""


def text(document: dict[str, Any], name: str, most: int) -> str:
    """Harmless to show. Raises InvalidInput for what is no text."""
    value = document.get(name)
    if value is None or value in _NOTHING:
        return ""
    if not isinstance(value, str):
        raise InvalidInput("text was expected", where=_shown(name))
    return shown(value[:most], most)


def below(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A map. Raises InvalidInput for anything else that is there."""
    value = document.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput("a map was expected", where=_shown(name))
    return value


def texts(document: dict[str, Any], name: str) -> tuple[str, ...]:
    """Tags: the first MOST_TAGS of them. Raises InvalidInput for what is no list of text."""
    values = document.get(name) or []
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise InvalidInput("a list of text was expected", where=_shown(name))
    return tuple(shown(each[:MOST_NAME], MOST_NAME) for each in values[:MOST_TAGS])


def name_of(document: dict[str, Any], name: str) -> str:
    """What Kubernetes or a machine is called; empty for what cannot be such a name."""
    value = text(document, name, MOST_NAME + 1)
    return value if len(value) <= MOST_NAME and _NAME.fullmatch(value) else ""


def about(container: str, document: dict[str, Any], uid: str, namespace: str, pod: str) -> About:
    """A container by its id, and the pod whose uid, namespace and name these fields have. Raises InvalidInput."""
    return About(
        container=container_of(container),
        pod_uid=pod_uid_of(text(document, uid, MOST_NAME)),
        namespace=name_of(document, namespace),
        pod=name_of(document, pod),
    )


def container_of(value: str) -> str:
    """A container's id without the runtime's scheme (`containerd://`); empty for what is none."""
    found = value.rpartition("://")[2]
    return found if _CONTAINER.fullmatch(found) else ""


def pod_uid_of(value: str) -> str:
    """A pod's uid in the spelling of the API, with hyphens; of a static pod as it is. Empty for what is none."""
    found = value.replace("_", "-").lower()
    return found if _UID.fullmatch(found) else ""


def number(document: dict[str, Any], name: str) -> int:
    """Not below zero; also where it is written as text. 0 where there is none. Raises InvalidInput."""
    value = document.get(name)
    if value is None or value in _NOTHING or value == "":
        return 0
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or value < 0:
        raise InvalidInput("a number was expected", where=_shown(name))
    return value


def pid(document: dict[str, Any], name: str) -> int:
    """0 for what no process can have."""
    value = number(document, name)
    return value if value <= _MOST_PID else 0


def moment(document: dict[str, Any], name: str) -> int:
    """Unix milliseconds of a time as RFC 3339 has it, to the nanosecond. Raises InvalidInput."""
    value = document.get(name)
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidInput("a point in time was expected", where=_shown(name))
    try:
        at = datetime.fromisoformat(match[1] + match[3].replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput("a point in time that is on no calendar", where=_shown(name)) from error
    return int(at) * 1000 + int((match[2] or "0").ljust(9, "0")[:3])


def _shown(name: str) -> str:
    return shown(name, MOST_NAME)
