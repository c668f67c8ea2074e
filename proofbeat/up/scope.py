"""What of a program is measured when nobody says it: where its command points, else the folder it is started in."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from attestation.errors import InvalidInput

SYSTEM = tuple(map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/proc", "/sys", "/dev", "/etc")))
"""What is found here belongs to the machine, and to every program on it."""

TOO_WIDE = (*map(Path, ("/", "/home", "/root", "/tmp", "/var", "/srv", "/mnt", "/media", "/opt", "/run")), *SYSTEM)  # noqa: S108 - named to be refused
"""Folders that belong to more than one program: everything that anybody does there would close this one."""


def folders(
    command: Sequence[str], cwd: Path, home: Path, is_file: Callable[[Path], bool], is_dir: Callable[[Path], bool]
) -> tuple[str, ...]:
    """Absolute paths to measure: the folders of the files that the command names, and the folders that it names.

    Raises InvalidInput as `refuse_shared`.
    """
    found = []
    for number, word in enumerate(command):
        path = Path(os.path.normpath(cwd / word))
        # An interpreter from elsewhere is no part of the program; it is measured as an executable.
        elsewhere = number == 0 and (cwd not in path.parents or _shared(cwd, home))
        if elsewhere or any(path == each or each in path.parents for each in SYSTEM):
            continue
        with suppress(OSError):  # a word can be longer than the name of any file
            if is_file(path):
                found.append(path.parent)
            elif is_dir(path):
                found.append(path)
    chosen = _outermost(found or [cwd])
    refuse_shared(chosen, home)
    return tuple(map(str, chosen))


def named(paths: Iterable[Path], home: Path) -> tuple[str, ...]:
    """What was named, absolute and without links. Raises InvalidInput for what is not there, and as `refuse_shared`."""
    found = []
    for path in paths:
        try:
            found.append(path.resolve(strict=True))
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise InvalidInput(
                "there is no such file or folder", where=f"--include {path}", mend="Check the path and its permissions."
            ) from error
    chosen = _outermost(found)
    refuse_shared(chosen, home)
    return tuple(map(str, chosen))


def refuse_shared(chosen: Iterable[Path], home: Path) -> None:
    """Raises InvalidInput for a folder that is not one program's alone."""
    for path in chosen:
        if _shared(path, home):
            raise InvalidInput(
                "it is not this program's alone, so it cannot be measured for it",
                where=str(path),
                mend="Name what belongs to the program, for example: --include ./app",
            )


def refuse_within(folder: Path, measured: Iterable[str]) -> None:
    """Raises InvalidInput where our own folder, in which we write all the time, lies among what is measured."""
    for path in measured:
        if Path(path) in folder.resolve().parents:
            raise InvalidInput(
                f"our own files would lie in it: {folder}",
                where=path,
                mend="Set TMPDIR to a folder outside of what is measured.",
            )


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Without those that lie within another of them."""
    distinct = sorted(set(paths))
    return [path for path in distinct if not any(other in path.parents for other in distinct)]


def _shared(path: Path, home: Path) -> bool:
    return path in (*TOO_WIDE, home)
