"""A program of somebody's own under a filter that asks: learned once, then told of whatever it was not seen to call."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.system.measurer.conftest import needs_root
from tests.system.test_up import INTERPRETER, PROOFBEAT, body, running, until

pytestmark = [needs_root, pytest.mark.timeout(120)]
SERVICE = """
import http.client, http.server as h, os, threading, time
class Service(h.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/hide':
            os.close(os.memfd_create('hidden'))
        self.send_response(200)
        self.send_header('content-length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *_): pass
def call(port):
    while True:
        there = http.client.HTTPConnection('127.0.0.1', port)
        there.request('GET', '/')
        there.getresponse().read()
        there.close()
        time.sleep(0.1)
server = h.ThreadingHTTPServer(('127.0.0.1', 0), Service)
threading.Thread(target=call, args=server.server_address[1:], daemon=True).start()
server.serve_forever()
"""
"""It calls itself, so that whoever watches it sees it serve."""
COMMAND = ["--", INTERPRETER, "-B", "-c", SERVICE]


@pytest.fixture(scope="module")
def app() -> Iterator[Path]:
    """Where it runs; what was learned of it lies beside that."""
    with TemporaryDirectory() as folder:
        app = Path(folder, "app")
        for each in (app, Path(folder, "tmp")):
            each.mkdir()
        (app / "index.html").write_text("<h1>mine</h1>\n")
        options = ["--for", "5s", "-o", f"{folder}/learned", "--include", str(app)]
        learn = [*PROOFBEAT, "policy", "learn", "app", *options, *COMMAND]
        subprocess.run(learn, cwd=app, check=True, capture_output=True, timeout=60)
        yield app


def test_what_it_was_never_seen_to_call_closes_it_before_the_call_is_over(app: Path) -> None:
    with running(app, "--learned", "../learned", "--notified", *COMMAND) as (process, said):
        called = re.search(r"curl (\S+)", until(said, "call it through mutual TLS"))
        assert called is not None
        again = re.search(r"kill -USR1 (\d+)", until(said, "a new instance:"))
        assert again is not None
        assert body(called[1]) == b"ok"
        body(f"{called[1]}hide")
        assert "memfd_create: the call was made" in until(said, "violation: ")
        until(said, "CLOSED")
        process.send_signal(signal.SIGUSR1)
        until(said, "a new instance: pid")
        until(said, "OPEN: calls are served")
        assert body(called[1]) == b"ok"


def test_a_program_of_which_no_calls_were_learned_has_no_such_filter(app: Path) -> None:
    done = subprocess.run(
        [*PROOFBEAT, "up", "--notified", *COMMAND], cwd=app, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "--learned" in done.stderr


def test_a_descriptor_that_is_no_listener_is_refused_by_name(app: Path) -> None:
    done = subprocess.run(
        [*PROOFBEAT, "sidecar", "-c", "none.yaml", "--listener", "3"],
        cwd=app,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "is no seccomp listener" in done.stderr
