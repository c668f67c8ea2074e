"""A machine that was put back to an earlier moment is noticed by three witnesses."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest

from sidecar.restored import RESTORED, Pace, Restores, marker, tells_of_restore

WORD = b"change@/devices/platform/VMGENCTR:00\0ACTION=change\0DRIVER=vmgenid\0NEW_VMGENID=1\0SEQNUM=9\0"


def page(marked: int, sequence: int = 2, magic: int = 0x4B4C4356) -> bytes:
    return struct.pack("<IIHBBIQQ", magic, 4096, 1, 0, 0, sequence, marked, 0).ljust(4096, b"\0")


def test_as_much_time_for_the_authority_as_for_us_is_no_restore() -> None:
    pace = Pace()
    assert not pace.heard(1000.0, sent=50.0, received=50.1)
    assert not pace.heard(1010.0, sent=60.0, received=60.1)
    assert not pace.heard(1010.0 + 86_400 * 1.0005, sent=60.1 + 86_400, received=60.2 + 86_400), (
        "a clock that is slewed"
    )
    assert not pace.heard(1000.0, sent=90_000.0, received=90_000.1), "its clock went back, which lengthens nothing"


@pytest.mark.parametrize(("away", "noticed"), [(0.5, False), (1.9, False), (2.2, True), (3600.0, True)])
def test_more_time_for_the_authority_than_for_us_is_one(away: float, noticed: bool) -> None:
    pace = Pace()
    pace.heard(1000.0, sent=50.0, received=50.0)
    assert pace.heard(1010.0 + away, sent=60.0, received=60.0) is noticed
    assert not pace.heard(1011.0 + away, sent=61.0, received=61.0), "told once"


def test_a_slow_answer_is_none() -> None:
    pace = Pace()
    pace.heard(1000.0, sent=50.0, received=50.0)
    assert not pace.heard(1019.0, sent=60.0, received=69.0)


def test_the_kernels_word_is_known_from_everything_else() -> None:
    assert tells_of_restore(WORD)
    assert not tells_of_restore(WORD.replace(b"NEW_VMGENID=1", b"SYNTH_ARG_NEWVMGENID=1"))
    assert not tells_of_restore(WORD.replace(b"=change", b"=add"))
    assert not tells_of_restore(b"")


@pytest.mark.parametrize(
    "content",
    [b"", page(7)[:20], page(7, magic=1), page(7, sequence=3)],
    ids=["empty", "short", "something else", "being written"],
)
def test_a_page_that_cannot_be_read_has_no_marker(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "vmclock0"
    assert marker(file) is None
    file.write_bytes(content)
    assert marker(file) is None


def test_another_disruption_marker_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "vmclock0"
    file.write_bytes(page(7))
    told: list[str] = []

    async def lived() -> None:
        restores = Restores(told.append, file)
        restores.start(asyncio.get_running_loop())
        restores.look()
        assert told == []
        file.write_bytes(page(8, sequence=4))
        restores.look()
        restores.look()
        restores.close(asyncio.get_running_loop())

    asyncio.run(lived())
    assert told == [RESTORED]
