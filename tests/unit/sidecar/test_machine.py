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
from policies.model.metadata import Metadata
from policies.model.policy import EffectivePolicy, Mode, PolicySpec, Recovery
from policies.model.references import EffectiveReferences, ReferenceSpec
from policies.model.registration import RegistrationSpec, WorkloadRegistration
from sidecar import clock
from sidecar.causes import Causes
from sidecar.governing import Governed
from sidecar.latch import Latch
from sidecar.machine import Machine
from sidecar.metering import Metering
from sidecar.states import Answered, Appraised, Flaps, Lease, Phase, Rules, RulesChanged, State, Violated, WorkloadEnded
from sidecar.telling import Telling
from telemetry import metrics
from telemetry.recorder import Recorder

INSTANCE = InstanceId("i-" + "0" * 32)
REGISTRATION = WorkloadRegistration(
    metadata=Metadata(name="web"), spec=RegistrationSpec(spiffe_id="spiffe://example.org/web", references="web")
)


def found(of: ViolationClass) -> Violation:
    now = clock.now().boot
    return Violation("file-modified", of, Layer.FILES, "/srv/app/main", "it differs", now, found="a" * 64)


@dataclass
class Carried:
    """A machine over a state folder. acts: what it had done, in order, each with how many lines it had said by then."""

    folder: Path
    acts: list[tuple[str, int]] = field(default_factory=list)
    latched: str = ""
    reason: str = ""
    contained: list[tuple[Phase, list[str], int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = CapturingLogger()
        telling = Telling(self.log, Metering(Recorder(metrics.SIDECAR)))
        self.machine = Machine(
            Causes(Latch(self.folder), self._failed),
            telling,
            close=self._close,
            serve=lambda lease: self._act("serve"),
            ask=lambda question: self._act("ask"),
            report=lambda report: self._act("report"),
            reattest=lambda full: self._act("reattest in full" if full else "reattest"),
            contain=self._contain,
            ended=lambda: self._act("end"),
        )
        self.machine.recall(INSTANCE)

    def open(self) -> None:
        now = clock.now()
        lease = Lease(1, now.boot + 60.0, now.wall + 60.0)
        self.machine.step(Appraised(Tier.AFFIRMING, self.machine.state.generation, 1, now.boot, lease))
        assert self.machine.state.phase is Phase.FRESH

    def _contain(self, before: State, after: State) -> None:
        self.contained.append((after.phase, self.order, len(self.log.calls)))

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


def test_drift_that_may_be_held_is_asked_about_and_told_when_the_answer_is_there(carried: Carried) -> None:
    carried.machine.step(RulesChanged(Rules(holds=True, patience=10.0)))
    carried.open()
    carried.machine.step(Violated(found(ViolationClass.DRIFT)))
    assert carried.order == ["serve", "ask"]
    question = carried.machine.state.question
    assert question is not None
    carried.machine.step(Answered(question.number, held=True))
    assert carried.order == ["serve", "ask", "reattest in full", "report"]
    assert [call.args[0] for call in carried.log.calls][-1] == "held"


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


def test_a_result_that_comes_too_early_is_kept_and_the_next_run_knows_when_it_was_closed(carried: Carried) -> None:
    rules = Rules(minimum_closed=3600.0, flaps=Flaps(2, 60.0))
    carried.machine.step(RulesChanged(rules))
    carried.open()
    carried.machine.step(Violated(found(ViolationClass.DRIFT)))
    now, state = clock.now(), carried.machine.state
    early = Appraised(Tier.AFFIRMING, state.generation, 2, now.boot, Lease(2, now.boot + 60.0, now.wall + 60.0))
    carried.machine.step(early)
    assert carried.order == ["serve", "close", "report", "reattest in full"]
    assert [call.args[0] for call in carried.log.calls][-1] == "result-kept"
    again = Carried(carried.folder)
    assert again.machine.state.closings == state.closings
    assert len(state.closings.drift) == 1


def test_what_policy_says_of_recovery_is_what_the_machine_goes_by() -> None:
    stated = {
        "mode": "enforce",
        "recovery": {
            "drift": "replace",
            "tamper": "manual",
            "minimumClosed": "30s",
            "flaps": {"count": 3, "within": "10m"},
        },
        "warnings": "serve",
    }
    policy = EffectivePolicy(metadata=Metadata(name="web"), spec=PolicySpec.model_validate(stated))
    references = EffectiveReferences(metadata=Metadata(name="web"), spec=ReferenceSpec())
    assert Governed(1, policy, references, REGISTRATION).rules == Rules(
        Mode.ENFORCE, Recovery.REPLACE, Recovery.MANUAL, 30.0, Flaps(3, 600.0), True
    )


def test_the_workload_itself_is_thought_of_once_its_traffic_is_closed_and_before_anything_is_told(
    carried: Carried,
) -> None:
    carried.open()
    said = len(carried.log.calls)
    carried.machine.step(Violated(found(ViolationClass.TAMPER)))
    assert carried.contained[-1] == (Phase.QUARANTINED, ["serve", "close"], said)
