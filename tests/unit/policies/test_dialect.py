"""What a writer of YAML is told: the place, and in words of YAML what belongs there."""

from __future__ import annotations

import pytest

from attestation.errors import InvalidConfiguration
from policies.model import dialect
from policies.model.policy import AttestationPolicy

HEAD = "kind: AttestationPolicy\nmetadata: {name: a}\n"


def fault(text: str) -> str:
    with pytest.raises(InvalidConfiguration) as raised:
        for value, node in dialect.parse(text, "a.yaml"):
            dialect.validate(value, node, AttestationPolicy, "a.yaml")
    return raised.value.sentence


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"{HEAD}spec:\n\tmode: enforce\n", "a.yaml:4:1: a tab, where YAML takes spaces only"),
        (f"{HEAD}spec: {{files: {{include: /srv}}}}\n", "a.yaml:3:16: spec.files.include: a list belongs here"),
        (f"{HEAD}spec: {{layers: [files]}}\n", "a.yaml:3:8: spec.layers: a map belongs here"),
        (f"{HEAD}spec:\n", "a.yaml:3:1: spec: a map belongs here"),
        ("kind: AttestationPolicy\nspec: {}\n", "a.yaml:1:1: metadata: it is missing"),
        ("kind: AttestationPolicy\nmetadata: {name: 1}\n", "a.yaml:2:12: metadata.name: text belongs here"),
        (f"{HEAD}spec: {{processes: {{forbidDeleted: sure}}}}\n", "forbidDeleted: true or false belongs here"),
        (f"{HEAD}spec: {{recovery: {{flaps: {{count: few}}}}}}\n", "flaps.count: a whole number belongs here"),
        (f"{HEAD}spec: {{recovery: {{flaps: {{count: 0}}}}}}\n", "flaps.count: it must be greater than or equal to 1"),
        (f"{HEAD}spec: {{mode: strict}}\n", "spec.mode: it must be 'observe', 'audit' or 'enforce'"),
        ("kind: AttestationPolicy\nmetadata: {name: A}\n", "a.yaml:2:12: metadata.name: it must match pattern"),
    ],
)
def test_a_mistake_is_told_in_words_of_yaml_with_its_place(text: str, told: str) -> None:
    assert told in fault(text)
