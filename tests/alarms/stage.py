"""A service under `proofbeat up`, its load, and what is done around it: every alarm is heard."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.alarms.services import CONF, SERVED, Service

PATIENCE = 60.0
LEARNING = 6.0
"""Seconds, in which everything that will be done is done at least once."""
PROOFBEAT = [sys.executable, "-P", "-m", "proofbeat"]
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Heard:
    """What `up` says. alarms: of that what closed it, and why."""

    lines: list[str] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    @property
    def alarms(self) -> list[str]:
        return [line for line in self.lines if re.search(r"violation:|CLOSED|still changes|lost", line)]

    def until(self, word: str) -> None:
        with self.news:
            found = self.news.wait_for(lambda: any(word in line for line in self.lines), PATIENCE)
        assert found, f"it never said {word!r}, but {self.lines}"


@dataclass
class Busy:
    """Things that are done again and again, and how often each was."""

    done: dict[str, int] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def keep(self, name: str, act: Callable[[], None], pause: float) -> None:
        self.done[name] = 0

        def repeat() -> None:
            while not self.over.wait(pause):
                with suppress(ProcessLookupError, ConnectionError):  # it has ended, or is just started again
                    act()
                    self.done[name] += 1

        self.threads.append(threading.Thread(target=repeat, name=name))
        self.threads[-1].start()

    def end(self) -> None:
        self.over.set()
        for each in self.threads:
            each.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def lay_out(service: Service, folder: Path) -> tuple[Path, int, list[str]]:
    """Its folder, its port and its command."""
    app, port = folder / "app", free_port()
    for each in (app, app / "log", app / "data", folder / "elsewhere", folder / "tmp"):
        each.mkdir()
    for source in (SERVED / "pod.sh", *service.source):
        shutil.copy(source, app)
    (app / "conf").write_text(CONF)
    service.lay_out(app, port)

    def placed(word: str) -> str:
        return word.replace("PORT", str(port)).replace("APP", str(app))

    return app, port, ["sh", "pod.sh", placed(service.probe), *map(placed, service.command)]


def measured(app: Path) -> list[str]:
    """Its folder, with logs and data exempted as its README would have it."""
    return ["--include", str(app), "--volatile", "**/app/log/**", "--volatile", "**/app/data/**"]


@contextmanager
def up(app: Path, port: int, command: list[str], *options: str) -> Iterator[Heard]:
    """options: under which policy."""
    with proofbeat("up", "--port", str(port), "--tcp", *options, "--", *command, app=app) as (_, heard):
        yield heard


@contextmanager
def proofbeat(*arguments: str, app: Path) -> Iterator[tuple[subprocess.Popen[str], Heard]]:
    """A command, run in that folder until the block ends, and what it says."""
    process = subprocess.Popen(
        [*PROOFBEAT, *arguments],
        cwd=app,
        env={**os.environ, "TMPDIR": str(app.parent / "tmp"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    heard = Heard()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with heard.news:
                heard.lines.append(line.rstrip())
                heard.news.notify_all()

    listening = threading.Thread(target=listen)
    listening.start()
    try:
        yield process, heard
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        listening.join()


def pid_of(app: Path) -> int:
    """The service's, by now."""
    return int((app / "data" / "pid").read_text())


def until_served(service: Service, port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(OSError):
            next(service.ask(port))
            return
        time.sleep(0.05)
    raise AssertionError(f"{service.name} does not answer")


def restart(service: Service, app: Path, port: int) -> None:
    """It is asked to end, and its pod starts it again."""
    before = pid_of(app)
    os.kill(before, signal.SIGTERM)
    end = time.monotonic() + PATIENCE
    while pid_of(app) == before:
        assert time.monotonic() < end, f"{service.name} is not started again"
        time.sleep(0.05)
    until_served(service, port)


def occupy(service: Service, app: Path, port: int) -> Busy:
    """Load, reloads, rotated logs, a configuration laid down again as it was, and an upgrade of something else."""
    busy, numbers = Busy(), itertools.count()

    def ask() -> None:
        with suppress(OSError):  # a worker that a reload replaces ends its connections
            for _ in itertools.islice(service.ask(port), 200):
                time.sleep(0.002)

    def rotate() -> None:
        log = app / "log" / "service.log"
        if log.exists():
            log.rename(app / "log" / f"service.log.{next(numbers) % 3}")
        service.rotated(pid_of(app), app)

    def lay_down_again() -> None:
        new = app / "data" / "conf.new"
        new.write_text(CONF)
        new.rename(app / "conf")

    for number in range(2):
        busy.keep(f"asked {number}", ask, 0.001)
    busy.keep("reloaded", lambda: service.reload(pid_of(app), app), 1.5)
    busy.keep("rotated", rotate, 1.0)
    busy.keep("laid down again", lay_down_again, 1.2)
    busy.keep("upgraded", lambda: upgrade(app.parent / "elsewhere"), 1.0)
    return busy


def upgrade(folder: Path) -> None:
    """As dpkg does it: each file beside the old one, then over it; and a program of the package is run."""
    for number in range(50):
        new = folder / f"{number}.dpkg-new"
        new.write_bytes(os.urandom(2000))
        new.chmod(0o755)
        new.rename(folder / str(number))
    program = folder / "program"
    shutil.copy("/bin/true", folder / "program.dpkg-new")
    (folder / "program.dpkg-new").rename(program)
    subprocess.run([program], check=True)


def alarms(service: Service, seconds: float) -> tuple[list[str], dict[str, int]]:
    """What closed it in so many seconds after it was opened, and how often everything was done meanwhile."""
    with tempfile.TemporaryDirectory() as folder:  # a short path, for sockets
        app, port, command = lay_out(service, Path(folder))
        return _alarms(service, app, port, command, seconds)


def _alarms(
    service: Service, app: Path, port: int, command: list[str], seconds: float
) -> tuple[list[str], dict[str, int]]:
    with up(app, port, command, "--learn", f"{LEARNING:g}s", *measured(app)) as heard:
        heard.until("listens on")
        busy = occupy(service, app, port)
        try:
            heard.until("a new instance:")
            before = dict(busy.done)
            with heard.news:
                heard.news.wait_for(lambda: bool(heard.alarms), seconds)
            return heard.alarms, {name: count - before[name] for name, count in busy.done.items()}
        finally:
            busy.end()
