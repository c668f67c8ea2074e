"""`proofbeat up -- CMD` as a user runs it: somebody's own program, closed when it changes, opened when mended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from proofbeat.bench.faults.stage import mount, unmount
from tests.system.demo.stage import running_below

PROOFBEAT = [sys.executable, "-P", "-m", "proofbeat"]
INTERPRETER = str(Path(sys.executable).resolve())
SERVICE = [INTERPRETER, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
PATIENCE = 60

LOCAL_ONLY = "import socket; s = socket.socket(socket.AF_UNIX); s.bind(chr(0) + 'here'); s.listen(); s.accept()"
TWO_PORTS = (
    "import socket, time; first = socket.create_server(('127.0.0.1', 0)); time.sleep(0.3); "
    "second = socket.create_server(('127.0.0.1', 0)); time.sleep(600)"
)
NO_HTTP = "import socket; s = socket.create_server(('127.0.0.1', 0)); s.accept()[0].send(b'+OK ready'); s.accept()"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Somebody's site. Beside it is the only place for temporary folders, whose paths have to be short."""
    with tempfile.TemporaryDirectory() as place:
        site = Path(place) / "site"
        for each in (site, temporary(site)):
            each.mkdir()
        (site / "index.html").write_text("<h1>mine</h1>\n")
        yield site


def temporary(folder: Path) -> Path:
    return folder.parent / "tmp"


def run(folder: Path, *arguments: str, within: float = PATIENCE, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [*PROOFBEAT, "up", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary(folder)), **environment},
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def python(script: str) -> list[str]:
    return ["--", INTERPRETER, "-B", "-c", script]


def body(url: str) -> bytes | None:
    """What a call brings; None where it is refused."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - an address of our own
            return bytes(answer.read())
    except OSError:
        return None


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    process = subprocess.Popen(
        [*PROOFBEAT, "up", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(temporary(folder))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
    process.stdout.read()  # to its end: whatever the program started holds it open while it runs
    assert running_below(str(temporary(folder))) == [], "nothing is left"


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """For root it takes a file system of its own."""
    if os.geteuid() == 0:
        mount("-t", "tmpfs", "-o", "ro", "nothing", str(folder))
    else:
        folder.chmod(0o555)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            unmount(str(folder))
        else:
            folder.chmod(0o755)


def until(lines: IO[str], wanted: str) -> str:
    """Reads on until a line matches; the test's own time limit ends it."""
    read = []
    for line in lines:
        read.append(line)
        if re.search(wanted, line):
            return line
    raise AssertionError(f"{wanted!r} was never said:\n{''.join(read)}")


def children(process: subprocess.Popen[str], part: str) -> list[int]:
    """Pids of those whose command holds this."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    pids = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    return [pid for pid in pids if part.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.timeout(90)
def test_trying_it_closes_and_opens_the_program_once_and_reports_that_as_one_object(folder: Path) -> None:
    code, out, told = run(folder, "--try", "--json", "--learn", "1s", "--", *SERVICE)
    assert code == 0, told
    report = json.loads(out)
    assert report["ok"]
    assert report["include"] == [str(folder)]
    assert report["learned"]["files"] == 1
    assert report["learned"]["volatile"] == []
    assert 0 < report["closed_ms"] < 15_000
    assert 0 < report["reopened_ms"] < 15_000
    assert [path.name for path in folder.iterdir()] == ["index.html"], "what was laid down is gone"


@pytest.mark.timeout(120)
def test_a_changed_file_closes_it_a_repair_opens_it_and_a_foreign_program_takes_a_new_instance(folder: Path) -> None:
    page, sleep = folder / "index.html", folder.parent / "sleep"
    original = page.read_text()
    service = (
        "import http.server, os, signal, subprocess; "
        f"signal.signal(signal.SIGHUP, lambda *_: subprocess.Popen([{str(sleep)!r}, '5'])); "
        "http.server.ThreadingHTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    with running(folder, "--learn", "1s", *python(service)) as (process, lines):
        program = int(until(lines, r"runs as pid \d+").split(" pid ")[1].split()[0])
        url = until(lines, "call it").split()[-1]
        until(lines, "a new instance:")
        assert body(url) == original.encode()
        # 1. Drift: mended, it opens again.
        page.write_text("<h1>yours</h1>\n")
        until(lines, "violation: .*index.html")
        until(lines, "or allow it: .*--volatile .*index.html")
        until(lines, "CLOSED")
        assert body(url) is None
        page.write_text(original)
        until(lines, "OPEN")
        assert body(url) == original.encode()
        # 2. Tamper: a new instance opens it, and nothing else.
        sleep.write_bytes(Path("/bin/sleep").read_bytes())
        sleep.chmod(0o755)
        os.kill(program, signal.SIGHUP)
        until(lines, "violation: .*sleep")
        until(lines, "CLOSED")
        process.send_signal(signal.SIGUSR1)
        until(lines, "a new instance: pid")
        until(lines, "OPEN")
        assert body(url) == original.encode()
    assert process.returncode == 0
    assert body(url) is None
    assert not Path(f"/proc/{program}").exists()


@pytest.mark.timeout(60)
def test_it_ends_with_the_program_and_says_how_that_ended(folder: Path) -> None:
    service = (
        "import http.server, os, signal; signal.signal(signal.SIGHUP, lambda *_: os._exit(3)); "
        "http.server.HTTPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler).serve_forever()"
    )
    with running(folder, "--learn", "1s", *python(service)) as (process, lines):
        program = int(until(lines, r"runs as pid \d+").split(" pid ")[1].split()[0])
        until(lines, "a new instance:")
        os.kill(program, signal.SIGHUP)
        until(lines, "exit code 3")
        assert process.wait(PATIENCE) == 1


@pytest.mark.timeout(90)
def test_a_wish_for_a_new_instance_is_never_too_early_and_all_of_the_old_one_ends_daemons_too(folder: Path) -> None:
    server = f"{INTERPRETER} -u -m http.server 0 --bind 127.0.0.1 --directory {folder}"
    with running(folder, "--learn", "1s", "--", "sh", "-c", f"(setsid {server} &) ; sleep 600 & wait") as (up, lines):
        until(lines, "listens on")
        old = running_below(str(folder))
        assert len(old) >= 4, "the daemon, the shell, its reaper, and who was told of them"
        up.send_signal(signal.SIGUSR1)
        until(lines, "a new instance: pid")
        assert set(running_below(str(folder))) & set(old) == {up.pid}
        until(lines, "OPEN")
    assert up.returncode == 0


@pytest.mark.parametrize("part", ["proofbeat\0sidecar", "proofbeat.ephemeral.authority"])
@pytest.mark.timeout(60)
def test_when_a_part_of_the_mesh_dies_it_says_which_and_how_and_keeps_its_log(folder: Path, part: str) -> None:
    name = re.split(r"[\0.]", part)[-1]
    with running(folder, "--learn", "1s", "--", *SERVICE) as (process, lines):
        until(lines, "a new instance:")
        (pid,) = children(process, part)
        os.kill(pid, signal.SIGKILL)
        kept = Path(until(lines, "are kept: ").split()[-1])
        told = until(lines, rf"the {name} was ended by signal 9")
        assert process.wait(PATIENCE) == 1
    assert f"{kept}/{name}.log" in told
    assert (kept / f"{name}.log").read_text()
    assert list(kept.rglob("envoy.bin")) == []


@pytest.mark.timeout(60)
def test_a_sidecar_that_cannot_start_is_told_at_once_in_its_own_words(folder: Path) -> None:
    code, _, told = run(folder, "--learn", "1s", "--", *SERVICE, PROOFBEAT_DELIVERY_SOCKET="/proc/xds.sock")
    assert code == 1
    assert re.search(r"the sidecar ended with exit code \d\. It said last: .*/proc/xds\.sock", told)


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.timeout(60)
def test_what_the_service_itself_refuses_is_served(folder: Path, status: int) -> None:
    service = (
        "import http.server as h\n"
        "class Refusing(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        f"        self.send_response({status})\n"
        "        self.send_header('content-type', 'application/problem+json')\n"
        "        self.end_headers()\n"
        '        self.wfile.write(b\'{"detail":"not today"}\')\n'
        "h.HTTPServer(('127.0.0.1', 0), Refusing).serve_forever()\n"
    )
    code, out, told = run(folder, "--try", "--json", "--learn", "1s", *python(service))
    assert code == 0, told
    assert json.loads(out)["ok"]


@pytest.mark.timeout(60)
def test_a_service_over_tcp_and_ipv6_is_closed_and_opened_and_its_volatile_log_is_not_looked_at(folder: Path) -> None:
    service = (
        "import socket, socketserver, threading, time\n"
        "def log():\n"
        "    while True: open('app.log', 'a').write('x'); time.sleep(0.05)\n"
        "class Server(socketserver.ThreadingTCPServer): address_family = socket.AF_INET6\n"
        "class Silent(socketserver.BaseRequestHandler):\n"
        "    def handle(self): self.request.recv(1)\n"
        "threading.Thread(target=log, daemon=True).start()\n"
        "Server(('::1', 0), Silent).serve_forever()\n"
    )
    options = ["--tcp", "--try", "--json", "--keep", "--learn", "1s", "--volatile", "*.log"]
    code, out, told = run(folder, *options, *python(service))
    assert code == 0, told
    report = json.loads(out)
    assert report["listens"].startswith("[::1]:")
    assert report["learned"]["volatile"] == []
    (kept,) = temporary(folder).iterdir()
    assert f"are kept: {kept}" in told
    assert (kept / "policies" / "app.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--", "/no/such/program"], 1, "/no/such/program"),
        (["--wait", "100ms", "--", "/bin/sleep", "20"], 1, "--wait"),
        (["--", "/bin/true"], 1, "run it in the foreground"),
        (["--learn", "soon", "--", "/bin/true"], 2, "250ms"),
        (["--", "/bin/sh", "-c", "exit 3"], 1, "exit code 3"),
        (python(LOCAL_ONLY), 1, "but on @here"),
        (python(TWO_PORTS), 2, "--port"),
        (python(NO_HTTP), 2, "--tcp"),
        (["--include", "/", "--", "/bin/true"], 2, "--include"),
        (["--include", "nowhere", "--", "/bin/true"], 2, "--include nowhere"),
        (["--include", "index.html", "--try", "--", "/bin/true"], 2, "only files are measured"),
        (["--json", "--", "/bin/true"], 2, "--try"),
        (["--acts", "--", "/bin/true"], 2, "--try"),
        (["--listen", "localhost:7000", "--", "/bin/true"], 2, "--listen localhost:7000"),
        (["--listen", "127.0.0.1:65536", "--", "/bin/true"], 2, "from 1 to 65535"),
        (["--listen", "192.0.2.1:7000", "--", "/bin/true"], 2, "nothing can listen there"),
        ([], 2, "CMD"),
    ],
)
@pytest.mark.timeout(60)
def test_typical_mistakes_are_told_with_what_mends_them(
    folder: Path, arguments: list[str], code: int, said: str
) -> None:
    returned, _, told = run(folder, "--learn", "500ms", "--wait", "3s", *arguments)
    assert returned == code, told
    assert said in told
    assert "Traceback" not in told
    assert list(temporary(folder).iterdir()) == [], "nothing is left"


def test_a_folder_that_would_measure_its_own_files_is_refused() -> None:
    with tempfile.TemporaryDirectory() as here:
        code, _, told = run(Path(here), "--", *SERVICE, TMPDIR=here)
        assert code == 2
        assert "TMPDIR" in told
        assert list(Path(here).iterdir()) == []


@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to bring programs into the kernel")
def test_an_intruder_beside_the_program_is_told_as_what_he_does_and_a_new_instance_is_served(folder: Path) -> None:
    code, out, told = run(folder, "--try", "--acts", "--json", "--learn", "1s", "--", *SERVICE, within=200)
    assert code == 0, told
    acts = json.loads(out)["acts"]
    assert [(act["name"], act["signal"], act["left_out"]) for act in acts] == [
        ("call-outside", "call-foreign", ""),
        ("ring-opened", "call-foreign", ""),
        ("code-patched", "memory-code-patched", ""),
        ("egress", "egress-foreign", ""),
    ], told
    assert all(act["closed_ms"] > 0 and act["reopened_ms"] > 0 for act in acts)


def test_trying_it_where_nobody_may_write_is_refused(folder: Path) -> None:
    with read_only(folder):
        code, _, told = run(folder, "--try", "--", *SERVICE)
    assert code == 2
    assert f"{folder}: no file can be laid down there" in told


def test_a_path_too_long_for_sockets_is_refused(folder: Path) -> None:
    deep = folder.parent / ("x" * 80)
    deep.mkdir()
    code, _, told = run(folder, "--", *SERVICE, TMPDIR=str(deep))
    assert code == 1
    assert "TMPDIR" in told
    assert list(deep.iterdir()) == []


def test_a_folder_that_is_not_the_programs_alone_is_refused_before_anything_runs() -> None:
    code, _, told = run(Path("/"), "--", *SERVICE)
    assert code == 2
    assert "--include" in told
