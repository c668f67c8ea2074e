"""The order in which a decision is carried out: what closes or opens traffic, and then everything else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

from attestation.instance import InstanceId
from attestation.layers import Layer
from attestation.trust import Tier
from attestation.violation import Violation, ViolationClass
from sidecar import clock
from sidecar.causes import Causes
from sidecar.freshness import Appraised, Lease, Phase, Violated, WorkloadEnded
from sidecar.latch import Latch
from sidecar.machine import Machine
from sidecar.metering import Metering
from sidecar.telling import Telling
from telemetry import metrics
from telemetry.recorder import Recorder

INSTANCE = InstanceId("i-" + "0" * 32)


def found(of: ViolationClass) -> Violation:
    return Violation("file-modified", of, Layer.FILES, "/srv/app/main", "it differs", clock.now().boot)


@dataclass
class Carried:
    """A machine over a state folder. acts: what it had done, in order, each with how many lines it had said by then."""

    folder: Path
    acts: list[tuple[str, int]] = field(default_factory=list)
    latched: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        self.log = CapturingLogger()
        telling = Telling(self.log, Metering(Recorder(metrics.SIDECAR)))
        self.machine = Machine(
            Causes(Latch(self.folder), self._failed),
            telling,
            close=self._close,
            serve=lambda lease: self._act("serve"),
            report=lambda report: self._act("report"),
            reattest=lambda full: self._act("reattest in full" if full else "reattest"),
            ended=lambda: self._act("end"),
        )
        self.machine.recall(INSTANCE)

    def open(self) -> None:
        now = clock.now()
        lease = Lease(1, now.boot + 60.0, now.wall + 60.0)
        self.machine.step(Appraised(Tier.AFFIRMING, self.machine.state.generation, 1, now.boot, lease))
        assert self.machine.state.phase is Phase.FRESH

    @property
    def order(self) -> list[str]:
        return [act for act, _ in self.acts]

    def _close(self, reason: str, cause: Violation | None) -> None:
        self._act("close")
        self.reason = reason
        self.latched = (self.folder / "latch.jsonl").read_text()

    def _act(self, name: str) -> None:
        self.acts.append((name, len(self.log.calls)))

    def _failed(self, reason: str) -> None:
        raise AssertionError(reason)


@pytest.fixture
def carried(tmp_path: Path) -> Carried:
    return Carried(tmp_path)


def test_a_contradiction_is_latched_then_closed_and_only_then_reported_and_logged(carried: Carried) -> None:
    carried.open()
    said = len(carried.log.calls)
    carried.machine.step(Violated(found(ViolationClass.TAMPER)))
    assert carried.order == ["serve", "close", "report"]
    assert carried.acts[1] == ("close", said)
    assert "file-modified" in carried.latched
    assert len(carried.log.calls) > said
    assert carried.machine.state.phase is Phase.QUARANTINED


def test_whoever_is_refused_is_told_the_cause_by_the_name_that_it_is_reported_under(carried: Carried) -> None:
    carried.open()
    carried.machine.step(Violated(found(ViolationClass.DRIFT)))
    assert carried.order == ["serve", "close", "report", "reattest in full"]
    causes = [call.kwargs["cause"] for call in carried.log.calls if "cause" in call.kwargs]
    assert [carried.reason] == [f"file-modified:{cause}" for cause in causes]
    assert carried.latched == ""


def test_the_end_of_the_workload_is_told_after_it_is_closed(carried: Carried) -> None:
    carried.open()
    carried.machine.step(WorkloadEnded("workload-ended"))
    assert carried.order == ["serve", "close", "end"]
    assert carried.reason == "workload-ended"


def test_what_an_earlier_run_latched_is_where_the_next_one_begins(carried: Carried) -> None:
    carried.machine.step(Violated(found(ViolationClass.TAMPER)))
    again = Carried(carried.folder)
    assert again.machine.state.phase is Phase.QUARANTINED
    assert [sticky.violation.kind for sticky in again.machine.state.sticky] == ["file-modified"]
