"""What a program does when nobody reads what it prints any more: it ends as if it had been signalled, and quietly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proofbeat import process

ROOT = Path(__file__).parents[3]
TALKING = """\
import asyncio, sys
from proofbeat import process

async def program():
    try:
        while True:
            print("a line", flush=True)
            await asyncio.sleep(0)
    finally:
        print("and at the end", flush=True)
        print("cleaned up", file=sys.stderr)

sys.exit(process.run(program))
"""
PRINTING = [
    ["policy", "preset", "hipaa"],
    ["policy", "preset", "--json"],
    ["doctor"],
    ["policy", "schema", "PolicyTest"],
]


def ran(arguments: list[str], out: int) -> tuple[int, str]:
    command = [sys.executable, "-P", "-m", "proofbeat", *arguments]
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False, cwd=ROOT)
    return done.returncode, done.stderr


@pytest.fixture
def unread() -> Iterator[int]:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_command_whose_reader_is_gone_ends_quietly_with_the_code_of_a_closed_pipe(
    arguments: list[str], unread: int
) -> None:
    assert ran(arguments, unread) == (process.UNREAD, "")


def test_a_program_that_runs_ends_with_its_reader_and_its_clean_up_may_print() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", TALKING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == "a line\n"
    child.stdout.close()
    said = child.stderr.read()
    child.stderr.close()
    assert (child.wait(), said) == (process.UNREAD, "cleaned up\n")


def test_an_error_keeps_its_code_and_its_sentence_where_nobody_reads_the_rest(unread: int) -> None:
    code, said = ran(["policy", "check", "/nowhere"], unread)
    assert code == process.USAGE
    assert said.startswith("proofbeat: /nowhere: ")
    assert said.count("\n") == 1


def test_a_disk_that_is_full_is_told_in_one_line() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        code, said = ran(PRINTING[0], full)
    finally:
        os.close(full)
    assert code == process.NO
    assert said == "proofbeat: stdout: what is printed cannot be written: No space left on device\n"
