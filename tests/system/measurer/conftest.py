"""Real workloads and folders for the measurer to look at."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system.measurer.stage import Proxy, User, Workload, cgroup


@pytest.fixture
def workload() -> Iterator[Workload]:
    running = Workload()
    yield running
    running.end()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.end()


FORBIDDING = """
import ctypes, os, platform, struct, sys
BPF, LOAD, EQUAL, RETURN, EPERM = {'x86_64': 321, 'aarch64': 280}[platform.machine()], 0x20, 0x15, 0x06, 0x50001
code = struct.pack('=HBBIHBBIHBBIHBBI', LOAD, 0, 0, 0, EQUAL, 0, 1, BPF, RETURN, 0, 0, EPERM, RETURN, 0, 0, 0x7FFF0000)
held = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack('@HP', 4, ctypes.addressof(held)))
assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Forbids bpf(2), as container engines do by default, and executes what follows."""
WITHOUT_PROGRAMS = (sys.executable, "-c", FORBIDDING)
WITHOUT_CONNECTOR = ("unshare", "--net")


@pytest.fixture(
    params=[(), WITHOUT_CONNECTOR, WITHOUT_PROGRAMS],
    ids=["programs-and-connector", "programs-alone", "connector-alone"],
)
def source(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What comes before a measurer's command that is told of processes in one of the ways there are."""
    found: tuple[str, ...] = request.param
    return found


@pytest.fixture(scope="session")
def root() -> User:
    return User()


@pytest.fixture(scope="session")
def nobody() -> Iterator[User]:
    """An ordinary user: another one where the tests run as root, else whoever runs them."""
    if os.geteuid() != 0:
        yield User()
        return
    folder = Path(tempfile.mkdtemp(prefix="everybodys-"))
    yield User.ordinary(folder)
    shutil.rmtree(folder)


@pytest.fixture
def tree() -> Iterator[Path]:
    """A measured folder: two files, one of them a level down, and a link."""
    root = Path(tempfile.mkdtemp(prefix="measured-"))
    root.chmod(0o755)
    (root / "below").mkdir()
    (root / "first").write_text("one")
    (root / "below" / "second").write_text("two")
    (root / "link").symlink_to("first")
    yield root
    shutil.rmtree(root)


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of version 2."""
    with cgroup() as made:
        yield made


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that nobody measures."""
    root = Path(tempfile.mkdtemp(prefix="elsewhere-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


@dataclass
class Hanging:
    """A file system whose server never answers anything (fuse(4)). server: its descriptor, whose end is an answer."""

    where: Path
    server: int

    def end(self) -> None:
        """All that waits for it is refused."""
        if self.server >= 0:
            os.close(self.server)
        self.server = -1


@pytest.fixture
def unanswered(elsewhere: Path) -> Iterator[Hanging]:
    where = elsewhere / "hangs"
    where.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pytest.skip("this kernel has no FUSE")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"hangs", os.fsencode(where), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    hangs = Hanging(where, server)
    yield hangs
    hangs.end()
    libc.umount2(os.fsencode(where), 2)


@pytest.fixture
def hanging(unanswered: Hanging) -> Path:
    return unanswered.where


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: fanotify, the connector and SOCK_DESTROY")
