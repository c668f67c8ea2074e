"""AttestationPolicy: what must be measured, how fresh it must be, and what happens when it is not."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from attestation.coverage import Cutting, Grade, Guarantee
from attestation.layers import Layer
from policies.model.dialect import Duration, Strict

API_VERSION: Literal["proofbeat.dev/v1alpha1"] = "proofbeat.dev/v1alpha1"


class Mode(StrEnum):
    """observe: measure, somebody else's identity stays. audit: issue, record every would-have. enforce: close."""

    OBSERVE = "observe"
    AUDIT = "audit"
    ENFORCE = "enforce"


class Demand(StrEnum):
    REQUIRED = "required"
    BEST_EFFORT = "best-effort"
    OFF = "off"


class Recovery(StrEnum):
    """auto: an affirming full measurement taken after the cause. replace: a new instance, or a signed release."""

    AUTO = "auto"
    REPLACE = "replace"


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    namespace: str = "default"


class LayerDemand(Strict):
    """max_age: seconds since the layer was last measured; full_max_age: since it was last read in full."""

    demand: Demand = Demand.REQUIRED
    max_age: Duration = 60.0
    full_max_age: Duration = 3600.0


class FileRules(Strict):
    """include: absolute paths measured. volatile: glob patterns whose content is not measured."""

    include: tuple[str, ...] = ()
    volatile: tuple[str, ...] = ()


class ProcessRules(Strict):
    """capabilities: names no process may exceed; None leaves them unjudged."""

    forbid_deleted: bool = True
    require_no_new_privileges: bool = False
    most_capabilities: str | None = Field(default=None, pattern=r"^[0-9a-f]{1,16}$")


class ProxyRules(Strict):
    """What the Envoy that holds the key must be, where the layer `proxy` is measured.

    require_referenced: its executable is among the reference values. require_no_tracer: nobody is attached to it.
    require_drain_now: a listener that is taken away cuts its connections (`--drain-time-s 0`). require_deny_filters:
    it has accepted filters of ours that can deny. require_resumption_off: no TLS session is resumed; only known where
    its listeners are ours (`delivery.mode: xds`).
    """

    require_referenced: bool = True
    require_no_tracer: bool = True
    require_drain_now: bool = False
    require_deny_filters: bool = False
    require_resumption_off: bool = False


class CoverageDemand(Strict):
    """The least that the watchers themselves must be. weakest values accepted, best first in each enum.

    isolation: what must be guaranteed against the workload, all of it.
    """

    grade: Grade = Grade.BOUNDED_NEW_CONNECTIONS_ONLY
    cutting: Cutting = Cutting.CAPPED
    isolation: tuple[Guarantee, ...] = ()


class RecoveryRules(Strict):
    drift: Recovery = Recovery.AUTO
    tamper: Recovery = Recovery.REPLACE


class PolicySpec(Strict):
    """Durations in seconds. interval: between rounds. freshness: of a lease, from the nonce's issue.

    deadman: how long Envoy may stay open without a sign of life. escalate_after: how long it may take to acknowledge
    a closing before it is asked to quit, or killed.

    connections: `cut` ends what is open with every closing. `drain` lets it go on after drift, for the dead-man time
    or what is left of the lease, whichever is shorter; nothing new begins meanwhile, and what has not ended by then
    is cut. After anything but drift all is cut at once, whatever this says.
    """

    mode: Mode = Mode.OBSERVE
    interval: Duration = 30.0
    freshness: Duration = 300.0
    deadman: Duration = 5.0
    escalate_after: Duration = 0.25
    connections: Literal["cut", "drain"] = "cut"
    layers: dict[Layer, LayerDemand] = Field(
        default_factory=lambda: {Layer.FILES: LayerDemand(), Layer.PROCESSES: LayerDemand()}
    )
    files: FileRules = FileRules()
    processes: ProcessRules = ProcessRules()
    proxy: ProxyRules = Field(default=ProxyRules(), exclude_if=lambda rules: rules == ProxyRules())
    """Not written where it says nothing new, so that a sidecar which does not know it reads such a policy, too."""
    coverage: CoverageDemand = CoverageDemand()
    recovery: RecoveryRules = RecoveryRules()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.interval * 2 > self.freshness:
            raise ValueError("freshness must be at least twice the interval, or one lost round closes traffic")
        if self.deadman < 0.5:
            raise ValueError("a dead-man time below 500ms trips on a busy machine")
        if any(not path.startswith("/") for path in self.files.include):
            raise ValueError("files.include takes absolute paths, as the workload sees them")
        return self

    def demand(self, layer: Layer) -> Demand:
        """What this policy asks of a layer; a layer it does not name is off."""
        found = self.layers.get(layer)
        return found.demand if found else Demand.OFF


class AttestationPolicy(Strict):
    api_version: Literal["proofbeat.dev/v1alpha1"] = API_VERSION
    kind: Literal["AttestationPolicy"] = "AttestationPolicy"
    metadata: Metadata
    spec: PolicySpec = PolicySpec()
