"""Rules by name, and where they stand: what a reader needs to find the line that forbids something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from policies.model.metadata import Metadata

_LAST_STEP = re.compile(r"(?:\.[^.\[]*|\[[^\[]*)$")


class Named(Protocol):
    """A document of any kind, or several of one kind merged."""

    @property
    def kind(self) -> str: ...
    def stated_by(self, place: str) -> tuple[Metadata, ...]: ...


def rule(document: Named, section: str, entry: str = "") -> str:
    """The part of a document that forbids something: `ReferenceValues/web: spec.files[/srv/app/main.py]`.

    Of merged documents the one that states it; of several that state it alike, the first.
    """
    place = f"{section}{step(entry)}" if entry else section
    return f"{document.kind}/{document.stated_by(place)[0].qualified}: spec.{place}"


def spelled(place: str) -> str:
    """A place of the merge (`layers.files.maxAge`) as a rule names it: what is no plain word stands in brackets."""
    first, *others = place.split(".")
    return first + "".join(map(step, others))


def step(key: str) -> str:
    """How a rule names what is below it: `.maxAge`, `[/srv/app/main.py]`."""
    return f".{key}" if key.isidentifier() else f"[{key}]"


def place(stated: str, origins: Mapping[str, str]) -> str:
    """Where the rule stands, `web.yaml:12`: itself, else the nearest section around it. Empty when nobody knows.

    origins: policies.model.governing.Governing.origins.
    """
    while stated and stated not in origins:
        stated = around(stated)
    return origins[stated] if stated else ""


def around(stated: str) -> str:
    """The rule without its last step; empty where nothing is around it."""
    shorter = _LAST_STEP.sub("", stated)
    return shorter if shorter != stated else ""
