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
    step = f".{entry}" if entry.isidentifier() else f"[{entry}]" if entry else ""
    place = f"{section}{step}"
    return f"{document.kind}/{document.stated_by(place)[0].qualified}: spec.{place}"


def place(stated: str, origins: Mapping[str, str]) -> str:
    """Where the rule stands, `web.yaml:12`: itself, else the nearest section around it. Empty when nobody knows.

    origins: policies.model.governing.Governing.origins.
    """
    while stated not in origins:
        around = _LAST_STEP.sub("", stated)
        if around == stated:
            return ""
        stated = around
    return origins[stated]
