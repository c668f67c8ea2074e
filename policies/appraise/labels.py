"""What a change of a process's label comes to: of AppArmor or SELinux, as measurer/processes/labels.py has it."""

from __future__ import annotations

_UNCONFINED = (":unconfined_t", ":unconfined_service_t", ":unconfined_r:")
_ENFORCED = ("enforce", "kill")


def confines_less(before: str, after: str) -> bool:
    """A label that confines gave way to one that does not, or to one that is not enforced; or nobody can tell.

    From one profile that is enforced to another is what policies of a security module provide for.
    """
    return _strength(after) < _strength(before)


def _strength(label: str) -> int:
    name, _, mode = label.removesuffix(")").rpartition(" (")
    name, mode = (name, mode) if name else (label, "")
    if not label or label == "unreadable" or "unconfined" in (name, mode) or any(each in name for each in _UNCONFINED):
        return 0
    return 2 if not mode or mode in _ENFORCED else 1
