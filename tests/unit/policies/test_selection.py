"""Which policies are for whom."""

from __future__ import annotations

from typing import Any

import pytest

from policies.model.metadata import Metadata
from policies.model.policy import AttestationPolicy, PolicySpec
from policies.model.selection import ROOT_NAMESPACE, Selection

WEB = Metadata(name="web", namespace="payments", labels={"app": "web", "tier": "front"})


def policy(name: str, namespace: str, selector: dict[str, Any] | None = None) -> tuple[AttestationPolicy, None]:
    spec = PolicySpec.model_validate({"selector": selector} if selector else {})
    return AttestationPolicy(metadata=Metadata(name=name, namespace=namespace), spec=spec), None


def chosen(*policies: tuple[AttestationPolicy, None]) -> list[str]:
    return [each.policy.metadata.name for each in Selection(policies).of(WEB)]


def test_the_root_namespace_comes_first_then_the_own_one_then_what_selects() -> None:
    assert chosen(
        policy("selecting", "payments", {"matchLabels": {"app": "web"}}),
        policy("own", "payments"),
        policy("floor", ROOT_NAMESPACE),
    ) == ["floor", "own", "selecting"]


@pytest.mark.parametrize(
    "selector",
    [
        {"registrations": ["web"]},
        {"registrations": ["api", "web"]},
        {"matchLabels": {"tier": "front"}},
        {"matchLabels": {"tier": "front", "app": "web"}},
        {"registrations": ["web"], "matchLabels": {"app": "web"}},
    ],
)
def test_a_selector_chooses_by_name_and_by_all_of_its_labels(selector: dict[str, Any]) -> None:
    assert chosen(policy("selecting", "payments", selector)) == ["selecting"]


@pytest.mark.parametrize(
    "selector",
    [
        {"registrations": ["api"]},
        {"matchLabels": {"app": "api"}},
        {"matchLabels": {"app": "web", "tier": "back"}},
        {"registrations": ["web"], "matchLabels": {"app": "api"}},
    ],
)
def test_nobody_else_is_chosen(selector: dict[str, Any]) -> None:
    assert chosen(policy("selecting", "payments", selector)) == []


def test_another_namespaces_policies_are_not_for_us() -> None:
    assert chosen(policy("own", "shop"), policy("selecting", "shop", {"registrations": ["web"]})) == []


def test_the_root_namespace_selects_everywhere() -> None:
    assert chosen(policy("floor", ROOT_NAMESPACE, {"matchLabels": {"app": "web"}})) == ["floor"]
