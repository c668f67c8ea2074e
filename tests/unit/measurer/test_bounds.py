"""How many files one workload can have measured: more end the measurement before they fill the memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestation.errors import Unavailable
from measurer.files.manifest import Tree
from measurer.files.patterns import Volatile
from measurer.files.scan import Scanner

MOST = 40


def scan(folder: Path) -> int:
    """Reads all of it. How many entries that makes."""
    work: list[Iterator[None]] = []
    tree = Tree([os.fsencode(folder)])
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    scanner = Scanner(root, tree, Volatile([]), lambda *_: None, lambda _: None, lambda _: None, work.append, most=MOST)
    try:
        scanner.read_all(True, lambda: None)
        for each in work:
            for _ in each:
                pass
    finally:
        os.close(root)
    return tree.entries


def fill(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"f{number}").write_text("x")


def test_as_many_as_are_allowed_are_measured(tmp_path: Path) -> None:
    fill(tmp_path / "app", MOST // 2)
    assert scan(tmp_path / "app") > MOST // 2


def test_a_folder_with_more_is_given_up(tmp_path: Path) -> None:
    fill(tmp_path / "app", MOST + 1)
    with pytest.raises(Unavailable, match=f"more than {MOST} files"):
        scan(tmp_path / "app")


def test_folders_with_more_between_them_are_given_up(tmp_path: Path) -> None:
    for number in range(10):
        fill(tmp_path / "app" / str(number), 8)
    with pytest.raises(Unavailable, match=f"more than {MOST} files"):
        scan(tmp_path / "app")
