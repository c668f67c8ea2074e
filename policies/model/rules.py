"""One rule of a policy: an expression that must be true of what is seen of a workload."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from attestation.layers import Layer
from attestation.violation import ViolationClass
from policies.model.cel.check import Checked, checked
from policies.model.cel.syntax import InvalidExpression
from policies.model.dialect import AT, Strict

MOST_RULES = 64
MOST_TOTAL_COST = 50_000
"""Of all rules for one workload together: about as many microseconds."""


def _expression(text: str) -> str:
    try:
        checked(text)
    except InvalidExpression as error:
        said = f"{error.what}. {error.mend}" if error.mend else error.what
        raise PydanticCustomError("expression", "{said}", {"said": said, AT: error.at}) from error
    return text


Expression = Annotated[str, AfterValidator(_expression)]
"""CEL, as policies/model/cel/ reads it, over what policies/model/seen.py declares."""


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a rule's name is one word, written as keys are: noRoot")
    return name


_NAME = re.compile(r"[a-z][A-Za-z0-9]{0,62}")

RuleName = Annotated[str, AfterValidator(_name)]


class Rule(Strict):
    """What must be true of the summary of a workload. What cannot be evaluated is as bad, and always drift.

    that: what must be true, in CEL. message: what it is for, as an operator reads it where it is false. class: of the
    finding where it is false. layer: whose claim in the trust vector that is held against; without one it is the
    configuration's.
    """

    that: Expression
    message: str = Field(min_length=1, max_length=200)
    violation_class: ViolationClass = Field(default=ViolationClass.DRIFT, alias="class")
    layer: Layer | None = Field(default=None, exclude_if=lambda layer: layer is None)

    @property
    def checked(self) -> Checked:
        return checked(self.that)
