"""What the sidecar says of itself: a line of log and a count an event, after whatever the event closes or opens."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attestation.channel import Contained, Pinned
from attestation.containment import Means
from attestation.coverage import FENCE, GATE, NOTIFIED, Coverage
from attestation.detectors.alerts import Detector
from attestation.errors import ProofbeatError
from attestation.facts import AlertFact, CollectorFact, CollectorState
from attestation.forensics import Manifest
from attestation.means import Trial
from attestation.plain import plain
from attestation.violation import Violation
from sidecar import clock
from sidecar.attester import Outcome
from sidecar.delivery.severing import Cut
from sidecar.delivery.told import Happening, Told
from sidecar.metering import Metering
from sidecar.states import Now, State, Waiver
from telemetry.names import Event
from wire.messages import Denials, Enrolment, Report
from xds.acks import Verdict
from xds.peer import Peer

_EVENTS = {
    Happening.DRAINING: Event.DRAINING,
    Happening.CLOSED: Event.CLOSED,
    Happening.BOUNDED: Event.CLOSED,
    Happening.OPENED: Event.OPENED,
    Happening.ESCALATED: Event.ESCALATED,
    Happening.REJECTED: Event.ENVOY_REJECTED,
}

_FENCE = "Coverage says why no fence stands: look at `processes.fence`, and docs/profiles.md at `egress-denial`."
_APART = "Give the workload a cgroup of its own, without sidecar, measurer and Envoy, and name it in `workload.cgroup`."


class Telling:
    """log: a structured logger."""

    def __init__(self, log: Any, metering: Metering) -> None:
        self._log = log
        self._metering = metering

    def started(self, pinned: Pinned, measurer: int) -> None:
        self._metering.started(pinned.instance)
        self._log.info(Event.STARTED, instance=str(pinned.instance), pid=os.getpid(), measurer=measurer)

    def enrolment_waits(self, why: str, pause: float) -> None:
        self._log.warning(Event.ENROLMENT_REFUSED, why=why, again_in=round(pause, 2))

    def enrolled(self, enrolment: Enrolment) -> None:
        self._metering.enrolled(enrolment.spiffe_id)
        self._log.info(Event.ENROLLED, spiffe_id=enrolment.spiffe_id, policy_epoch=enrolment.policy_epoch)

    def covered(self, coverage: Coverage, tried: tuple[Trial, ...]) -> None:
        self._metering.covered(coverage)
        self._log.info(
            Event.COVERAGE,
            profile=coverage.profile,
            refused={each.means.value: each.refusal for each in tried if each.refusal},
            grade=coverage.grade,
            cutting=coverage.cutting,
            isolation=plain(coverage.isolation),
            collectors=[each.name for each in coverage.collectors if each.running],
            stopped={each.name: each.detail for each in coverage.collectors if not each.running},
            **_force("gate", GATE, coverage),
            **_force("fence", FENCE, coverage),
            **_force("notified", NOTIFIED, coverage),
        )

    def violated(self, violation: Violation, cause: str) -> None:
        """cause: its name, which Envoy tells those it refuses and `proofbeat why` takes."""
        self._metering.violated(violation)
        self._log.warning(
            Event.VIOLATION,
            cause=cause,
            kind=violation.kind,
            violation_class=violation.violation_class,
            subject=violation.subject,
            text=violation.text,
            rule=violation.rule,
            mend=violation.mend,
            allow=violation.allow,
            process=None if violation.process is None else asdict(violation.process),
            at=violation.at,
        )

    def alert_counted(self, detector: Detector | None, outcome: str) -> None:
        self._metering.alert(detector, outcome)

    def alert(self, fact: AlertFact) -> None:
        """One that is about this workload, or names nobody; what it closed has its own line."""
        self._log.warning(
            Event.DETECTOR_ALERT,
            alert=fact.alert.told,
            about=plain(fact.alert.about),
            named=fact.named,
            process=None if fact.process is None else asdict(fact.process),
            at=fact.at,
        )

    def detector(self, fact: CollectorFact) -> None:
        """It is heard, or no longer, or missed something."""
        told = self._log.info if fact.state is CollectorState.RUNNING else self._log.warning
        told(Event.DETECTOR, detector=fact.collector, state=fact.state, why=fact.detail, at=fact.at)

    def detector_refused(self, why: str) -> None:
        self._log.error(Event.DETECTOR_REFUSED, why=why, mend="`detectors.allow` says who may bring alerts.")

    def would_have(self, reason: str) -> None:
        self._log.warning(Event.WOULD_HAVE, reason=reason)

    def kept(self, seconds: float) -> None:
        """A result came that opens only after so long."""
        self._log.info(Event.RESULT_KEPT, opens_in=round(seconds, 3))

    def dropped(self, reason: str) -> None:
        self._log.info(Event.RESULT_DROPPED, reason=reason)

    def stepped(self, before: State, after: State, now: Now) -> None:
        """Only a change of phase or generation is worth a line; and each of what it rests on."""
        if (before.phase, before.generation) != (after.phase, after.generation):
            self._log.info(Event.PHASE, phase=after.phase, generation=after.generation, at=now.boot)
        if before.waiver != after.waiver:
            self._exception_changed(before.waiver, after.waiver)
        if before.held != after.held:
            drifts = sorted(map(str, after.drifts or before.drifts))
            self._log.warning(
                Event.HELD if after.held else Event.HOLD_OVER, drifts=drifts, open=after.open, at=now.boot
            )
        if before.excepted != after.excepted:
            self._log.warning(Event.EXCEPTED, open_by_break_glass=after.excepted, at=now.boot)

    def _exception_changed(self, before: Waiver | None, after: Waiver | None) -> None:
        if after is not None:
            self._log.warning(Event.BREAK_GLASS, order=after.id, ends=after.wall_end)
        elif before is not None:
            self._log.warning(Event.BREAK_GLASS_ENDED, order=before.id)

    def appraised(self, outcome: Outcome) -> None:
        self._metering.appraised(outcome)
        self._log.info(
            Event.ROUND,
            tier=outcome.event.tier.label,
            generation=outcome.event.generation,
            sequence=outcome.event.sequence,
            full=outcome.record.full,
            reasons=list(outcome.result.reasons),
            **outcome.record.stages(),
        )

    def round_failed(self, error: ProofbeatError, again_in: float | None = None) -> None:
        """again_in: seconds until the next try; None where something else must happen first."""
        self._metering.round_failed(error)
        self._log.warning(
            Event.ROUND_FAILED, why=error.sentence, again_in=None if again_in is None else round(again_in, 2)
        )

    def push_failed(self, why: str) -> None:
        """What the authority said unasked could not be used; what was in force stays."""
        self._log.error(Event.PUSH_REFUSED, why=why)

    def addresses_refused(self, why: str) -> None:
        """Peers cannot be told where not to call this instance, should it come to that."""
        self._log.error(Event.ADDRESSES_REFUSED, why=why, mend="Look at `delivery.reachedAt`.")

    def denied(self, told: Denials) -> None:
        """A list of peers to refuse was believed, and is on its way to Envoy."""
        self._log.warning(
            Event.DENIED, version=told.version, peers={str(each.instance): each.cause for each in told.denied}
        )

    def refuses(self, version: int) -> None:
        """Envoy carries out this version."""
        self._log.info(Event.REFUSES, version=version, at=clock.now().boot)

    def severed(self, cut: Cut) -> None:
        """What was open to denied peers has ended, but for what is left."""
        told = self._log.warning if cut.left else self._log.info
        mend = "Give the measurer CAP_NET_ADMIN, or set `healthCheck` on the upstream." if cut.left else ""
        told(Event.SEVERED, addresses=cut.addresses, destroyed=cut.destroyed, left=cut.left, mend=mend)

    def reported(self, report: Report, how: str) -> None:
        self._log.info(Event.REPORTED, generation=report.generation, how=how)

    def delivered(self, told: Told) -> None:
        self._metering.delivered(told)
        self._log.info(
            _EVENTS[told.happening],
            how=told.happening,
            detail=told.detail,
            reason=told.reason,
            destroyed=told.destroyed,
            steps=told.steps,
            at=clock.now().boot,
        )

    def envoy_started(self, pid: int) -> None:
        self._log.info(Event.ENVOY_STARTED, envoy=pid)

    def envoy_ended(self, why: str, again_in: float, *, looping: bool) -> None:
        """again_in: seconds until the next is started. looping: it does not live long enough to be of use."""
        told = self._log.error if looping else self._log.warning
        told(Event.ENVOY_ENDED, why=why, again_in=round(again_in, 2), looping=looping)

    def envoy_admitted(self, peer: Peer, outlives: str) -> None:
        """outlives: as Guarded has it."""
        self._log.info(Event.ENVOY_ADMITTED, envoy=peer.pid, executable=peer.executable, outlives=outlives)

    def envoy_refused(self, reason: str) -> None:
        self._log.error(Event.ENVOY_REFUSED, reason=reason)

    def judged(self, verdict: Verdict) -> None:
        """Envoy's answer to one response; delivery tells what a rejection leads to."""
        self._metering.judged(verdict)

    def key_socket_lost(self, why: str) -> None:
        self._log.error(Event.KEY_SOCKET_LOST, why=why, mend="Find out who may write to its folder; it is ours alone.")

    def containable(self, how: Contained) -> None:
        """By which means the workload will be contained, should it come to that; or why it will not."""
        told = self._log.warning if how.refusal else self._log.info
        told(Event.CONTAINABLE, means=how.means, refusal=how.refusal, mend=_APART if how.refusal else "")

    def contained(self, done: Contained, seconds: float) -> None:
        """seconds: since it was ordered."""
        self._metering.contained(done, seconds)
        whole = not done.left and not done.refusal
        told = self._log.warning if whole else self._log.error
        told(
            Event.CONTAINED,
            how=done.how,
            means=done.means,
            processes=done.processes,
            left=done.left,
            refusal=done.refusal,
            mend=_mend(done),
            seconds=round(seconds, 4),
            at=done.at,
        )

    def containment_forgotten(self, why: str) -> None:
        self._log.error(Event.CONTAINMENT_FORGOTTEN, why=why, mend="Make room in `state`, or let the sidecar write.")

    def bundle_kept(self, where: Path, manifest: Manifest, digest: str) -> None:
        """digest: SHA-256 of the manifest, so that whoever keeps the logs sees whether it was changed later."""
        self._metering.bundled("kept" if manifest.complete else "cut")
        self._log.warning(
            Event.FORENSICS,
            bundle=str(where),
            kind=manifest.kind,
            complete=manifest.complete,
            refusal=manifest.refusal,
            manifest=digest,
        )

    def bundle_failed(self, why: str) -> None:
        self._metering.bundled("failed")
        self._log.error(Event.FORENSICS_FAILED, why=why, mend="Make room in `state`, or let the sidecar write.")

    def measurer_lost(self, reason: str) -> None:
        self._log.error(Event.MEASURER_LOST, reason=reason)

    def uncalled(self, error: ProofbeatError) -> None:
        self._log.warning(Event.MEASURER_LOST, reason=error.sentence)

    def measurer_back(self, pid: int) -> None:
        self._log.info(Event.MEASURER_BACK, measurer=pid)

    def stopped(self) -> None:
        self._log.info(Event.STOPPED)


def _mend(done: Contained) -> str:
    if not done.refusal:
        return ""
    return _FENCE if done.means is Means.FENCE else _APART


def _force(name: str, collector: str, coverage: Coverage) -> dict[str, str]:
    """Of what refuses something, where policy asks for it."""
    told = next((each for each in coverage.collectors if each.name == collector), None)
    if told is None:
        return {}
    force = "in force" if told.running else "not in force"
    return {name: f"{force}: {told.detail}" if told.detail else force}
