"""The verifier's judgement of one set of claims, in numbered steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from attestation import calls, memory, processes, proxy
from attestation.calls import Watching
from attestation.claims import Claims, LayerClaim
from attestation.digests import Digest
from attestation.layers import Layer
from attestation.signals import Signal
from attestation.trust import NO_CLAIM, UNKNOWN, Tier, TrustVector
from attestation.violation import ViolationClass
from policies.appraise import allowing
from policies.appraise.coverage import check_coverage, weak
from policies.appraise.files import Files, check_files
from policies.appraise.layers import MOST_FINDINGS, check_call, check_capability, check_process
from policies.appraise.memory import check_code
from policies.appraise.proxy import check_proxy, check_served, nobody_seated
from policies.appraise.reasons import Finding, Verdict
from policies.appraise.rules import Evaluate, check_rules, evaluate
from policies.appraise.summary import counts_files, summarise
from policies.model.governing import Governing
from policies.model.places import rule
from policies.model.policy import AttestationPolicy, Demand
from policies.model.references import ReferenceValues

APPROVED = int(Tier.AFFIRMING)
STALE = int(Tier.WARNING)
CONTRAINDICATED = int(Tier.CONTRAINDICATED)

JUDGED = (Layer.FILES, Layer.PROCESSES, Layer.SYSCALLS, Layer.PROXY, Layer.MEMORY)
"""The layers for which checks exist. A policy that requires another one cannot be met, and says so."""

_EXECUTED = (Layer.PROCESSES, Layer.SYSCALLS, Layer.MEMORY)
"""The layers of what runs, which one claim is about."""
_NEXT_ROUND = "The sidecar follows the policy in force by its next round."


def appraise(
    claims: Claims,
    bodies: Mapping[Digest, bytes],
    governing: Governing,
    evaluating: Evaluate = evaluate,
    *,
    issued: Collection[int] = (),
    clean: Files | None = None,
) -> Verdict:
    """Judges claims whose signature, nonce and binding already hold.

    bodies: layer digest -> packed layer, for every layer claimed. A body that does not parse is contraindicated.
    evaluating: the policy's rules. issued: serial numbers of this instance's certificates, as far as one of them is
    claimed to be served. Whether the reference values have expired is no part of this: policies/appraise/expiry.py.
    clean: a files layer in which nothing was found under all of this governing. It saves time and changes no verdict.
    """
    policy, references = governing.policy, governing.references
    # 1. Is every layer that policy asks for there, watched, and young enough?
    standing = {layer: _standing(layer, claims, policy) for layer in Layer}
    # 2. Does each layer's content agree with the reference values?
    measured = _judged_files(_claim(claims, Layer.FILES), bodies, policy, clean)
    files = check_files(measured, policy, references) if measured is not None else []
    executables = _processes(_claim(claims, Layer.PROCESSES), bodies, policy, references)
    called = _calls(_claim(claims, Layer.SYSCALLS), bodies, policy, references)
    code = _memory(_claim(claims, Layer.MEMORY), bodies, policy, references)
    envoy, seated = _proxy(claims, bodies, policy, references, issued)
    if not seated and not standing[Layer.PROXY] and policy.spec.demand(Layer.PROXY) is not Demand.OFF:
        standing[Layer.PROXY] = [nobody_seated(policy)]
    # 3. Are the watchers themselves what policy asks for?
    watchers = check_coverage(claims.coverage, policy)
    # 4. Do the policy's rules hold of what all of it shows together?
    ruled = _rules(claims, bodies, governing, evaluating, measured)
    # 5. One vector; every reason named.
    vector = TrustVector(
        instance_identity=APPROVED,
        configuration=_worst(
            _configuration(watchers, standing, policy),
            _value(envoy, standing[Layer.PROXY], policy.spec.demand(Layer.PROXY)),
            _broken(ruled, [layer for layer in Layer if layer not in (Layer.FILES, *_EXECUTED)]),
        ),
        file_system=_worst(
            _value(files, standing[Layer.FILES], policy.spec.demand(Layer.FILES)), _broken(ruled, [Layer.FILES])
        ),
        executables=_worst(
            _value(executables, standing[Layer.PROCESSES], policy.spec.demand(Layer.PROCESSES)),
            _value(called, standing[Layer.SYSCALLS], policy.spec.demand(Layer.SYSCALLS)),
            _value(code, standing[Layer.MEMORY], policy.spec.demand(Layer.MEMORY)),
            _broken(ruled, _EXECUTED),
        ),
    )
    late = [finding for found in standing.values() for finding in found]
    judged = (
        *envoy,
        *_gravest(files),
        *_gravest(executables),
        *_gravest(called),
        *_gravest(code),
        *_gravest(ruled),
    )
    return Verdict(vector, (*judged, *late, *watchers))


def _gravest(findings: Sequence[Finding]) -> Sequence[Finding]:
    """As many as are told: no number of harmless ones leaves no room for a tamper."""
    return sorted(findings, key=lambda each: each.finding_class is not ViolationClass.TAMPER)[:MOST_FINDINGS]


def _claim(claims: Claims, layer: Layer) -> LayerClaim | None:
    return next((claim for claim in claims.layers if claim.layer is layer), None)


def _standing(layer: Layer, claims: Claims, policy: AttestationPolicy) -> list[Finding]:
    """What is wrong with the measurement itself, whatever it shows. Of a layer that is best-effort it is only told."""
    demand = policy.spec.layer(layer)
    if demand.demand is Demand.OFF:
        return []
    claim, stated = _claim(claims, layer), rule(policy, "layers", layer)
    less = allowing.unmeasured(layer, policy)
    if claim is None or layer not in JUDGED:
        return [
            _unmeasured(
                layer, Signal.LAYER_ABSENT, policy, f"the layer is {demand.demand}", "nothing measures it", stated, less
            )
        ]
    if not claims.coverage.weakest.get(layer, False):
        return [
            _unmeasured(
                layer, Signal.COLLECTOR_DEAD, policy, "its collectors must run", "one does not run", stated, less
            )
        ]
    found = []
    if claim.age_ms > demand.max_age * 1000:
        found.append(
            _unmeasured(
                layer,
                Signal.LAYER_OLD,
                policy,
                f"at most {demand.max_age:g} s is allowed",
                f"{claim.age_ms} ms old",
                stated,
                allowing.age(layer, "maxAge", claim.age_ms, policy),
            )
        )
    if claim.full_age_ms > demand.full_max_age * 1000:
        found.append(
            _unmeasured(
                layer,
                Signal.LAYER_OLD,
                policy,
                f"at most {demand.full_max_age:g} s since a full reading is allowed",
                f"last read in full {claim.full_age_ms} ms ago",
                stated,
                allowing.age(layer, "fullMaxAge", claim.full_age_ms, policy),
            )
        )
    return found


def _unmeasured(
    layer: Layer, kind: Signal, policy: AttestationPolicy, expected: str, found: str, stated: str, allow: str
) -> Finding:
    required = policy.spec.demand(layer) is Demand.REQUIRED
    finding_class = policy.spec.violation_class(kind) if required else kind.default
    mend = "`proofbeat doctor` names what this machine lacks."
    return Finding(kind, finding_class, layer, f"layer {layer}", expected, found, stated, mend, allow)


def _judged_files(
    claim: LayerClaim | None, bodies: Mapping[Digest, bytes], policy: AttestationPolicy, clean: Files | None
) -> Files | None:
    if claim is None or policy.spec.demand(Layer.FILES) is Demand.OFF:
        return None
    return Files(bodies[claim.digest], clean)


def _processes(
    claim: LayerClaim | None, bodies: Mapping[Digest, bytes], policy: AttestationPolicy, references: ReferenceValues
) -> list[Finding]:
    if claim is None or policy.spec.demand(Layer.PROCESSES) is Demand.OFF:
        return []
    kinds = processes.unpack(bodies[claim.digest])
    return [finding for kind in kinds for finding in check_process(kind, policy, references)]


def _calls(
    claim: LayerClaim | None, bodies: Mapping[Digest, bytes], policy: AttestationPolicy, references: ReferenceValues
) -> list[Finding]:
    if claim is None or policy.spec.demand(Layer.SYSCALLS) is Demand.OFF:
        return []
    made = calls.unpack(bodies[claim.digest])
    asked = policy.spec.syscalls.watching
    weaker = list(Watching).index(made.watching) < list(Watching).index(asked)
    found = [check_call(name, policy, references) for name in made.calls]
    found += [check_capability(name, policy) for name in made.capabilities or ()]
    found += [_unwatched(made.watching, asked, policy)] if weaker else []
    unused = policy.spec.syscalls.capabilities is not None and made.capabilities is None
    found += [_unlooked(policy)] if unused else []
    return [each for each in found if each is not None]


def _unwatched(found: Watching, asked: Watching, policy: AttestationPolicy) -> Finding:
    return weak(
        policy,
        "syscalls.watching",
        f"{asked} is the least",
        found,
        mend=_NEXT_ROUND,
        allow=allowing.watched(found, policy),
        layer=Layer.SYSCALLS,
    )


def _unlooked(policy: AttestationPolicy) -> Finding:
    expected, found = "uses of capabilities are looked at", "nobody looks at them"
    return weak(policy, "syscalls.capabilities", expected, found, mend=_NEXT_ROUND, layer=Layer.SYSCALLS)


def _memory(
    claim: LayerClaim | None, bodies: Mapping[Digest, bytes], policy: AttestationPolicy, references: ReferenceValues
) -> list[Finding]:
    if claim is None or policy.spec.demand(Layer.MEMORY) is Demand.OFF:
        return []
    found = (check_code(code, policy, references) for code in memory.unpack(bodies[claim.digest]))
    return [finding for finding in found if finding is not None]


def _proxy(
    claims: Claims,
    bodies: Mapping[Digest, bytes],
    policy: AttestationPolicy,
    references: ReferenceValues,
    issued: Collection[int],
) -> tuple[list[Finding], bool]:
    """What is found of the Envoy that holds the key, and whether there is one."""
    claim = _claim(claims, Layer.PROXY)
    if claim is None or policy.spec.demand(Layer.PROXY) is Demand.OFF:
        return [], False
    seated = proxy.unpack(bodies[claim.digest])
    served = check_served(claims.served, issued, policy)
    return ([*check_proxy(seated, policy, references), *served], True) if seated is not None else (served, False)


def _rules(
    claims: Claims,
    bodies: Mapping[Digest, bytes],
    governing: Governing,
    evaluating: Evaluate,
    files: Files | None,
) -> list[Finding]:
    rules = governing.policy.spec.rules
    if not rules:
        return []
    summary = summarise(claims, bodies, governing, count_files=counts_files(rules.values()), files=files)
    return check_rules(governing.policy, evaluating(rules, summary))


def _value(findings: list[Finding], standing: list[Finding], demand: Demand) -> int:
    if demand is Demand.OFF:
        return NO_CLAIM
    if findings:
        return CONTRAINDICATED
    if demand is Demand.BEST_EFFORT:
        return NO_CLAIM if standing else APPROVED
    if any(finding.kind is not Signal.LAYER_OLD for finding in standing):
        return UNKNOWN
    return STALE if standing else APPROVED


def _broken(ruled: Sequence[Finding], layers: Sequence[Layer]) -> int:
    """What rules say against these layers' claim."""
    return CONTRAINDICATED if any(finding.layer in layers for finding in ruled) else NO_CLAIM


def _worst(*values: int) -> int:
    """Of claims about the same thing: the graver tier, none before affirming, anything claimed before nothing."""
    worst = max(values)
    return UNKNOWN if UNKNOWN in values and worst <= APPROVED else worst


def _configuration(watchers: list[Finding], standing: dict[Layer, list[Finding]], policy: AttestationPolicy) -> int:
    if watchers:
        return STALE
    required = (layer for layer in Layer if policy.spec.demand(layer) is Demand.REQUIRED)
    unjudged = any(standing[layer] for layer in required if layer not in JUDGED)
    return UNKNOWN if unjudged else APPROVED
