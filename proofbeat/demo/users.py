"""Users of their own for the demo's services, which only root can give them: without capabilities, nor a way to any."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attestation.errors import Unavailable

_FROM = 64_200
"""Above what distributions give to people and programs."""
_PYTHONS = (str(Path(sys.executable).resolve()), "/usr/bin/python3", "/usr/local/bin/python3")


@dataclass(frozen=True, slots=True)
class User:
    """uid: of this service alone. gid: of all services of a run. python: an interpreter that it may run."""

    uid: int
    gid: int
    python: str

    def running(self, command: Sequence[str]) -> list[str]:
        """The same command as this user."""
        return _as(self.uid, self.gid, command)

    def admit(self, folder: Path) -> None:
        """Lets its group pass through a folder of root's, and look at nothing there."""
        os.chown(folder, 0, self.gid)
        folder.chmod(0o710)

    def give(self, folder: Path) -> None:
        """Lets its group read all that is below, and write nothing."""
        for each in (folder, *folder.rglob("*")):
            os.chown(each, 0, self.gid)
            each.chmod(0o750 if each.is_dir() else 0o640)


def users(count: int) -> tuple[User, ...]:
    """So many that nobody else is. Raises Unavailable where there can be none."""
    if shutil.which("setpriv") is None:
        raise Unavailable(
            "services cannot be given users of their own", where="setpriv", mend="It is part of util-linux: install it."
        )
    uids = [uid for _, uid in zip(range(count), _nobodys(), strict=False)]
    return tuple(User(uid, uids[0], _python(uid, uids[0])) for uid in uids)


def _nobodys() -> Iterator[int]:
    taken = {each.pw_uid for each in pwd.getpwall()} | {each.pw_gid for each in pwd.getpwall()}
    return (uid for uid in range(_FROM, 1 << 16) if uid not in taken)


def _python(uid: int, gid: int) -> str:
    for python in _PYTHONS:
        command = _as(uid, gid, [python, "-I", "-S", "-B", "-c", "import asyncio"])
        if subprocess.run(command, capture_output=True, timeout=20, check=False, cwd="/").returncode == 0:
            return python
    raise Unavailable(
        "no Python that every user may run",
        where=" ".join(_PYTHONS),
        mend="Install your distribution's python3, or keep this checkout's outside of a closed home.",
    )


def _as(uid: int, gid: int, command: Sequence[str]) -> list[str]:
    """By a shell: setpriv itself still holds the rights of root when it executes a program."""
    dropped = ("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        *dropped,
        "sh",
        "-c",
        'exec "$@"',
        "sh",
        *command,
    ]
