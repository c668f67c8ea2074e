"""Libraries that come before a program's own: what ld.so(8) is told by the environment and by /etc/ld.so.preload."""

from __future__ import annotations

import re
from collections.abc import Iterator

LIST = "/etc/ld.so.preload"
FOLDERS = "LD_LIBRARY_PATH"
_VARIABLES = (b"LD_PRELOAD", b"LD_AUDIT", b"LD_LIBRARY_PATH")
_FOLDER_ENDS, _ENDS = re.compile("[:;]"), re.compile(r"[:;\s]+")
_MOST_VALUES = 16
MOST_ENTRIES = 64
"""Of one variable, or of the list."""


def of_environment(environment: bytes) -> Iterator[tuple[str, str]]:
    """Each of the variables that matters, and its value, as often as it is there. environment: as in environ(7)."""
    if b"LD_" not in environment:
        return
    whole = b"\0" + environment
    for variable in _VARIABLES:
        head = b"\0" + variable + b"="
        position, found = whole.find(head), 0
        while position >= 0 and found < _MOST_VALUES:
            begins = position + len(head)
            ends = whole.find(b"\0", begins)
            yield variable.decode(), _text(whole[begins : ends if ends >= 0 else len(whole)])
            position, found = whole.find(head, begins), found + 1


def variable(environment: bytes, name: bytes) -> str:
    """Its first value; empty where it is not there."""
    head = b"\0" + name + b"="
    _, found, rest = (b"\0" + environment).partition(head)
    return _text(rest.partition(b"\0")[0]) if found else ""


def entries(name: str, value: str) -> list[str]:
    """What a variable names: files, or folders, of which an empty name is the working folder."""
    if name == FOLDERS:
        return [each or "." for each in _FOLDER_ENDS.split(value)] if value else []
    return [each for each in _ENDS.split(value) if each]


def of_list(text: bytes) -> list[str]:
    """What /etc/ld.so.preload names."""
    lines = (line.partition(b"#")[0] for line in text.split(b"\n"))
    return [each for line in lines for each in _ENDS.split(_text(line)) if each]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
