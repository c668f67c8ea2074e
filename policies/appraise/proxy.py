"""The checks of the Envoy that is given the key: the same ones for the sidecar's facts and the verifier's claims.

But for the certificate that it serves: which are its own, the verifier alone knows.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from attestation.digests import Digest
from attestation.layers import Layer
from attestation.proxy import Denial, Known, Proxy
from attestation.signals import Signal
from attestation.violation import ViolationClass
from policies.appraise import allowing
from policies.appraise.reasons import Finding
from policies.model.places import rule
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues

SUBJECT = "Envoy"


@dataclass(frozen=True, slots=True)
class _Question:
    """What one rule of `spec.proxy` asks. kind, otherwise: what it is called, and said to be, where that is not so."""

    field: str
    kind: Signal
    expected: str
    otherwise: str
    mend: str

    def finding(self, answer: Known, policy: AttestationPolicy) -> Finding | None:
        """What nobody can answer is put right by other means than what is answered wrongly: it is never tamper."""
        if answer is Known.YES:
            return None
        unknown = answer is Known.UNKNOWN
        kind = Signal.PROXY_UNKNOWN if unknown else self.kind
        return Finding(
            kind,
            policy.spec.violation_class(kind),
            Layer.PROXY,
            SUBJECT,
            self.expected,
            "it cannot be found out" if unknown else self.otherwise,
            rule(policy, f"proxy.{self.field}"),
            self.mend,
            allowing.proxy_rule(self.field, policy),
        )


_LOOK = "`proofbeat doctor` says what the measurer needs to look into Envoy."
_READ = _Question("requireReferenced", Signal.PROXY_UNKNOWN, "its executable must be referenced", "", _LOOK)
_ALONE = _Question(
    "requireNoTracer",
    Signal.PROXY_TRACED,
    "nobody may be attached to it",
    "somebody is",
    "Start a new instance, with an Envoy that nobody is attached to.",
)
_DENIES = _Question(
    "requireDenyFilters",
    Signal.PROXY_UNDENIED,
    "filters that can deny must be in force",
    "it did not ask for one, or refused it",
    "Give Envoy's listeners the filters that docs/hardening.md names, and start it again.",
)
_CUTS = _Question(
    "requireDrainNow",
    Signal.PROXY_DRAINING,
    "it must be started with --drain-time-s 0",
    "it was not",
    "Start Envoy again with --drain-time-s 0.",
)
_FORGETS = _Question(
    "requireResumptionOff",
    Signal.PROXY_RESUMING,
    "no TLS session may be resumed",
    "one may be",
    "Have everything delivered to Envoy (`delivery.mode: xds`): only then is it known.",
)


def check_proxy(proxy: Proxy, policy: AttestationPolicy, references: ReferenceValues) -> list[Finding]:
    """Everything about it that is not as policy asks, the gravest first. What is not known is not good enough."""
    rules, process = policy.spec.proxy, proxy.process
    found = [
        _executable(process.executable, policy, references) if rules.require_referenced else None,
        _ALONE.finding(_opposite(process.traced), policy) if rules.require_no_tracer else None,
        _DENIES.finding(_can_deny(proxy.denial), policy) if rules.require_deny_filters else None,
        _CUTS.finding(process.drains_at_once, policy) if rules.require_drain_now else None,
        _FORGETS.finding(proxy.resumption_off, policy) if rules.require_resumption_off else None,
    ]
    findings = [each for each in found if each is not None]
    return sorted(findings, key=lambda each: each.finding_class is not ViolationClass.TAMPER)


def check_served(served: int | None, issued: Collection[int], policy: AttestationPolicy) -> list[Finding]:
    """A certificate that this instance was not given. served: a serial number, None where none is served.

    Drift, unless policy says otherwise: as soon as Envoy serves what it is given, nothing of the other is left.
    """
    if served is None or served in issued:
        return []
    return [
        Finding(
            Signal.PROXY_CERTIFICATE,
            policy.spec.violation_class(Signal.PROXY_CERTIFICATE),
            Layer.PROXY,
            SUBJECT,
            "this instance was issued no such one",
            f"it serves a certificate with the serial number {served:x}",
            rule(policy, "layers", Layer.PROXY),
            "Look for what else gives Envoy certificates, and have it take them from the key socket alone.",
        )
    ]


def nobody_seated(policy: AttestationPolicy) -> Finding:
    """The layer is required and nobody holds the key.

    No deadlock: Envoy takes the seat without a certificate, before the first lease as well, and is measured there.
    """
    return Finding(
        Signal.PROXY_ABSENT,
        policy.spec.violation_class(Signal.PROXY_ABSENT),
        Layer.PROXY,
        SUBJECT,
        "one must hold the key socket to be attested",
        "none does",
        rule(policy, "layers", Layer.PROXY),
        "Start Envoy: it needs no certificate to be measured.",
        allowing.unmeasured(Layer.PROXY, policy),
    )


def _executable(digest: Digest, policy: AttestationPolicy, references: ReferenceValues) -> Finding | None:
    if not digest:
        return _READ.finding(Known.UNKNOWN, policy)
    known = references.spec.proxies
    if any(digest in digests for digests in known.values()):
        return None
    return Finding(
        Signal.PROXY_FOREIGN,
        policy.spec.violation_class(Signal.PROXY_FOREIGN),
        Layer.PROXY,
        SUBJECT,
        f"only {' or '.join(sorted(known))} is referenced" if known else "no reference value allows it",
        f"it runs sha256:{digest[:12]}",
        rule(references, "proxies"),
        "Start a new instance with an Envoy that is referenced; if this one is meant, allow it first.",
        allowing.proxy(digest, references),
    )


def _opposite(answer: Known) -> Known:
    return {Known.YES: Known.NO, Known.NO: Known.YES, Known.UNKNOWN: Known.UNKNOWN}[answer]


def _can_deny(denial: Denial) -> Known:
    """What has nothing to let in yet needs nothing that denies."""
    return Known.NO if denial is Denial.MISSING else Known.YES
