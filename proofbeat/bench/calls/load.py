"""Servers of which a core is full, and how many requests a second they answer."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attestation.calls import NAMES
from attestation.errors import Unavailable
from proofbeat.up.filter import here
from proofbeat.up.under import Under, left

Start = Callable[[list[str]], subprocess.Popen[bytes]]
CLIENTS, PIPELINED = 50, 1
_WITHIN_SECONDS = 10.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_NGINX = """
master_process off; daemon off; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 256; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }} }}
"""


class Redis:
    """redis-server, loaded by redis-benchmark with GET."""

    name, binary = "redis", "redis-server"

    def __init__(self, folder: Path, start: Start) -> None:
        self.port = _free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.process = start(command)

    async def rate(self, requests: int) -> float:
        """Requests a second."""
        words = ["-h", "127.0.0.1", "-p", str(self.port), "-n", str(requests), "-c", str(CLIENTS), "-t", "get", "--csv"]
        asked = await asyncio.create_subprocess_exec("redis-benchmark", *words, stdout=subprocess.PIPE)
        out, _ = await asked.communicate()
        return float(out.decode().splitlines()[-1].split(",")[1].strip('"'))


class Nginx:
    """nginx as one process, loaded over connections that are kept alive."""

    name, binary = "nginx", "nginx"

    def __init__(self, folder: Path, start: Start) -> None:
        self.port = _free_port()
        settings = folder / "nginx.conf"
        settings.write_text(_NGINX.format(folder=folder, port=self.port))
        self.process = start(["nginx", "-c", str(settings), "-p", str(folder)])

    async def rate(self, requests: int) -> float:
        """Requests a second: the load is one process of its own, so that it takes one core at most."""
        return await asyncio.to_thread(_http_rate, self.port, requests)


def _http_rate(port: int, requests: int) -> float:
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
    began, pipelined = time.monotonic(), 16
    for _ in range(requests // (len(connections) * pipelined)):
        for each in connections:
            each.sendall(_REQUEST * pipelined)
        for each in connections:
            answered = 0
            while answered < pipelined:
                answered += each.recv(1 << 16).count(b"HTTP/1.1 200")
    seconds = time.monotonic() - began
    for each in connections:
        each.close()
    return requests / seconds


Server = Redis | Nginx


def free(command: list[str], also: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """As it is. also: descriptors that it is given."""
    nothing = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, pass_fds=also)


@contextmanager
def asking(calls: Iterable[str]) -> Iterator[tuple[Start, Callable[[], int]]]:
    """How a server is started under a seccomp filter that asks for these, and its listener once it runs."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    under = Under(here(NAMES - set(calls)), theirs.fileno())
    with ours, theirs:
        yield (
            lambda command: free(under.command(command), (theirs.fileno(),)),
            lambda: left(ours),
        )


@contextmanager
def serving(kind: type[Redis] | type[Nginx], folder: Path, start: Start = free) -> Iterator[Server]:
    """Raises Unavailable where it is not installed, or does not listen in time."""
    if shutil.which(kind.binary) is None:
        what, mend = f"{kind.binary} is not installed", "`make bench-tracers` brings it."
        raise Unavailable(what, where="bench syscalls", mend=mend)
    folder.mkdir(parents=True)
    server = kind(folder, start)
    try:
        _until_it_listens(server)
        yield server
    finally:
        server.process.terminate()
        server.process.wait()


def _until_it_listens(server: Server) -> None:
    end = time.monotonic() + _WITHIN_SECONDS
    while time.monotonic() < end:
        with suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
            return
        time.sleep(0.02)
    raise Unavailable(f"{server.name} does not listen", where="bench syscalls")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])
