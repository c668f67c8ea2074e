"""What the sidecar counts, and how a round or a closing becomes a trace: after whatever it opens or closes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from attestation.channel import Contained
from attestation.coverage import Coverage
from attestation.detectors.alerts import Detector
from attestation.errors import ProofbeatError, Refused, Unavailable
from attestation.instance import InstanceId
from attestation.spiffe import SpiffeId
from attestation.tally import amount
from attestation.violation import Violation
from sidecar import clock
from sidecar.attester import Outcome
from sidecar.delivery.told import Happening, Told
from sidecar.observations import Observations
from sidecar.states import Now, Phase, State
from telemetry import metrics, recorder
from telemetry.recorder import Attribute, Labels, Recorder
from xds.acks import Verdict
from xds.server import Server

UNKNOWN = "unknown"
"""Istio's word where there is no name."""


class Metering:
    """made: what exporters read."""

    def __init__(self, made: Recorder) -> None:
        self._recorder = made
        made.subject = dict.fromkeys(metrics.SUBJECT, UNKNOWN)

    def watch(self, state: Callable[[], State], observations: Observations, server: Server) -> None:
        """What is looked up only when somebody asks for it."""
        self._recorder.watch(metrics.LEASE_REMAINING, lambda: (((), remaining(state(), clock.now())),))
        self._recorder.watch(metrics.IDENTITY_STATE, lambda: _phases(state()))
        self._recorder.watch(metrics.BREAK_GLASS, lambda: (((), float(state().excepted)),))
        self._recorder.watch(metrics.HELD, lambda: (((), float(state().held)),))
        self._recorder.watch(metrics.MEASUREMENT_AGE, lambda: _ages(observations))
        self._recorder.watch(metrics.CALL_RATE, lambda: call_rates(observations))
        self._recorder.watch(metrics.CALLS_OUTSIDE, lambda: calls_outside(observations))
        self._recorder.watch(metrics.XDS_PUSHES, lambda: (((), float(server.round.edition.sequence)),))

    def started(self, instance: InstanceId) -> None:
        self._recorder.instance = str(instance)

    def enrolled(self, identity: str) -> None:
        self._recorder.subject = subject(SpiffeId.parse(identity))

    def covered(self, coverage: Coverage) -> None:
        for collector in coverage.collectors:
            self._recorder.raise_to(metrics.EVENTS_LOST, float(collector.lost), collector.name)

    def violated(self, violation: Violation) -> None:
        self._recorder.count(metrics.VIOLATIONS_SEEN, violation.kind, violation.violation_class)

    def alert(self, detector: Detector | None, outcome: str) -> None:
        """detector: None where nobody knows whose it was."""
        self._recorder.count(metrics.DETECTOR_ALERTS, str(detector), outcome)

    def contained(self, done: Contained, seconds: float) -> None:
        outcome = "refused" if done.refusal else "partly" if done.left else "done"
        self._recorder.observe(metrics.CONTAIN_SECONDS, seconds, done.how, outcome)

    def bundled(self, outcome: str) -> None:
        self._recorder.count(metrics.FORENSICS, outcome)

    def judged(self, verdict: Verdict) -> None:
        if not verdict.accepted:
            self._recorder.count(metrics.XDS_REJECTIONS)

    def appraised(self, outcome: Outcome) -> None:
        record, tier = outcome.record, outcome.event.tier.label
        record.value = outcome.result.nonce
        self._recorder.count(metrics.ROUNDS, tier)
        self._recorder.observe_stages(record.began, record.marks())
        self._recorder.traced(
            lambda: recorder.of_round(
                record,
                {
                    "instance": self._recorder.instance,
                    "sequence": outcome.event.sequence,
                    "generation": outcome.event.generation,
                    "full": record.full,
                    "tier": tier,
                },
            )
        )

    def round_failed(self, error: ProofbeatError) -> None:
        match error:
            case Refused():
                result = "refused"
            case Unavailable():
                result = "unavailable"
            case _:
                result = "malformed"
        self._recorder.count(metrics.ROUNDS, result)

    def delivered(self, told: Told) -> None:
        if told.happening is not Happening.CLOSED:
            return
        steps = dict(told.steps)
        for step in metrics.CLOSING:
            if step in steps:
                self._recorder.observe(metrics.CLOSE_SECONDS, steps[step] - steps["began"], step)
        about: dict[str, Attribute] = {"instance": self._recorder.instance, "destroyed": told.destroyed}
        self._recorder.traced(lambda: recorder.of_closing(steps, about))


def subject(identity: SpiffeId) -> dict[str, str]:
    """Istio's `/ns/NAMESPACE/sa/WORKLOAD`; of any other ID the last segment is the workload."""
    parts = identity.path.split("/")
    in_istio = len(parts) == 5 and (parts[1], parts[3]) == ("ns", "sa")
    namespace = parts[2] if in_istio else UNKNOWN
    return {"workload": parts[-1] or UNKNOWN, "namespace": namespace, "trust_domain": identity.trust_domain}


def remaining(state: State, now: Now) -> float:
    """Seconds that are left of an open lease, told no finer than LEASE_STEP."""
    if not state.open or state.lease is None:
        return 0.0
    left = min(state.lease.boot_end - now.boot, state.lease.wall_end - now.wall)
    return max(0.0, left // metrics.LEASE_STEP * metrics.LEASE_STEP)


def coarse(age: float) -> float:
    """The first of AGE_BOUNDS that is not below it."""
    return next((bound for bound in metrics.AGE_BOUNDS if age <= bound), inf)


def _phases(state: State) -> Iterator[tuple[Labels, float]]:
    """What rests on a break-glass order or a warning, or is held, is not counted as fresh."""
    present = metrics.EXCEPTED if state.excepted else metrics.WARNED if state.warned else state.phase.value
    for named in (*Phase, metrics.WARNED, metrics.EXCEPTED):
        yield (str(named), state.rules.mode.value), float(named == present)


def _ages(observations: Observations) -> Iterator[tuple[Labels, float]]:
    now = clock.now().boot
    for layer, began in observations.began().items():
        yield (layer.value,), coarse(now - began)


def call_rates(observations: Observations) -> Iterator[tuple[Labels, float]]:
    """As of the latest measurement of calls; nothing where there is none."""
    tally = observations.tally()
    if tally is not None:
        for name, rate in (("average", tally.rate), ("busiest", tally.peak), ("told", tally.events)):
            yield (name,), float(amount(rate))


def calls_outside(observations: Observations) -> Iterator[tuple[Labels, float]]:
    """Likewise."""
    tally = observations.tally()
    if tally is not None:
        yield (), float(len(tally.offences) + tally.more)
