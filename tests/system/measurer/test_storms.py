"""More than can be looked at one by one: whatever is not told is said to be lost, and read again.

What an overrun queue leads to is in test_files.py.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proofbeat.bench.storm.run import measured
from tests.system.measurer.conftest import needs_root

pytestmark = needs_root


@pytest.mark.parametrize(("kind", "count"), [("files", 4_000), ("executions", 1_500)])
def test_of_a_storm_every_act_is_told_or_said_to_be_lost_while_heartbeats_are_answered(
    kind: str, count: int, elsewhere: Path
) -> None:
    storm = asyncio.run(measured(elsewhere, kind, count))
    assert storm.silent == 0
    assert storm.told == count or storm.losses
    assert storm.answered < 5.0
