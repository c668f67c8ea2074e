"""The reference page and the JSON Schemas say what the models do: made from them, and held against them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given

from policies.author.meanings import meanings, summary
from policies.author.reference import document
from policies.author.schema import KINDS, schema
from policies.model.dialect import Strict
from policies.model.fields import known
from policies.model.metadata import Document
from policies.model.policy import AttestationPolicy
from proofbeat.documents import to_yaml
from tests.unit.policies.test_merge import SPECS
from tests.unit.policies.world import REFERENCES, REGISTRATION

DOCS = Path(__file__).parents[3] / "docs"
AGAIN = "run: python -m policies.author.reference docs"


def test_the_page_is_what_the_models_say_now() -> None:
    assert (DOCS / "policy-reference.md").read_text() == document(), AGAIN


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_that_editors_use_is_what_the_model_says_now(kind: str) -> None:
    assert json.loads((DOCS / "schema" / f"{kind}.json").read_text()) == schema(kind), AGAIN


def test_there_is_no_page_of_a_kind_that_is_no_more() -> None:
    assert {file.stem for file in (DOCS / "schema").iterdir()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_its_meaning(kind: str) -> None:
    assert [each.place for each in known(KINDS[kind]) if not meanings(each.owner).get(each.name)] == []


class Told(Strict):
    """What it is about. one: the first; more of it. two, three: both of them,
    on two lines.

    five: of a paragraph of its own.

    Nobody is told of this.
    """

    one: int
    two: int
    three: int
    four: int = 0
    """Below it."""
    five: int = 0


def test_meanings_are_what_docstrings_say_of_each_field_up_to_the_next_one() -> None:
    assert meanings(Told) == {
        "one": "the first; more of it.",
        "two": "both of them, on two lines.",
        "three": "both of them, on two lines.",
        "four": "Below it.",
        "five": "of a paragraph of its own.",
    }
    assert summary(Told) == "What it is about."


def places(made: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield made
    for each in made.get("properties", {}).values():
        yield from places(each)
    for inner in ("items", "additionalProperties"):
        if isinstance(made.get(inner), dict):
            yield from places(made[inner])


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_structural_every_place_with_its_type_and_nothing_by_reference(kind: str) -> None:
    for place in places(schema(kind)):
        assert "type" in place, place
        assert place.keys() & {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "patternProperties"} == set()
    assert len(json.dumps(schema(kind))) < 64 * 1024


def faults(value: Any, made: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Where a value is not as such a schema says: as much of JSON Schema as ours use."""
    kinds: dict[str, type | tuple[type, ...]] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if not isinstance(value, kinds[made["type"]]):
        yield f"{at}: {value!r} is no {made['type']}"
    elif value not in made.get("enum", [value]):
        yield f"{at}: {value!r} is not one of {made['enum']}"
    elif isinstance(value, str) and not re.search(made.get("pattern", ""), value):
        yield f"{at}: {value!r} does not match {made['pattern']}"
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from faults(each, made["items"], f"{at}[{number}]")
    elif isinstance(value, dict):
        yield from (f"{at}: {key} is missing" for key in made.get("required", ()) if key not in value)
        for key, each in value.items():
            inner = made.get("properties", {}).get(key, made.get("additionalProperties", {}))
            yield from faults(each, inner, f"{at}.{key}") if inner else [f"{at}: {key} is unknown"]


@given(SPECS)
def test_the_schema_takes_every_policy_that_the_model_takes(written: Mapping[str, Any]) -> None:
    taken = {"kind": "AttestationPolicy", "metadata": {"name": "p"}, "spec": written}
    AttestationPolicy.model_validate(taken)
    assert list(faults(taken, schema("AttestationPolicy"))) == []


@pytest.mark.parametrize("example", [REFERENCES, REGISTRATION], ids=lambda each: each.kind)
def test_the_schema_takes_what_we_write_ourselves(example: Document) -> None:
    assert list(faults(yaml.safe_load(to_yaml(example)), schema(type(example).__name__))) == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"mood": "enforce"}, "mood is unknown"),
        ({"mode": "strict"}, "not one of"),
        ({"interval": 10}, "no string"),
        ({"interval": "10"}, "does not match"),
        ({"layers": {"files": {"demand": "sometimes"}}}, "not one of"),
        ({"rules": {"one": {"that": "true"}}}, "message is missing"),
    ],
)
def test_the_schema_finds_what_the_model_would_refuse(spec: dict[str, Any], words: str) -> None:
    (said,) = faults(
        {"kind": "AttestationPolicy", "metadata": {"name": "p"}, "spec": spec}, schema("AttestationPolicy")
    )
    assert words in said


@pytest.mark.parametrize("kind", KINDS)
def test_the_defaults_that_a_schema_names_are_values_that_it_takes(kind: str) -> None:
    for place in places(schema(kind)):
        if "default" in place:
            assert list(faults(place["default"], place)) == []
