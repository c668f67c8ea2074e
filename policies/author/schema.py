"""JSON Schemas of every kind of document, out of its model.

Structural, as the schema of a CustomResourceDefinition has to be: every place is written out with its type where it
stands, without references, unions or null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from policies.author.cases import PolicyTest
from policies.author.meanings import meanings, summary
from policies.model.fields import Known, known, plain_value
from policies.model.policy import AttestationPolicy
from policies.model.references import ReferenceValues
from policies.model.registration import WorkloadRegistration

KINDS: Mapping[str, type[BaseModel]] = {
    each.__name__: each for each in (AttestationPolicy, ReferenceValues, WorkloadRegistration, PolicyTest)
}
"""By the `kind` that documents name."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def schema(kind: str) -> Schema:
    """The whole schema of a kind."""
    return {"$schema": _DIALECT, "title": kind, **_object(KINDS[kind])}


def _object(model: type[BaseModel]) -> Schema:
    fields = [each for each in known(model) if "." not in each.place]
    required = [each.place for each in fields if each.info.is_required()]
    made: Schema = {"type": "object", "description": summary(model)}
    made |= {"properties": {each.place: _property(each) for each in fields}}
    return made | ({"required": required} if required else {}) | {"additionalProperties": False}


def _property(each: Known) -> Schema:
    inner = _shape(each.info.annotation, each.info) if each.below is None else _nested(each.info.annotation, each.below)
    said = meanings(each.owner).get(each.name, "")
    return inner | ({"description": said} if said else {}) | _default(each)


def _default(each: Known) -> Schema:
    """Of what is below it each place says its own."""
    if each.info.is_required() or each.below is not None:
        return {}
    default = plain_value(each.info, each.info.get_default(call_default_factory=True, validated_data={}))
    return {} if default is None else {"default": default}


def _nested(annotation: Any, below: type[BaseModel]) -> Schema:
    """The model itself, a map of it or a list of it."""
    if annotation is below:
        return _object(below)
    arguments = [each for each in get_args(annotation) if each is not type(None) and each is not Ellipsis]
    origin = getattr(annotation, "__origin__", None)
    if origin is tuple:
        return {"type": "array", "items": _nested(arguments[0], below)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _nested(arguments[1], below)}
    return _nested(arguments[0], below)


def _shape(annotation: Any, info: FieldInfo) -> Schema:
    """A single value's, or a list's or a map's of single values."""
    annotated: Any = Annotated[annotation, *info.metadata] if info.metadata else annotation
    made = TypeAdapter(annotated).json_schema(by_alias=True)
    shape: Schema = _written_out(made, made.pop("$defs", {}))
    return shape


def _written_out(made: Any, named: Mapping[str, Any]) -> Any:
    if isinstance(made, list):
        return [_written_out(each, named) for each in made]
    if not isinstance(made, dict):
        return made
    if "$ref" in made:
        return _written_out(named[made["$ref"].rpartition("/")[2]], named)
    if "anyOf" in made:
        (one,) = (each for each in made["anyOf"] if each != {"type": "null"})
        return _written_out(one, named)
    if "const" in made:
        return {"type": "string", "enum": [made["const"]]}
    values = [_written_out(each, named) for each in made.get("patternProperties", {}).values()]
    # What pydantic calls an enumeration is no title; what a type of ours is called is one.
    left_out = {"patternProperties", "propertyNames"} | ({"title"} if "enum" in made else set())
    kept = {key: _written_out(each, named) for key, each in made.items() if key not in left_out}
    return kept | ({"additionalProperties": values[0]} if values else {})
