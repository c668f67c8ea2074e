"""What is to be done to the workload itself, by what was found of it and by policy. Pure.

Only what was found of the workload counts: that Envoy is foreign, or that a watcher has died, closes traffic and says
nothing against the workload's processes. Nothing is contained while traffic may flow, nor where policy does not
enforce. What is frozen stays so until traffic is opened again, or policy asks for it no more: a sidecar that was
started anew and knows of no cause lets nothing go.
"""

from __future__ import annotations

from attestation.containment import Containment
from attestation.signals import Signal
from attestation.violation import Violation, ViolationClass
from policies.model.policy import ContainmentRules, Mode
from sidecar.states import Phase, State

_SAYS_NOTHING_OF_IT = frozenset(
    {
        Signal.PROXY_FOREIGN,
        Signal.PROXY_TRACED,
        Signal.PROXY_UNDENIED,
        Signal.PROXY_DRAINING,
        Signal.PROXY_RESUMING,
        Signal.PROXY_CERTIFICATE,
        Signal.PROXY_UNKNOWN,
        Signal.PROXY_ABSENT,
        Signal.COLLECTOR_OVERFLOWED,
        Signal.COLLECTOR_DEAD,
        Signal.MEASURER_LOST,
        Signal.DETECTOR_SILENT,
        Signal.FLAPPING,
        Signal.KEY_SOCKET_SECOND_CLIENT,
        Signal.LAYER_ABSENT,
        Signal.LAYER_OLD,
        Signal.COVERAGE_WEAK,
        Signal.REFERENCES_EXPIRED,
        Signal.RULE_ERROR,
    }
)


def class_of(violation: Violation) -> ViolationClass | None:
    """By which of policy's classes the workload is contained for it; None where it says nothing of the workload.

    An appraisal names the signal as its subject. What the authority quarantined for drift is a tamper to whoever has to
    heal it, and drift to the workload.
    """
    told = violation.subject if violation.kind == Signal.CONTRAINDICATED else violation.kind
    if told in _SAYS_NOTHING_OF_IT:
        return None
    return ViolationClass.DRIFT if told == Signal.QUARANTINED_DRIFT else violation.violation_class


def wanted(now: Containment, state: State, rules: ContainmentRules) -> Containment:
    """now: what it is under."""
    if state.rules.mode is not Mode.ENFORCE or state.open:
        return Containment.NONE
    if state.phase is Phase.ENDED:
        return now
    kept = _mildest(now, _gravest(rules.drift, rules.tamper))
    return _gravest(kept, _asked(state, rules))


def _asked(state: State, rules: ContainmentRules) -> Containment:
    if state.phase is not Phase.QUARANTINED:
        return Containment.NONE
    found = (*state.causes, *(each.violation for each in state.sticky))
    classes = {class_of(each) for each in found}
    return _gravest(
        rules.drift if ViolationClass.DRIFT in classes else Containment.NONE,
        rules.tamper if ViolationClass.TAMPER in classes else Containment.NONE,
    )


def _gravest(*several: Containment) -> Containment:
    return max(several, key=lambda each: each.severity)


def _mildest(*several: Containment) -> Containment:
    return min(several, key=lambda each: each.severity)
