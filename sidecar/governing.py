"""The signed policy document, opened: what rules this workload, and what that means for measuring and closing."""

from __future__ import annotations

import json
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from attestation import results
from attestation.channel import Calls, Fence, Scope
from attestation.coverage import Coverage
from attestation.errors import MalformedResult
from attestation.layers import Layer
from attestation.spiffe import SpiffeId
from policies.model.classes import unread
from policies.model.policy import AttestationPolicy, Demand, EffectivePolicy, Mode, PolicySpec
from policies.model.references import EffectiveReferences
from policies.model.registration import WorkloadRegistration
from sidecar.config import WorkloadSettings
from sidecar.states import Flaps, Rules
from wire.versions import CALLS, CAPABILITY_USES, FILE_CAPABILITIES, NOTIFICATIONS, OURS, Version

MEASURED = (Layer.FILES, Layer.PROCESSES, Layer.SYSCALLS, Layer.PROXY, Layer.MEMORY)
"""The layers that this sidecar can measure. Others are named absent in the evidence."""

_WHERE = "signed policy"
_KEPT = "What was in force stays in force."


@dataclass(frozen=True, slots=True)
class Governed:
    """Policy and references of one epoch, for one registration."""

    epoch: int
    policy: AttestationPolicy
    references: EffectiveReferences
    registration: WorkloadRegistration

    @property
    def rules(self) -> Rules:
        spec = self.policy.spec
        recovery, limit = spec.recovery, spec.recovery.flaps
        return Rules(
            spec.mode,
            recovery.drift,
            recovery.tamper,
            recovery.minimum_closed,
            Flaps(limit.count, limit.within) if limit.count is not None else None,
            spec.warnings == "serve",
            spec.holds,
            spec.escalate_after,
        )

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What is measured: all that policy asks for and we can."""
        return tuple(layer for layer in MEASURED if self.policy.spec.demand(layer) is not Demand.OFF)

    def scope(self, local: WorkloadSettings, version: Version) -> Scope:
        """What the measurer is told of it. local: what is measured besides. version: of the wire."""
        spec = self.policy.spec
        return Scope(
            local.pid,
            tuple(dict.fromkeys((*spec.files.include, *local.files.include))),
            unread(spec.files),
            local.cgroup,
            spec.deadman,
            immutable=spec.files.immutable,
            reread=spec.files.reread,
            capabilities=version.minor >= FILE_CAPABILITIES,
            egress=spec.egress.allowed,
            egress_every=spec.egress.every,
            fence=fence(spec),
            memory=0.0 if spec.demand(Layer.MEMORY) is Demand.OFF else spec.memory.period,
            calls=watched_calls(self, version) if Layer.SYSCALLS in self.told(version) else None,
        )

    def told(self, version: Version) -> tuple[Layer, ...]:
        """Those of the layers that an authority of this version can read."""
        return tuple(each for each in self.layers if each is not Layer.SYSCALLS or version.minor >= CALLS)

    @property
    def proxy_first(self) -> bool:
        """Whether an Envoy gets the identity only when it was attested itself."""
        spec = self.policy.spec
        return spec.mode is Mode.ENFORCE and spec.demand(Layer.PROXY) is Demand.REQUIRED

    @property
    def required(self) -> tuple[Layer, ...]:
        return tuple(layer for layer in MEASURED if self.policy.spec.demand(layer) is Demand.REQUIRED)


def fence(spec: PolicySpec) -> Fence:
    """What is to stand around what the workload connects to."""
    if spec.denies is not Demand.OFF:
        return Fence.LISTED
    return Fence.NONE if spec.fence is Demand.OFF else Fence.READY


def watched_calls(governed: Governed, version: Version = OURS.highest) -> Calls | None:
    """None where policy does not ask for the layer. version: of the wire."""
    if Layer.SYSCALLS not in governed.layers:
        return None
    rules = governed.policy.spec.syscalls
    kill = rules.kill_outside and governed.policy.spec.mode is Mode.ENFORCE
    allowed = tuple(sorted(governed.references.spec.calls))
    capabilities = rules.capabilities if version.minor >= CAPABILITY_USES else None
    notified = governed.policy.spec.notified is not Demand.OFF and version.minor >= NOTIFICATIONS
    refuse = governed.policy.spec.refuses
    return Calls(rules.watching, allowed, kill, notified, refuse, rules.window, rules.period, capabilities)


def unmeasurable(coverage: Coverage) -> frozenset[Layer]:
    """Layers whose collector says that it cannot run here. Without those of files and processes there is no round."""
    stopped = {layer for layer, runs in coverage.weakest.items() if not runs}
    return frozenset(stopped - {Layer.FILES, Layer.PROCESSES, Layer.PROXY})


def read_governing(
    document: str, key: ec.EllipticCurvePublicKey, identity: SpiffeId, known: Governed | None
) -> Governed:
    """The document's content. known: what is in force, which stays so whenever this raises.

    Raises MalformedResult for a foreign signature, anything not understood, another identity's policy, a lower epoch,
    or the same epoch with other content.
    """
    governed = _parsed(results.open_signed(document, key))
    registered = governed.registration.spec.spiffe_id
    if registered != str(identity):
        raise MalformedResult(f"the policy of {registered}, where this is {identity}", where=_WHERE, mend=_KEPT)
    if known is not None and governed.epoch < known.epoch:
        raise MalformedResult(
            f"policy epoch {governed.epoch} after {known.epoch}",
            where=_WHERE,
            mend="Epochs only rise: a roll-back of policy is a new epoch.",
        )
    if known is not None and governed.epoch == known.epoch and governed != known:
        raise MalformedResult(f"another policy under the same epoch {known.epoch}", where=_WHERE, mend=_KEPT)
    return governed


def _parsed(payload: bytes) -> Governed:
    """What it says: strictly, for what is not understood may be what matters."""
    try:
        fields = json.loads(payload)
        if fields.keys() != {"epoch", "policy", "references", "registration"} or type(fields["epoch"]) is not int:
            raise ValueError(f"it has the parts {', '.join(sorted(map(str, fields)))}")
        policy = EffectivePolicy.model_validate_json(json.dumps(fields["policy"]))
        references = EffectiveReferences.model_validate_json(json.dumps(fields["references"]))
        registration = WorkloadRegistration.model_validate_json(json.dumps(fields["registration"]))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, (error.title, *fault["loc"])))
        raise _not_understood(f"{place}: {fault['msg']}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _not_understood(str(error)) from error
    return Governed(fields["epoch"], policy, references, registration)


def _not_understood(why: str) -> MalformedResult:
    return MalformedResult(
        f"a policy document that this sidecar does not understand: {why}",
        where=_WHERE,
        mend=f"{_KEPT} Update this sidecar, or write the policy as it knows it.",
    )
