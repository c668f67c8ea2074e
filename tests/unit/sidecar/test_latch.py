"""What survives a kill -9, and what a damaged record means."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestation.errors import InvalidConfiguration
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.violation import Violation, ViolationClass
from policies.model.policy import Mode
from sidecar.causes import Causes
from sidecar.latch import Latch, Latched
from sidecar.standing import StateFolder
from sidecar.states import Closings, Now, Phase, Rules, State, Sticky

INSTANCE, OTHER = InstanceId("i-" + "1" * 32), InstanceId("i-" + "2" * 32)
CAUSE = Sticky(3, Violation("execution-foreign", ViolationClass.TAMPER, Layer.PROCESSES, "/tmp/x", "ran", 5.0))


def no_failure(reason: str) -> None:
    raise AssertionError(reason)


def test_a_new_process_finds_what_an_earlier_one_latched_for_the_same_instance(tmp_path: Path) -> None:
    first = Causes(Latch(tmp_path), no_failure)
    first.recalled(INSTANCE, State(Rules()))
    first.latch(CAUSE, Now(6.0, 1000.0))
    state = Causes(Latch(tmp_path), no_failure).recalled(INSTANCE, State(Rules(Mode.ENFORCE)))
    assert state.phase is Phase.QUARANTINED
    assert state.sticky == (CAUSE,)
    assert state.generation == 3


def test_another_instance_starts_clean(tmp_path: Path) -> None:
    first = Causes(Latch(tmp_path), no_failure)
    first.recalled(INSTANCE, State(Rules()))
    first.latch(CAUSE, Now(6.0, 1000.0))
    assert Causes(Latch(tmp_path), no_failure).recalled(OTHER, State(Rules())) == State(Rules())


@pytest.mark.parametrize("damage", ["{", '{"instance": "i-1"}\n', "\0\0\0\n"])
def test_a_damaged_latch_never_counts_as_an_empty_one(tmp_path: Path, damage: str) -> None:
    (tmp_path / "latch.jsonl").write_text(damage)
    with pytest.raises(InvalidConfiguration, match="the latch cannot be used"):
        Latch(tmp_path).open(INSTANCE)


def test_a_new_process_counts_on_from_the_closings_that_an_earlier_one_counted(tmp_path: Path) -> None:
    first = Causes(Latch(tmp_path), no_failure)
    first.recalled(INSTANCE, State(Rules()))
    for closings in (Closings(5.0, (5.0,)), Closings(9.5, (5.0, 9.5))):
        first.count(closings)
    assert Causes(Latch(tmp_path), no_failure).recalled(INSTANCE, State(Rules())).closings == Closings(9.5, (5.0, 9.5))
    assert Causes(Latch(tmp_path), no_failure).recalled(OTHER, State(Rules())) == State(Rules())


def test_damaged_closings_never_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "closings.json").write_text("{")
    with pytest.raises(InvalidConfiguration, match="the latch cannot be used"):
        Causes(Latch(tmp_path), no_failure).recalled(INSTANCE, State(Rules()))


def test_a_closing_that_cannot_be_counted_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    causes = Causes(Latch(tmp_path), told.append)
    causes.recalled(INSTANCE, State(Rules()))
    (tmp_path / "closings.new").mkdir()
    causes.count(Closings(5.0))
    assert told


def test_a_latch_that_cannot_be_written_is_told_and_does_not_stop_the_closing(tmp_path: Path) -> None:
    told: list[str] = []
    causes = Causes(Latch(tmp_path), told.append)
    causes.recalled(INSTANCE, State(Rules()))
    latch = Latch(tmp_path)
    with pytest.raises(InvalidConfiguration):
        latch.write(Latched(INSTANCE, "id", CAUSE))
    causes._latch.close()
    causes.latch(CAUSE, Now(6.0, 1000.0))
    assert told


def test_a_run_that_did_not_leave_is_known_as_unclean(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    assert not folder.enter()
    assert StateFolder(tmp_path / "state").enter()
    folder.leave()
    assert not StateFolder(tmp_path / "state").enter()


def test_the_latest_ticket_is_the_one_that_is_found(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    assert folder.ticket() == ""
    folder.keep_ticket("one")
    folder.keep_ticket("two")
    assert StateFolder(tmp_path).ticket() == "two"
