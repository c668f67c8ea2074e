"""How far a fault reaches: to whom the document would have been for, and no further."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from attestation import jws
from attestation.errors import InvalidConfiguration, Refused
from authority.rules import Draft
from policies.appraise.rules import prepare
from policies.model.faults import Fault
from policies.model.load import PolicySet, in_force
from policies.model.reading import read

DOMAIN = "example.org"


def policy(spec: str, name: str = "own", namespace: str = "shop") -> str:
    return f"kind: AttestationPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"


def references(name: str, namespace: str = "shop", spec: str = "{}") -> str:
    return f"kind: ReferenceValues\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"


def registration(name: str, namespace: str = "shop", identity: str = "", known_by: str = "web") -> str:
    spec = f"{{spiffeId: spiffe://{DOMAIN}/{identity or f'{namespace}/{name}'}, references: {known_by}}}"
    meta = f"{{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}"
    return f"kind: WorkloadRegistration\nmetadata: {meta}\nspec: {spec}\n"


RULE = "{rules: {one: {that: files.count > 0, message: m}}}"
FLOOR = policy("{mode: enforce, interval: 10s, freshness: 60s, " + RULE[1:], "floor", "proofbeat-system")
MESH = (
    FLOOR,
    references("base", "proofbeat-system", "{files: {/base: {digests: [" + "a" * 64 + "]}}}"),
    *(registration("web", each) for each in ("bank", "shop")),
    references("web", "bank"),
    references("web"),
    registration("api"),
)


def taken(*documents: str, holders: Mapping[str, str] | None = None) -> PolicySet:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policies.yaml"
        file.write_text("---\n".join(documents))
        return in_force([file], "proofbeat-system", None, DOMAIN, holders or {}, prepare)


def left_without(*documents: str) -> set[str]:
    return set(taken(*MESH, *documents).faulty)


WEB, BOTH = {"shop/web"}, {"shop/web", "shop/api"}


@pytest.mark.parametrize(
    ("document", "without"),
    [
        (policy("{freshnes: 1s}"), BOTH),
        (policy("{freshnes: 1s, selector: {registrations: [web]}}"), WEB),
        (policy("{freshnes: 1s, selector: {matchLabels: {app: web}}}"), WEB),
        (policy("{freshnes: 1s, selector: {registration: [web]}}"), BOTH),
        (policy("{freshnes: 1s, selctor: {registrations: [web]}}"), BOTH),
        (policy("[]"), BOTH),
        (policy("{freshness: 10s}"), BOTH),
        (policy("{freshness: 10s, selector: {registrations: [web]}}"), WEB),
        (policy(RULE.replace("0", "1")), BOTH),
        (policy("{}") + "more: 1\n", BOTH),
        (policy("{}").replace("Policy", "Polcy"), BOTH),
        ("metadata: {name: own, namespace: shop}\n", BOTH),
        ("kind: 7\nmetadata: {name: own, namespace: shop}\n", BOTH),
        (references("web"), BOTH),
        (references("other", spec="{files: 7}"), set()),
        (registration("web"), WEB),
        (registration("new", known_by="absent"), {"shop/new"}),
        (registration("new", identity="bank/web"), {"bank/web", "shop/new"}),
        (registration("new").replace("spiffeId", "spifeId"), {"shop/new"}),
        (registration("new").replace(DOMAIN, "elsewhere.example"), {"shop/new"}),
        (registration("new").replace("name: new", "name: New"), set()),
    ],
)
def test_a_fault_keeps_an_identity_from_those_for_whom_the_document_would_have_been(
    document: str, without: set[str]
) -> None:
    assert left_without(document) == without
    found = taken(*MESH, document)
    assert {name for names in found.faults.values() for name in names} == without
    assert found.governing.keys() == {"bank/web", "shop/web", "shop/api"} - without


@pytest.mark.parametrize(
    "document",
    [
        "a: [\n",
        "- 1\n",
        "kind: AttestationPolicy\n",
        "kind: AttestationPolicy\nmetadata: [shop]\n",
        "kind: AttestationPolicy\nmetadata: {name: own, namspace: shop}\n",
        policy("{freshnes: 1s}", namespace="Shop"),
        policy("{freshnes: 1s}", namespace="7"),
        policy("{freshnes: 1s}", "more", "proofbeat-system"),
        policy("{freshnes: 1s, selector: {registrations: [web]}}", "more", "proofbeat-system"),
        policy(RULE.replace("0", "1"), "more", "proofbeat-system"),
        policy("{freshness: 10s}", "more", "proofbeat-system"),
        references("base", "proofbeat-system"),
        references("more", "proofbeat-system", "{inherits: [absent]}"),
        registration("own", "proofbeat-system"),
    ],
)
def test_what_may_concern_everybody_is_refused_as_a_whole(document: str) -> None:
    with pytest.raises(InvalidConfiguration):
        taken(*MESH, document)


def test_what_is_stated_of_a_label_makes_nobody_refuse_everything_by_taking_that_label() -> None:
    contradicts = policy("{selector: {matchLabels: {app: api}}, " + RULE.replace("0", "1")[1:], "x", "proofbeat-system")
    assert left_without(contradicts) == {"shop/api"}


def test_a_floor_that_counts_on_others_to_state_the_rest_is_no_fault_where_they_do() -> None:
    half = policy("{freshness: 15s}", "floor", "proofbeat-system")
    assert (
        set(taken(half, *MESH[1:], policy("{interval: 5s}"), policy("{interval: 5s}", namespace="bank")).faulty)
        == set()
    )
    assert set(taken(half, *MESH[1:], policy("{interval: 5s}", namespace="bank")).faulty) == BOTH


def test_reference_values_that_cannot_be_used_take_along_what_inherits_them_and_are_told_once() -> None:
    heir = references("heir", spec="{inherits: [torn]}")
    torn = references("torn", spec="{inherits: [absent]}")
    found = taken(*MESH, torn, heir, registration("new", known_by="heir"))
    assert set(found.faulty) == {"shop/new"}
    unread = references("torn", spec="{files: 7}")
    assert set(taken(*MESH, unread, heir, registration("new", known_by="heir")).faulty) == {"shop/new"}


THIEF = registration("thief", identity="bank/web")
ID = f"spiffe://{DOMAIN}/bank/web"


@pytest.mark.parametrize(
    ("documents", "holder", "without"),
    [
        ((THIEF,), "bank", {"shop/thief"}),
        ((THIEF,), "shop", {"bank/web"}),
        ((THIEF,), "gone", {"shop/thief", "bank/web"}),
        (
            (registration("web", "proofbeat-system", "bank/web"), references("web", "proofbeat-system")),
            "bank",
            {"bank/web"},
        ),
    ],
)
def test_of_several_namespaces_an_identity_is_the_roots_or_whose_it_was(
    documents: tuple[str, ...], holder: str, without: set[str]
) -> None:
    found = taken(*MESH, *documents, holders={ID: holder})
    assert set(found.faulty) == without
    assert taken(*documents, *MESH, holders={ID: holder}).faulty.keys() == without, "whatever is read first"


def test_an_identity_is_not_free_while_its_holders_documents_cannot_be_read() -> None:
    unread = MESH[2].replace("spiffeId", "spifeId")
    found = taken(*(unread if each == MESH[2] else each for each in MESH), THIEF, holders={ID: "bank"})
    assert set(found.faulty) == {"shop/thief", "bank/web"}
    assert found.identities[ID] == "bank"
    gone = taken(*(each for each in MESH if each != MESH[2]), THIEF, holders={ID: "bank"})
    assert (set(gone.faulty), gone.identities[ID]) == (set(), "shop")


def test_another_set_of_those_without_an_identity_is_another_epochs() -> None:
    one = taken(*MESH, policy("{freshnes: 1s}"))
    other = taken(*MESH, policy("{freshnes: 1s, selector: {registrations: [web]}}"))
    assert len({one.digest, other.digest, taken(*MESH).digest}) == 3


DOCUMENTS = st.sampled_from(
    [
        policy("{freshnes: 1s}"),
        policy("{freshness: 10s}"),
        policy("{interval: 5s}", "tight"),
        policy(RULE.replace("0", "1"), "other"),
        policy("{breakGlass: {operators: []}}", "none"),
        policy("{}").replace("Policy", "Polcy"),
        references("web"),
        references("more", spec="{inherits: [proofbeat-system/base, absent]}"),
        references("more", spec="{inherits: [more]}"),
        registration("web"),
        registration("thief", identity="bank/web"),
        registration("new", known_by="more"),
        registration("new").replace("spiffeId", "spifeId"),
        "kind: 7\nmetadata: {name: own, namespace: shop}\n",
    ]
)


@given(st.lists(DOCUMENTS, max_size=5), st.lists(DOCUMENTS, max_size=3))
def test_nothing_that_one_namespace_writes_changes_what_rules_another(before: list[str], after: list[str]) -> None:
    alone = taken(*MESH)
    found = taken(*before, *MESH, *after, holders=alone.identities)
    assert found.governing["bank/web"].digest == alone.governing["bank/web"].digest
    assert found.identities[ID] == "bank"


FLOODS: dict[str, Callable[[int], list[str]]] = {
    "policies": lambda many: [policy("{freshnes: 1s}", f"p{each}") for each in range(many)],
    "one name": lambda many: [registration("many0")] * many,
    "one identity": lambda many: [registration(f"r{each}", identity="bank/web") for each in range(many)],
    "one identity of two": lambda many: [registration(f"r{each}", f"evil{each % 2}", "same") for each in range(many)],
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_faults_takes_steps_in_proportion_to_it(tmp_path: Path, flood: str) -> None:
    few, many = (steps(tmp_path, FLOODS[flood](number), number) for number in (150, 300))
    assert many < 3 * few


def steps(folder: Path, wrong: list[str], others: int) -> int:
    """Calls that it takes to hold these against each other, and against as many registrations of their namespace."""
    file, unread = folder / "policies.yaml", list[Fault]()
    file.write_text("---\n".join([*MESH, *(registration(f"many{each}") for each in range(others)), *wrong]))
    documents = list(read([file], unread.append))
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    sys.setprofile(count)
    try:
        PolicySet(documents, refuse=unread.append, unread=tuple(unread))
    finally:
        sys.setprofile(None)
    return counted


def test_what_is_too_large_to_be_told_to_a_sidecar_is_so_for_its_registration_alone() -> None:
    large = references(
        "web", "bank", "{files: {" + ", ".join(f"/f{each}: {{digests: [{'a' * 64}]}}" for each in range(40)) + "}}"
    )
    documents = [large if each == references("web", "bank") else each for each in MESH]
    draft = Draft(taken(*documents), most_bytes=4000)
    rules = draft.signed(7, jws.Signer(ec.generate_private_key(ec.SECP256R1())))
    assert rules.registrations.keys() == BOTH
    with pytest.raises(Refused, match="WorkloadRegistration/bank/web"):
        rules.of("bank/web")
    ((fault, names),) = rules.faults.items()
    assert "a sidecar can be told 4000" in fault.sentence and tuple(names) == ("bank/web",)
