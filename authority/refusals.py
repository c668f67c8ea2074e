"""What a round is told when the store does not let it count."""

from __future__ import annotations

from attestation.errors import Refused
from attestation.instance import InstanceId
from authority.store.records import Lapsed
from wire.problems import Kind

_MEND_QUARANTINE = "Start a new instance, or have an operator release this one."
_MEND_NONCE = "Ask for a new nonce and attest again."


def quarantined(instance: InstanceId, *, cloned: bool) -> Refused:
    if cloned:
        what = "this nonce was answered before with other evidence: two attesters share one key"
        return Refused(what, kind=Kind.EVIDENCE_CLONED, where=str(instance), mend=_MEND_QUARANTINE)
    return Refused(
        "the instance is quarantined", kind=Kind.INSTANCE_QUARANTINED, where=str(instance), mend=_MEND_QUARANTINE
    )


def lapsed(instance: InstanceId, why: Lapsed) -> Refused:
    if why.key_replaced:
        what = "the instance has enrolled another key since"
        return Refused(what, kind=Kind.EVIDENCE_KEY, where=str(instance), mend="Enrol again.")
    if why.full_required:
        what, kind = "every layer has to be read in full first", Kind.FULL_ROUND_REQUIRED
    elif why.generation_past:
        what, kind = "a violation was reported after this generation", Kind.GENERATION_PAST
    elif why.exception_over:
        what, kind = "the break-glass order that would have let it through has ended", Kind.BREAK_GLASS_VOID
    elif why.hold_over:
        what, kind = "what was held back closes meanwhile", Kind.HOLD_OVER
    else:
        what, kind = "a later nonce has been answered already", Kind.NONCE_PASSED
    return Refused(what, kind=kind, where=str(instance), mend=_MEND_NONCE)
