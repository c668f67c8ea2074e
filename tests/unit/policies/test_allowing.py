"""What `allow` promises: add it to policy and reference values, and what was found is none any more."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from attestation.coverage import Cutting, Grade
from attestation.facts import (
    Actor,
    CollectorFact,
    CollectorState,
    ExecutionFact,
    Fact,
    FileChange,
    FileFact,
    Opened,
    ProcessAspect,
    ProcessFact,
    Sighting,
    StdioFact,
)
from attestation.layers import Layer
from attestation.trust import Tier
from policies.appraise.appraise import appraise
from policies.appraise.violation import violates
from policies.model import dialect
from policies.model.places import place, rule
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from tests.unit.policies.world import BAD, GOOD, MAIN, PYTHON, REFERENCES, claimed, coverage, entry, governing, process
from tests.unit.policies.world import POLICY as HARDENED

Document = TypeVar("Document", AttestationPolicy, ReferenceValues)


def added(what: dict[str, Any], to: dict[str, Any]) -> dict[str, Any]:
    """Maps are added to, everything else replaces what stands there."""
    both = {
        key: added(value, to[key]) if isinstance(value, dict) and isinstance(to.get(key), dict) else value
        for key, value in what.items()
    }
    return {**to, **both}


def applied(
    allow: str, policy: AttestationPolicy, references: ReferenceValues
) -> tuple[AttestationPolicy, ReferenceValues]:
    """Both documents as an operator would leave them who copies the text, read again as the authority reads them."""
    now: dict[str, Any] = {
        each.kind: each.model_dump(mode="json", by_alias=True, exclude_none=True) for each in (policy, references)
    }
    for value, _ in dialect.parse(allow, "allow"):
        assert value["metadata"]["name"] == now[value["kind"]]["metadata"]["name"]
        now[value["kind"]] = added(value, now[value["kind"]])
    return read(now, AttestationPolicy), read(now, ReferenceValues)


def read(documents: dict[str, Any], model: type[Document]) -> Document:
    kind = model.__name__
    ((value, node),) = dialect.parse(yaml.safe_dump(documents[kind]), kind)
    return dialect.validate(value, node, model, kind)


names = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=24)
paths = st.builds(lambda name: f"/srv/app/{name}", names) | st.sampled_from((MAIN, "/srv/app/index.html"))
digests = st.sampled_from((BAD, "e" * 64, *GOOD.values()))
files = st.builds(
    FileFact,
    at=st.just(1.0),
    path=paths,
    change=st.sampled_from(FileChange),
    digest=digests | st.just(""),
    mode=st.integers(0, 0o7777),
    capabilities=st.sampled_from(("", "0100000200200000000000000000000000000000")),
)
executions = st.builds(
    ExecutionFact,
    at=st.just(1.0),
    path=paths | st.sampled_from((PYTHON, "", "/srv/app/cache/hook", "/srv/app/cache/run.log")),
    digest=digests | st.just(""),
    process=st.just(Actor(9, "/bin/sh", 8)),
    sighting=st.sampled_from(Sighting),
    deleted=st.booleans(),
)
collectors = st.builds(
    CollectorFact,
    at=st.just(1.0),
    collector=st.sampled_from(("files", "processes.executions", "guardian")),
    state=st.sampled_from(CollectorState),
)


@given(files | executions | collectors)
def test_what_a_violation_says_would_allow_it_does_allow_it(fact: Fact) -> None:
    found = violates(fact, HARDENED, REFERENCES)
    assume(found is not None and found.allow)
    assert found is not None
    assert violates(fact, *applied(found.allow, HARDENED, REFERENCES)) is None


@given(files)
def test_every_readable_file_can_be_allowed_unless_its_name_is_no_text(fact: FileFact) -> None:
    found = violates(fact, HARDENED, REFERENCES)
    assume(found is not None and (fact.digest != "" or fact.change in (FileChange.REMOVED, FileChange.WRITTEN)))
    assert found is not None
    writable = not any("\ud800" <= each <= "\udfff" for each in fact.path)
    assert bool(found.allow) is writable


@pytest.mark.parametrize(
    "fact",
    [
        FileFact(1.0, MAIN, FileChange.UNREADABLE),
        ExecutionFact(1.0, "", "", Actor(9), Sighting.EVENT, deleted=True),
        ProcessFact(1.0, Actor(9, PYTHON), ProcessAspect.TRACER, "0", "77"),
        StdioFact(1.0, Actor(9, "/bin/sh"), (0,), "TCP", Opened.HERE),
        CollectorFact(1.0, "guardian", CollectorState.DEAD),
    ],
)
def test_what_no_document_can_allow_is_said_to_be_allowed_by_none(fact: Fact) -> None:
    found = violates(fact, HARDENED, REFERENCES)
    assert found is not None
    assert found.allow == ""


def test_the_old_content_stays_allowed_beside_the_new() -> None:
    fact = FileFact(1.0, MAIN, FileChange.MODIFIED, BAD, 0o644)
    found = violates(fact, HARDENED, REFERENCES)
    assert found is not None
    assert found.allow == (
        'kind: ReferenceValues\nmetadata: {name: "web"}\nspec:\n  files:\n'
        f'    "{MAIN}": {{digests: [sha256:{GOOD[MAIN]}, sha256:{BAD}], mode: "0644"}}\n'
    )


WEAK = coverage(grade=Grade.BOUNDED_NEW_CONNECTIONS_ONLY)
STRICT: dict[str, Any] = {
    "coverage": {"grade": "closed-by-guardian", "isolation": ["non-dumpable", "no-impersonation", "envoy-no-tracing"]},
    "processes": {"mostCapabilities": "f", "requireNoNewPrivileges": True},
    "layers": {"files": {"maxAge": "1s", "fullMaxAge": "1s"}, "processes": {}, "memory": {}},
}


def test_what_each_reason_of_an_appraisal_says_would_allow_it_does() -> None:
    policy = AttestationPolicy.model_validate(
        added({"spec": STRICT}, HARDENED.model_dump(mode="json", by_alias=True, exclude_none=True))
    )
    seen = (entry(MAIN, BAD), entry("/srv/app/extra"))
    running = (process(caps="1f0"), process("/tmp/payload"), process(PYTHON, BAD, deleted=True))
    claims, bodies = claimed(seen, running, age_ms=2500, watchers=WEAK)
    references = REFERENCES
    found = appraise(claims, bodies, governing(policy, references)).reasons
    assert {each.kind for each in found} == {
        "file-modified",
        "file-unreferenced",
        "file-missing",
        "capabilities-exceeded",
        "privileges-open",
        "execution-foreign",
        "execution-deleted",
        "layer-absent",
        "layer-old",
        "coverage-weak",
    }
    for _ in found:  # a deleted program has other capabilities as well; each reason goes when it is allowed
        verdict = appraise(claims, bodies, governing(policy, references))
        reasons = [each for each in verdict.reasons if each.allow]
        if not reasons:
            break
        policy, references = applied(reasons[0].allow, policy, references)
    verdict = appraise(claims, bodies, governing(policy, references))
    assert verdict.tier is Tier.AFFIRMING
    assert [each.kind for each in verdict.reasons] == ["layer-absent"], "told of what is best-effort, and harmless"
    assert policy.spec.coverage.cutting is Cutting.CAPPED
    assert policy.spec.layers[Layer.MEMORY].demand == "best-effort"


def test_a_rule_is_placed_where_it_stands_or_in_the_nearest_section_around_it() -> None:
    origins = {"ReferenceValues/web: spec.files": "web.yaml:7", rule(REFERENCES, "files", MAIN): "web.yaml:9"}
    assert place(rule(REFERENCES, "files", MAIN), origins) == "web.yaml:9"
    assert place(rule(REFERENCES, "files", "/srv/a.b[c].py"), origins) == "web.yaml:7"
    assert place(rule(REFERENCES, "executables"), origins) == ""
    assert place("measurer", origins) == ""
