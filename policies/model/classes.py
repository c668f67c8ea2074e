"""What class a path is of: one answer for the verifier, the sidecar, and what the measurer is told to leave alone."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from attestation.patterns import Overlap
from policies.model.policy import FileRules


class FileClass(StrEnum):
    """By the field of `files` that says so; what no field names is code."""

    VOLATILE = "volatile"
    CACHES = "caches"
    LOGS = "logs"
    PROJECTED = "projected"
    CONFIGURATION = "configuration"
    CODE = "code"


UNREAD = frozenset({FileClass.VOLATILE, FileClass.CACHES, FileClass.LOGS})
"""Neither read, watched nor judged."""

DATA = UNREAD | {FileClass.PROJECTED}
"""What nothing may be executed from. What was read of a program when it was started says nothing of what is read of it
later: a script is opened anew by its interpreter, and nothing keeps it from being written meanwhile. In code and
configuration the files layer sees that. In a projected volume any name may hold anything until something leads there.
"""


def class_of(path: str, files: FileRules) -> FileClass:
    """The loosest class whose patterns match and whose bounds all allow it.

    The loosest, because then whatever matches less (a bound more, another policy) leaves each path as it was or makes
    it stricter. Were it the first or the narrowest that matched, taking a path out of a strict class would leave it to
    a looser one.
    """
    for each, overlap in _overlaps(files):
        if overlap.covers(path):
            return each
    return FileClass.CODE


def unread(files: FileRules) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """What the measurer leaves alone, as attestation.channel.Scope has it."""
    return tuple(lists for each in _LOOSEST_FIRST if each in UNREAD and (lists := _lists(each, files)))


_LOOSEST_FIRST = tuple(each for each in FileClass if each is not FileClass.CODE)


@lru_cache(maxsize=256)
def _overlaps(files: FileRules) -> tuple[tuple[FileClass, Overlap], ...]:
    return tuple((each, Overlap(lists)) for each in _LOOSEST_FIRST if (lists := _lists(each, files)))


def _lists(file_class: FileClass, files: FileRules) -> tuple[tuple[str, ...], ...]:
    """The patterns and all bounds; none where nothing can be of the class."""
    bounds = (getattr(bound, file_class) for bound in files.within)
    lists = (getattr(files, file_class), *(bound for bound in bounds if bound is not None))
    return lists if all(lists) else ()
