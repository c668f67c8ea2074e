"""The parts of a bundle that no kernel has to be asked for."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurer.bundle import Out, patiently, text


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("bundle")
    yield descriptor
    os.close(descriptor)


def test_a_read_that_hangs_is_left_behind() -> None:
    never, began = threading.Event(), time.monotonic()
    assert patiently(lambda: bytes(never.wait())) is None
    never.set()
    assert time.monotonic() - began < 5.0
    assert patiently(lambda: b"read") == b"read"


def test_each_part_has_its_share_and_no_line_is_cut(memory: int) -> None:
    out = Out(memory, 1000, time.monotonic() + 60.0)
    line = {"is": "process", "text": "x" * 60}
    while out.write(line, 0.5):
        pass
    assert not out.complete
    assert out.write(line), "what another part left is there for the next"
    written = os.pread(memory, 10_000, 0)
    assert len(written) <= 1000
    assert all(json.loads(each) == line for each in written.split(b"\n")[:-1])


def test_nothing_is_written_after_its_time(memory: int) -> None:
    assert not Out(memory, 1000, time.monotonic() - 1.0).write({"is": "process"})


@given(st.binary(max_size=200))
def test_whatever_a_name_holds_it_is_one_line_of_json(raw: bytes) -> None:
    line = json.dumps({"name": text(raw)}).encode()
    assert b"\n" not in line
    assert json.loads(line)["name"] == text(raw)
