"""What every kind of document begins with: its version, its name, and how a policy chooses what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from policies.model.dialect import Strict

API_VERSION: Literal["proofbeat.dev/v1alpha1"] = "proofbeat.dev/v1alpha1"

NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
_LABEL = r"^[A-Za-z0-9./_-]{1,253}$"

MOST_LABELS = 64

Labels = Mapping[Annotated[str, Field(pattern=_LABEL)], Annotated[str, Field(max_length=253)]]


class Metadata(Strict):
    """name: by which others refer to it, once for each kind and namespace. namespace: in which policies apply together.

    labels: what policies select a registration by; of no other kind are they looked at.
    """

    name: str = Field(pattern=NAME)
    namespace: str = Field(default="default", pattern=NAME)
    labels: Labels = Field(default_factory=dict, max_length=MOST_LABELS, exclude_if=lambda labels: not labels)

    @property
    def qualified(self) -> str:
        """`payments/web`, or `web` in the default namespace."""
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"


class Document(Strict):
    """What every kind has; each says its own kind and spec.

    api_version: of this dialect; may be left out. kind: what the document is. metadata: what it is called.
    """

    api_version: Literal["proofbeat.dev/v1alpha1"] = API_VERSION
    kind: str
    metadata: Metadata

    def stated_by(self, place: str) -> tuple[Metadata, ...]:
        """Whose documents state this place of the spec (`layers.files.maxAge`): what to change to change it."""
        return (self.metadata,)


class Selector(Strict):
    """Which registrations a policy is for: all of these must hold. An empty selector holds for every registration.

    registrations: names, any of them. match_labels: labels that it must have, all of them.
    """

    registrations: tuple[str, ...] = ()
    match_labels: Labels = Field(default_factory=dict)

    @property
    def everything(self) -> bool:
        return not self.registrations and not self.match_labels

    def selects(self, registration: Metadata) -> bool:
        named = not self.registrations or registration.name in self.registrations
        return named and self.match_labels.items() <= registration.labels.items()
