"""What a run orders of what the one before it did, and what it remembers for the next."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from attestation.channel import Contain, Contained
from attestation.containment import Containment, Means
from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.violation import Violation, ViolationClass
from policies.model.policy import ContainmentRules, Mode
from sidecar.config import ForensicsSettings
from sidecar.containing import Containing
from sidecar.metering import Metering
from sidecar.states import Now, Phase, Rules, State
from sidecar.telling import Telling
from telemetry import metrics
from telemetry.recorder import Recorder

INSTANCE, OTHER = InstanceId("i-" + "1" * 32), InstanceId("i-" + "2" * 32)
OPEN = State(Rules(Mode.ENFORCE), Phase.FRESH)
FOUND = Violation(Signal.EXECUTION_FOREIGN, ViolationClass.TAMPER, Layer.PROCESSES, "/x", "it ran", 5.0)
TAMPERED = State(Rules(Mode.ENFORCE), Phase.QUARANTINED, causes=(FOUND,))
NONE, DENY, FREEZE = Containment.NONE, Containment.DENY_EGRESS, Containment.FREEZE


class Run:
    """Of a sidecar, in this folder. orders: what its measurer was told."""

    def __init__(self, folder: Path, tamper: Containment) -> None:
        self.orders: list[Contain] = []
        telling = Telling(structlog.get_logger(), Metering(Recorder(metrics.SIDECAR)))
        settings = ForensicsSettings(keep=0)
        self.containing = Containing(
            folder,
            settings,
            telling,
            order=self.orders.append,
            keep=lambda *_: None,
            now=lambda: Now(10.0, 1e9),
        )
        self.containing.rule(ContainmentRules(tamper=tamper))

    @property
    def told(self) -> list[tuple[Containment, bool]]:
        return [(each.how, each.before) for each in self.orders]

    def done(self) -> None:
        """The measurer has carried out the last order."""
        last = self.orders[-1]
        self.containing.contained(Contained(last.number, last.how, Means.FENCE, 1, 0, 11.0))


@pytest.mark.parametrize(("how", "stopped"), [(DENY, False), (FREEZE, True)])
def test_what_an_earlier_run_did_is_done_again_and_only_what_it_stopped_is_let_go_as_stopped(
    how: Containment, stopped: bool, tmp_path: Path
) -> None:
    first = Run(tmp_path, how)
    first.containing.recall(INSTANCE)
    first.containing.follow(OPEN, TAMPERED)
    assert first.told == [(how, False)]
    second = Run(tmp_path, how)
    second.containing.recall(INSTANCE)
    second.containing.repeat()
    second.containing.follow(TAMPERED, OPEN)
    assert second.told == [(how, stopped), (NONE, stopped)]
    second.done()
    third = Run(tmp_path, how)
    third.containing.recall(INSTANCE)
    third.containing.repeat()
    assert third.told == [], "it was let go"


def test_a_measurer_that_is_started_anew_is_told_whether_another_one_stopped_anything(tmp_path: Path) -> None:
    run = Run(tmp_path, DENY)
    run.containing.recall(INSTANCE)
    run.containing.follow(OPEN, TAMPERED)
    run.containing.repeat()
    run.containing.rule(ContainmentRules(tamper=FREEZE))
    run.containing.follow(TAMPERED, TAMPERED)
    run.containing.repeat()
    run.containing.rule(ContainmentRules(tamper=DENY))
    run.containing.follow(TAMPERED, TAMPERED)
    assert run.told == [(DENY, False), (DENY, False), (FREEZE, False), (FREEZE, True), (DENY, True)]


def test_what_another_instance_was_under_is_nothing_to_this_one_and_what_cannot_be_read_counts_as_frozen(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, DENY)
    run.containing.recall(INSTANCE)
    run.containing.follow(OPEN, TAMPERED)
    other = Run(tmp_path, DENY)
    other.containing.recall(OTHER)
    assert other.containing.how is NONE
    (tmp_path / "contained.json").write_text("{")
    damaged = Run(tmp_path, DENY)
    damaged.containing.recall(INSTANCE)
    assert damaged.containing.how is FREEZE
    damaged.containing.follow(TAMPERED, TAMPERED)
    assert damaged.told == [(DENY, True)], "policy asks for no more"
