"""What the alerts of somebody else's detectors come to, and whether those that policy requires are heard.

An alert is an event: no evidence shows it again. That a detector is not heard is both, and judged alike.
"""

from __future__ import annotations

from attestation.coverage import DETECTORS, Coverage
from attestation.detectors.alerts import Detector
from attestation.facts import AlertFact, CollectorFact, CollectorState
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.violation import Violation
from policies.appraise import allowing
from policies.appraise.reasons import Finding
from policies.model.places import rule
from policies.model.policy import AttestationPolicy

_HEARD = "Look whether it runs, and whether what relays it (`proofbeat detector feed`) is let in at `detectors.socket`."


def alerted(fact: AlertFact, policy: AttestationPolicy) -> Violation | None:
    """What policy makes of it; None where that is nothing but a line in the log."""
    rules, alert = policy.spec.detectors, fact.alert
    found = rules.class_of(alert)
    if found is None or (not fact.named and rules.unnamed == "observe"):
        return None
    whose = "" if fact.named else "; it names nobody, and policy takes it for this workload's"
    return Violation(
        Signal.DETECTOR_ALERT,
        found,
        Layer.ATTESTER,
        alert.executable or alert.rule,
        f"{alert.told}{whose}",
        fact.at,
        rule(policy, "detectors.alerts"),
        "Find out what it saw. An alert leaves no state behind that a measurement could show.",
        fact.process,
        allowing.alert(alert, policy),
        f"{alert.detector}: {alert.rule}",
    )


def silent(fact: CollectorFact, policy: AttestationPolicy) -> Violation | None:
    """Of a collector that is a detector."""
    detector = detector_of(fact.collector)
    if detector is None or fact.state is CollectorState.RUNNING or not policy.spec.detectors.requires(detector):
        return None
    finding = _unheard(detector, f"it is {fact.state}{': ' + fact.detail if fact.detail else ''}", policy)
    return Violation(
        finding.kind,
        finding.finding_class,
        finding.layer,
        finding.subject,
        finding.text,
        fact.at,
        finding.rule,
        finding.mend,
        allow=finding.allow,
        found=finding.found,
    )


def unheard(coverage: Coverage, policy: AttestationPolicy) -> list[Finding]:
    """The detectors that policy requires, of which evidence does not say that they are heard."""
    told = {each.name: each for each in coverage.collectors}
    found = []
    for detector in policy.spec.detectors.sources:
        collector = told.get(name_of(detector))
        if policy.spec.detectors.requires(detector) and (collector is None or not collector.running):
            why = f": {collector.detail}" if collector is not None and collector.detail else ""
            found.append(_unheard(detector, f"it is not heard{why}", policy))
    return found


def name_of(detector: Detector) -> str:
    """Of a detector, as coverage and facts call it."""
    return f"{DETECTORS}{detector}"


def detector_of(collector: str) -> Detector | None:
    """`name_of` reversed; None for what is no detector."""
    return next((each for each in Detector if name_of(each) == collector), None)


def _unheard(detector: Detector, found: str, policy: AttestationPolicy) -> Finding:
    return Finding(
        Signal.DETECTOR_SILENT,
        policy.spec.violation_class(Signal.DETECTOR_SILENT),
        Layer.ATTESTER,
        name_of(detector),
        f"{detector} is required",
        found,
        rule(policy, "detectors.sources", detector),
        _HEARD,
        allowing.unheard(detector, policy),
    )
