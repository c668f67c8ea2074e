"""Rules by name, and where they stand: what a reader needs to find the line that forbids something."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from policies.model.policy import Metadata

_LAST_STEP = re.compile(r"(?:\.[^.\[]*|\[[^\[]*)$")


class Named(Protocol):
    """A document of any kind."""

    @property
    def kind(self) -> str: ...
    @property
    def metadata(self) -> Metadata: ...


def rule(document: Named, section: str, entry: str = "") -> str:
    """The part of a document that forbids something: `ReferenceValues/web: spec.files[/srv/app/main.py]`."""
    step = f".{entry}" if entry.isidentifier() else f"[{entry}]" if entry else ""
    return f"{document.kind}/{document.metadata.name}: spec.{section}{step}"


def place(stated: str, origins: Mapping[str, str]) -> str:
    """Where the rule stands, `web.yaml:12`: itself, else the nearest section around it. Empty when nobody knows.

    origins: policies.model.load.Governing.origins.
    """
    while stated not in origins:
        around = _LAST_STEP.sub("", stated)
        if around == stated:
            return ""
        stated = around
    return origins[stated]
