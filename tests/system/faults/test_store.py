"""The authority's disk fails it: damaged, full, locked, or the process killed at any moment of a round."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from attestation.errors import Unavailable
from authority.store.writer import Writer
from tests.system.authority.test_restart import attester_of, free_port, program
from tests.system.authority.town import Attester, attester, policies, town
from wire.messages import Answer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a small file system of its own")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder with room for little."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "proofbeat-test", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_damaged_store_is_not_started_on_and_the_file_and_the_mend_are_named(tmp_path: Path) -> None:
    async def whole() -> None:
        async with town(tmp_path) as first, attester(first, session=False) as one:
            await one.round()
        store = tmp_path / "authority.sqlite"
        with closing(sqlite3.connect(store)) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        content = bytearray(store.read_bytes())
        for at in range(len(content) - 4096, len(content)):  # the schema is as it was, some table's rows are not
            content[at] ^= 0xFF
        store.write_bytes(content)
        with pytest.raises(BaseExceptionGroup) as raised:
            async with town(tmp_path):
                pass
        (refusal,) = raised.value.exceptions
        assert isinstance(refusal, Unavailable)
        assert str(store) in refusal.sentence
        assert "backup" in refusal.mend
        assert "sqlalche.me" not in refusal.sentence

    asyncio.run(whole())


async def refused_in_the_end(one: Attester) -> bytes:
    """The evidence that the store has no room for: its log is reused until it is written to its end."""
    for _ in range(500):
        signed = one.signed()
        try:
            await one.send(signed)
        except Unavailable as error:
            assert "the store did not take it" in error.sentence
            return signed
    raise AssertionError("there was room for 500 rounds")


@needs_root
def test_a_store_without_room_answers_unavailable_and_the_same_evidence_counts_once_there_is_room(small: Path) -> None:
    async def whole() -> None:
        async with town(small) as where, attester(where, session=False) as one:
            await one.round()
            filler = small / "filler"
            with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
                while file.write(bytes(4096)):
                    pass
            signed = await refused_in_the_end(one)
            filler.unlink()
            assert (await one.send(signed)).chain != ""

    asyncio.run(whole())


def test_a_database_that_somebody_else_holds_is_told_to_all_who_wait_and_is_used_again_afterwards(
    tmp_path: Path,
) -> None:
    async def whole() -> None:
        writer = Writer(tmp_path / "store.sqlite")
        writer.open()
        try:
            with closing(sqlite3.connect(tmp_path / "store.sqlite")) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = [writer.run(lambda db: db.exec_driver_sql("SELECT 1").scalar_one()) for _ in range(3)]
                async with asyncio.timeout(30):
                    refusals = await asyncio.gather(*waiting, return_exceptions=True)
                assert [type(each) for each in refusals] == [Unavailable] * 3
                assert "locked" in str(refusals[0])
            async with asyncio.timeout(30):
                assert await writer.run(lambda db: db.exec_driver_sql("SELECT 1").scalar_one()) == 1
        finally:
            writer.close()

    asyncio.run(whole())


def test_an_authority_killed_at_any_moment_of_a_round_still_gives_that_evidence_its_answer(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(policies())
    listen = f"127.0.0.1:{free_port()}"

    async def whole() -> None:
        async with program(tmp_path, listen) as first:
            one = attester_of(first.where)
            await one.enrol(await first.token())
        for after_ms in (2, 5):
            async with program(tmp_path, listen) as running:
                signed = one.signed()
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(_answer(one, signed))
                    await asyncio.sleep(after_ms / 1000)
                    await running.kill()
            async with program(tmp_path, listen):
                answer = await one.send(signed)
                assert answer.chain != ""
                before = sending.result()
                assert before is None or (before.ear, before.chain) == (answer.ear, answer.chain)
        await one.client.close(clean=False)

    asyncio.run(whole())


async def _answer(one: Attester, signed: bytes) -> Answer | None:
    try:
        return await one.send(signed)
    except Unavailable:
        return None
