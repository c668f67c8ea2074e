"""Every metric that a program of ours exposes: name, type, unit, labels with all their values, and what it says.

A label's values are a closed set. Whatever else a workload, an Envoy or an authority makes us meet is counted as
`other`, so that nobody outside can make a series. docs/metrics.md is made from this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attestation.containment import Containment
from attestation.detectors.alerts import Detector
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import Tier
from attestation.violation import ViolationClass

OTHER = "other"

SIDECAR, AUTHORITY = "sidecar", "authority"
BOTH = (SIDECAR, AUTHORITY)


class Type(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Label:
    """values: all that it takes, besides OTHER."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """Equal only to itself: a declaration, and a cheap key.

    unit: as in UCUM, which OTLP asks for. bounds: a histogram's upper bounds, in the unit.
    """

    name: str
    type: Type
    unit: str
    help: str
    programs: tuple[str, ...]
    labels: tuple[Label, ...] = ()
    bounds: tuple[float, ...] = ()

    def labelled(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The values, each one that is not known replaced."""
        pairs = zip(self.labels, values, strict=True)
        return tuple(value if value in label.values else OTHER for label, value in pairs)


SUBJECT = ("workload", "namespace", "trust_domain")
"""Labels on every series, as Istio names them: whose sidecar this is. The authority has only the trust domain."""

AGE_BOUNDS = (10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds that a measurement's age is rounded up to. An exact age would tell an attacker when to strike."""
LEASE_STEP = 5.0
"""Seconds that what is left of a lease is rounded down to a multiple of, for the same reason."""

_STAGE_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

ATTESTING = ("nonce", "measured", "signed", "answered", "served")
"""A round's stages at the sidecar, each named by what is done at its end."""
APPRAISING = ("verified", "appraised", "accepted", "issued")
"""The same round's stages at the authority."""
CLOSING = ("written", "acknowledged", "swept", "quit", "killed", "ended", "verified")
"""A closing's rungs, each counted from its beginning; `quit`, `killed` and `ended` are Envoy's and rare."""
TOTAL = "total"
CONTAINED = ("done", "partly", "refused")
BUNDLED = ("kept", "cut", "failed")

TIERS = tuple(tier.label for tier in Tier)
FAILURES = ("refused", "unavailable", "malformed")
VIOLATIONS = tuple(Signal)
COLLECTORS = (
    *("files", "processes.executions", "processes.rights", "processes.gate", "processes.fence"),
    *("syscalls", "memory", "proxy"),
)
ALERTS = ("ours", "others", "unnamed", "old", "repeated", "malformed", "dropped", "told", "nobodys")
"""What a detector's alert comes to: the last two at the authority, which tells those whom it may be about."""

EXCEPTED, WARNED = "break-glass", "warning"
"""States of an identity that is open and was not affirmed: by an order, or by a result that policy serves."""

LEASE_REMAINING = Metric(
    "proofbeat_lease_remaining_seconds",
    Type.GAUGE,
    "s",
    f"What is left of the lease, rounded down to a multiple of {LEASE_STEP:g}; 0 while closed.",
    (SIDECAR,),
)
IDENTITY_STATE = Metric(
    "proofbeat_identity_state",
    Type.GAUGE,
    "1",
    "1 for the state that the identity is in, 0 for the others. Only `fresh` in mode `enforce` is attested.",
    (SIDECAR,),
    (
        Label("state", ("unattested", "fresh", "stale", "quarantined", "ended", WARNED, EXCEPTED)),
        Label("mode", ("observe", "audit", "enforce")),
    ),
)
ROUNDS = Metric(
    "proofbeat_rounds_total",
    Type.COUNTER,
    "1",
    "Rounds by what they came to: the tier of the result, or why there is none.",
    BOTH,
    (Label("result", (*TIERS, *FAILURES)),),
)
ROUND_SECONDS = Metric(
    "proofbeat_round_seconds",
    Type.HISTOGRAM,
    "s",
    "Time spent in each stage of a round.",
    BOTH,
    (Label("stage", (*ATTESTING, *APPRAISING, TOTAL)),),
    _STAGE_BOUNDS,
)
MEASUREMENT_AGE = Metric(
    "proofbeat_measurement_age_seconds",
    Type.GAUGE,
    "s",
    f"Age of the latest measurement, rounded up to one of {', '.join(f'{each:g}' for each in AGE_BOUNDS)}, or +Inf.",
    (SIDECAR,),
    (Label("layer", tuple(Layer)),),
)
EVENTS_LOST = Metric(
    "proofbeat_events_lost_total",
    Type.COUNTER,
    "1",
    "Times that a collector lost events; each closes, and everything is measured again.",
    (SIDECAR,),
    (Label("collector", COLLECTORS),),
)
CALL_RATE = Metric(
    "proofbeat_system_calls_per_second",
    Type.GAUGE,
    "1/s",
    "System calls of the workload a second, rounded up to a power of two: on average between the two latest"
    " measurements, in the busiest second, and what of it the kernel told.",
    (SIDECAR,),
    (Label("of", ("average", "busiest", "told")),),
)
CALLS_OUTSIDE = Metric(
    "proofbeat_system_calls_outside",
    Type.GAUGE,
    "1",
    "Names of system calls outside of the baseline that the workload has made since it is watched.",
    (SIDECAR,),
)
VIOLATIONS_SEEN = Metric(
    "proofbeat_violations_total",
    Type.COUNTER,
    "1",
    "Violations found in this instance.",
    (SIDECAR,),
    (Label("kind", VIOLATIONS), Label("class", tuple(ViolationClass))),
)
DETECTOR_ALERTS = Metric(
    "proofbeat_detector_alerts_total",
    Type.COUNTER,
    "1",
    "Alerts of somebody else's detectors, by whether they are about this workload, or why nobody looked at them.",
    BOTH,
    (Label("detector", tuple(Detector)), Label("outcome", ALERTS)),
)
CLOSE_SECONDS = Metric(
    "proofbeat_close_seconds",
    Type.HISTOGRAM,
    "s",
    "Time from a closing's beginning to the end of each step.",
    (SIDECAR,),
    (Label("step", CLOSING),),
    _STAGE_BOUNDS,
)
CONTAIN_SECONDS = Metric(
    "proofbeat_contain_seconds",
    Type.HISTOGRAM,
    "s",
    "Time from the order that the workload be frozen, let go (`none`) or killed to its end, by what came of it.",
    (SIDECAR,),
    (Label("how", tuple(Containment)), Label("outcome", CONTAINED)),
    _STAGE_BOUNDS,
)
FORENSICS = Metric(
    "proofbeat_forensic_bundles_total",
    Type.COUNTER,
    "1",
    "Forensic bundles: kept, kept without all that could have been seen (`cut`), or failed.",
    (SIDECAR,),
    (Label("outcome", BUNDLED),),
)
XDS_PUSHES = Metric("proofbeat_xds_pushes_total", Type.COUNTER, "1", "Snapshots published to Envoy.", (SIDECAR,))
XDS_REJECTIONS = Metric(
    "proofbeat_xds_rejections_total", Type.COUNTER, "1", "Responses that Envoy rejected.", (SIDECAR,)
)
APPRAISALS = Metric(
    "proofbeat_appraisals_total",
    Type.COUNTER,
    "1",
    "Appraisals by tier, those from the cache included.",
    (AUTHORITY,),
    (Label("tier", TIERS),),
)
APPRAISAL_CACHE = Metric(
    "proofbeat_appraisal_cache_total",
    Type.COUNTER,
    "1",
    "Look-ups of an appraisal made before, by what they found.",
    (AUTHORITY,),
    (Label("outcome", ("hit", "miss")),),
)
ISSUED = Metric("proofbeat_issued_total", Type.COUNTER, "1", "Certificates issued.", (AUTHORITY,))
SESSIONS = Metric("proofbeat_sessions", Type.GAUGE, "1", "Sidecars with an open session.", (AUTHORITY,))
BREAK_GLASS = Metric(
    "proofbeat_breakglass_active",
    Type.GAUGE,
    "1",
    "Break-glass orders in force: of the sidecar, 1 while what is open rests on one; of the authority, how many.",
    BOTH,
)
POLICY_FAULTS = Metric(
    "proofbeat_policy_faults",
    Type.GAUGE,
    "1",
    "What is wrong with policy documents of single namespaces: whom each concerns gets no identity.",
    (AUTHORITY,),
)
HELD = Metric(
    "proofbeat_held",
    Type.GAUGE,
    "1",
    "What stays open in spite of drift (`maxUnavailable`): of the sidecar, 1 while it does; of the authority, how many "
    "instances, each once for each drift.",
    BOTH,
)
DROPPED = Metric(
    "proofbeat_telemetry_dropped_total",
    Type.COUNTER,
    "1",
    "What telemetry gave up so as not to wait: traces that found no room, exports and scrapes that failed.",
    BOTH,
    (Label("what", ("trace", "export", "scrape")),),
)

METRICS = (
    LEASE_REMAINING,
    IDENTITY_STATE,
    ROUNDS,
    ROUND_SECONDS,
    MEASUREMENT_AGE,
    EVENTS_LOST,
    CALL_RATE,
    CALLS_OUTSIDE,
    VIOLATIONS_SEEN,
    DETECTOR_ALERTS,
    CLOSE_SECONDS,
    CONTAIN_SECONDS,
    FORENSICS,
    XDS_PUSHES,
    XDS_REJECTIONS,
    APPRAISALS,
    APPRAISAL_CACHE,
    ISSUED,
    SESSIONS,
    BREAK_GLASS,
    POLICY_FAULTS,
    HELD,
    DROPPED,
)


class Trace(StrEnum):
    """The root span of each trace; a child is named after the stage it ends with: `proofbeat.round.signed`."""

    ROUND = "proofbeat.round"
    APPRAISAL = "proofbeat.appraisal"
    CLOSING = "proofbeat.closing"
