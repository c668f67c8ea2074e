"""Services as they are run in earnest: what they are started with, and what is done to them while they run."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SERVED = Path(__file__).parent / "served"
INTERPRETER = str(Path(sys.executable).resolve())
CONF = "greeting: hello\n"
BUILT = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "proofbeat" / "alarms"
"""Where tools/alarms.sh puts what has to be compiled."""


def _none(app: Path, port: int) -> None:
    """Nothing besides what every service has."""


def _hang_up(pid: int, app: Path) -> None:
    os.kill(pid, signal.SIGHUP)


@dataclass(frozen=True)
class Service:
    """command: run in the folder app, which has log/ and data/, port put in the place of PORT. source: what of SERVED
    is copied there. lay_out: what else is. reload, rotated: what tells it so. redis: it does not speak HTTP.
    """

    name: str
    command: tuple[str, ...]
    source: tuple[Path, ...] = ()
    lay_out: Callable[[Path, int], None] = _none
    reload: Callable[[int, Path], None] = _hang_up
    rotated: Callable[[int, Path], None] = lambda pid, app: None
    redis: bool = False
    probe: str = "cat conf"

    def ask(self, port: int) -> Iterator[None]:
        """One question after the other on one connection; a step each."""
        question = b"INCR n\r\n" if self.redis else b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), 5) as asking:
            while True:
                asking.sendall(question)
                if not asking.recv(4096):
                    return
                yield


def _configure_redis(app: Path, port: int) -> None:
    lines = (f"port {port}", "bind 127.0.0.1", "dir data", "logfile ../log/service.log", "save 1 1", "appendonly yes")
    (app / "redis.conf").write_text("\n".join(lines) + "\n")


def _rewrite_redis(pid: int, app: Path) -> None:
    """A setting is changed, and the append-only file written anew by a child."""
    port = (app / "redis.conf").read_text().split()[1]
    with socket.create_connection(("127.0.0.1", int(port)), 5) as asking:
        asking.sendall(b"CONFIG SET maxmemory 100mb\r\nBGREWRITEAOF\r\n")
        asking.recv(4096)


def _configure_nginx(app: Path, port: int) -> None:
    (app / "html").mkdir()
    (app / "html" / "index.html").write_text("<h1>hello</h1>")
    temporary = "".join(
        f"{each}_temp_path {app}/data/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (app / "nginx.conf").write_text(
        f"user root; worker_processes 2; daemon off; pid {app}/data/nginx.pid; error_log {app}/log/error.log;"
        f"events {{}} http {{ access_log {app}/log/service.log; {temporary} keepalive_requests 1000000;"
        f"server {{ listen 127.0.0.1:{port}; root {app}/html; }} }}"
    )


def _reopen_nginx(pid: int, app: Path) -> None:
    os.kill(pid, signal.SIGUSR1)


def _nothing(pid: int, app: Path) -> None:
    """It looks by itself."""


SERVICES = (
    Service(
        "redis",
        ("redis-server", "redis.conf"),
        lay_out=_configure_redis,
        reload=_rewrite_redis,
        redis=True,
        probe="redis-cli -p PORT ping",
    ),
    Service(
        "nginx",
        ("nginx", "-p", "APP", "-c", "APP/nginx.conf", "-e", "APP/log/error.log"),
        lay_out=_configure_nginx,
        rotated=_reopen_nginx,
    ),
    Service("cpython", (INTERPRETER, "-B", "service.py", "PORT"), (SERVED / "service.py",)),
    Service("perl", ("perl", "service.pl", "PORT"), (SERVED / "service.pl",)),
    Service("node", ("node", "service.mjs", "PORT"), (SERVED / "service.mjs",)),
    Service("jvm", ("java", "-cp", "APP", "Service", "PORT"), tuple(BUILT.glob("Service*.class")), reload=_nothing),
    Service("go", ("APP/service", "PORT"), (BUILT / "service",)),
)
