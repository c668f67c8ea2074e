"""Real workloads and folders for the measurer to look at."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.measurer.stage import Proxy, User, Workload


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
def elsewhere() -> Iterator[Path]:
    """A folder that nobody measures."""
    root = Path(tempfile.mkdtemp(prefix="elsewhere-"))
    root.chmod(0o755)
    yield root
    shutil.rmtree(root)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: fanotify, the connector and SOCK_DESTROY")
