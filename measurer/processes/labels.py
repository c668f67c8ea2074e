"""The label that a Linux security module gives a process, and whether it is enforced."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

_FILES = ("attr/apparmor/current", "attr/current")
_ENFORCE = Path("/sys/fs/selinux/enforce")
_MOST_BYTES = 4096
_APPARMOR = re.compile(r"(?P<name>.+?) \((?P<mode>enforce|complain|kill|prompt|user|mixed|unconfined)\)", re.DOTALL)
_CONTEXT = re.compile(r"[^:\s]+:[^:\s]+:[^:\s]+(:\S+)?")
UNREADABLE = "unreadable"


@cache
def source() -> str:
    """Which file below /proc/PID says it; empty where no module of this kernel does. Asked of ourselves, once."""
    for name in _FILES:
        try:
            if Path("/proc/self", name).read_bytes():
                return name
        except OSError:
            continue
    return ""


def of_process(folder: int) -> str:
    """As `parse` has it, of the process behind a /proc/PID descriptor; empty where there are no labels.

    Raises OSError for a process that is gone.
    """
    name = source()
    if not name:
        return ""
    try:
        raw = _read(folder, name)
    except ProcessLookupError:
        raise
    except OSError:
        _read(folder, "stat")  # raises where it is gone; where it is not, we may not look
        return UNREADABLE
    return parse(raw, enforced=_enforced())


def parse(raw: bytes, *, enforced: bool | None = None) -> str:
    """`PROFILE (MODE)`, `unconfined`, or a context and its mode. enforced: SELinux as a whole; None for unknown.

    An AppArmor profile says its own mode. Of SELinux that of the kernel is stated; a domain that is permissive by
    itself, nobody tells.
    """
    text = raw.rstrip(b"\0\n").decode("utf-8", "backslashreplace")
    if _APPARMOR.fullmatch(text) or not _CONTEXT.fullmatch(text) or enforced is None:
        return text
    return f"{text} ({'enforce' if enforced else 'complain'})"


def _read(folder: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)


def _enforced() -> bool | None:
    try:
        return _ENFORCE.read_bytes().strip() == b"1"
    except OSError:
        return None
