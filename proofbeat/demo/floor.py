"""The policy that a demo is told to run under: a preset, or a file of yours, beside the demo's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from attestation.errors import InvalidInput
from policies.author import presets
from policies.model.merge import Applying, Rank, merge
from policies.model.metadata import Metadata
from policies.model.origin import Origin
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.reading import Document, read
from policies.model.selection import Selection
from proofbeat.baseline import BASELINE
from proofbeat.demo.layout import SIDES, Floor, Terms, policy

_FOR_ALL = "A policy in the namespace proofbeat-system without a selector is for everybody."


def terms(named: str | None, delivery: Literal["sds", "xds"] | None) -> Terms:
    """named: a preset or a file. delivery: None for what the policy needs, else sds.

    Raises InvalidConfiguration for documents that cannot be read, InvalidInput for such as rule nobody here.
    """
    own = Terms(delivery=delivery or "sds", envoy_attested=True, stated=_watched(), calls=BASELINE)
    if named is None:
        return own
    file = _file(named)
    spec = _together(list(read([file])), own, file)
    return replace(
        own,
        interval=spec.interval,
        freshness=spec.freshness,
        deadman=spec.deadman,
        delivery=delivery or ("xds" if spec.proxy.require_resumption_off else "sds"),
        recovery=spec.recovery,
        floor=Floor(named, file.read_text(encoding="utf-8")),
    )


def _watched() -> dict[str, Any]:
    """What the acts of the demo are seen by. Not everybody may look into the memory of what is not his child."""
    memory = {"layers": {"memory": {}}, "memory": {"period": "1s"}} if os.geteuid() == 0 else {}
    return {"egress": {"allowed": [], "every": "200ms"}, **memory}


def _file(named: str) -> Path:
    known = {each.name: each.file for each in presets.presets()}
    if named in known:
        return known[named]
    if not Path(named).is_file():
        raise InvalidInput(
            f"{named!r} is neither a preset nor a file", where="--policy", mend=f"Presets: {', '.join(known)}."
        )
    return Path(named)


def _together(documents: Sequence[tuple[Document, Origin]], own: Terms, file: Path) -> PolicySpec:
    """What web comes to, which is the one that is attacked."""
    policies = [(each, at) for each, at in documents if isinstance(each, AttestationPolicy)]
    if len(policies) < len(documents):
        raise InvalidInput(
            "there is more in it than policies", where=str(file), mend="The demo has its own of the rest."
        )
    ruling = {name: Selection(policies).of(Metadata(name=name)) for name in SIDES}
    for name, applying in ruling.items():
        if not applying:
            raise InvalidInput(f"no policy in it is for the demo's {name}", where=str(file), mend=_FOR_ALL)
    web, _ = SIDES
    return merge([*ruling[web], Applying(policy(own, web, "/"), Rank.WORKLOAD)]).policy.spec
