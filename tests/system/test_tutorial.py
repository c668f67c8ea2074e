"""docs/policies.md, done as it says: every file is written, every command run, and what is shown is what comes."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
FENCED = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FOLDER, NETWORK = "/tmp/shop", "127.0.71."
WITHIN_SECONDS = 30.0


@dataclass(frozen=True)
class Command:
    text: str
    shown: tuple[str, ...]


def commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        text, *shown = part.rstrip("\n").split("\n")
        yield Command(text, tuple(shown))


class Shell:
    """One bash for the whole page: jobs, variables and folders last, as they do for a reader."""

    def __init__(self) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
        self._end = f"end-{secrets.token_hex(8)}"

    def run(self, text: str) -> list[str]:
        """What it says, or as far as it came within its time."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{text}\n_left=$?; echo {self._end}; (exit $_left)\n")
        self._bash.stdin.flush()
        said: list[str] = []
        late = threading.Timer(WITHIN_SECONDS, self.kill)
        late.start()
        for line in self._bash.stdout:
            if line.rstrip("\n") == self._end:
                late.cancel()
                return said
            said.append(line.rstrip("\n"))
        return [*said, f"nothing more came of this within {WITHIN_SECONDS} s"]

    def end(self) -> None:
        """When everything has ended that was begun in it."""
        assert self._bash.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdin.write("kill $(jobs -p); wait\n")
            self._bash.stdin.close()
        try:
            self._bash.wait(timeout=30)
        finally:
            self.kill()

    def kill(self) -> None:
        """It, and everything that was begun in it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)


def as_shown(shown: tuple[str, ...], said: list[str]) -> bool:
    """`...` on a line of its own stands for any lines, within a line for any text; white space is not counted."""
    lines = [r"(?:.*\n)*?" if each == "..." else _line(each) + r"\n" for each in shown]
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in said)) is not None


def _line(shown: str) -> str:
    pieces = (r"[ ]+".join(map(re.escape, piece.split())) for piece in shown.split("..."))
    return rf"[ ]*{r'[ ]*.*?[ ]*'.join(pieces)}[ ]*"


def logged(folder: Path) -> Iterator[str]:
    """The last words of each program."""
    for file in sorted(folder.glob("*.log")):
        yield from (f"{file.stem}: {line}" for line in file.read_text().splitlines()[-3:])


@pytest.fixture
def place() -> Iterator[tuple[Path, str]]:
    """A folder with a short name, for sockets, and a network of this run's own."""
    folder = Path(tempfile.mkdtemp(prefix="shop-"))
    yield folder, f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}."
    shutil.rmtree(folder)


@pytest.mark.timeout(180)
def test_the_page_leads_from_observe_to_enforce_as_it_says(place: tuple[Path, str]) -> None:
    folder, network = place
    text = PAGE.read_text().replace(FOLDER, str(folder)).replace(NETWORK, network)
    shell = Shell()
    try:
        for kind, block in FENCED.findall(text):
            if kind == "yaml":
                file = folder / block.partition("\n")[0].removeprefix("# ")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)
                continue
            for command in commands(block):
                said = shell.run(command.text)
                assert as_shown(command.shown, said), "\n".join(
                    [command.text, *said, "instead of", *command.shown, *logged(folder)]
                )
    finally:
        shell.end()
