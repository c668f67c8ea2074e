"""What is made of the alerts of somebody else's detectors: what `spec.detectors` says."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attestation.detectors.alerts import Alert, Detector, Priority
from attestation.violation import ViolationClass
from policies.model.dialect import Duration, Strict
from policies.model.strictness import ALWAYS, All, LeastStated, PerKey, Ranked

Glob = Annotated[str, Field(min_length=1, max_length=128)]
MOST_ALERTS = 256


class AlertClass(StrEnum):
    """observe: it is told and counted, and closes nothing. drift, tamper: it is a violation of that class."""

    OBSERVE = "observe"
    DRIFT = "drift"
    TAMPER = "tamper"


class AlertRule(Strict):
    """Some alerts, and what they are. detector: whose. rules: globs of Falco's rules, or of Tetragon's policies.

    without: globs of those that it is not for. priority: the least that it is for; of Falco alone, for Tetragon has
    none. tags: it is only for alerts with one of these; for all where it names none. class: what they are. Of several
    that match an alert, the gravest class holds; what none matches is only observed.
    """

    detector: Detector
    rules: tuple[Glob, ...] = Field(default=("*",), min_length=1, max_length=64)
    without: tuple[Glob, ...] = Field(default=(), max_length=64)
    priority: Priority | None = None
    tags: tuple[str, ...] = Field(default=(), max_length=64)
    alert_class: AlertClass = Field(alias="class")

    @model_validator(mode="after")
    def _has_priorities(self) -> Self:
        if self.priority is not None and self.detector is not Detector.FALCO:
            raise ValueError(f"{self.detector} states no priority: choose by rules or tags")
        return self

    def matches(self, alert: Alert) -> bool:
        """An alert of Falco's without a priority is as grave as any."""
        return (
            alert.detector is self.detector
            and _any(alert.rule, self.rules)
            and not _any(alert.rule, self.without)
            and (self.priority is None or alert.priority is None or alert.priority.reaches(self.priority))
            and (not self.tags or not set(self.tags).isdisjoint(alert.tags))
        )

    def __lt__(self, other: AlertRule) -> bool:
        return self.model_dump_json() < other.model_dump_json()


class DetectorDemand(Strict):
    """How much a detector matters.

    demand: with `required` nothing is affirmed while it is not heard at the sidecar's own socket, and what is open
    closes once it has gone, has fallen silent, or says that it missed something. silence: the most since it was heard
    last; without it, a connection that stands is enough.
    """

    demand: Annotated[Literal["best-effort", "required"], Ranked(("best-effort", "required")), ALWAYS] = "required"
    silence: Annotated[Duration | None, LeastStated()] = Field(default=None, ge=1)


class DetectorRules(Strict):
    """What detectors of somebody else's say that closes. Without any of it their alerts are observed.

    alerts: which of them are what. sources: how much each detector matters. unnamed: what an alert is that names nobody
    by whom it could be told whose it is: `observe`, or `ours`, as one about this workload.
    """

    alerts: Annotated[tuple[AlertRule, ...], All()] = Field(default=(), max_length=MOST_ALERTS)
    sources: Annotated[dict[Detector, DetectorDemand], PerKey()] = Field(default_factory=dict)
    unnamed: Annotated[Literal["observe", "ours"], Ranked(("observe", "ours"))] = "observe"

    def class_of(self, alert: Alert) -> ViolationClass | None:
        """None for what is only observed."""
        found = {each.alert_class for each in self.alerts if each.matches(alert)}
        if AlertClass.TAMPER in found:
            return ViolationClass.TAMPER
        return ViolationClass.DRIFT if AlertClass.DRIFT in found else None

    def requires(self, detector: Detector) -> bool:
        demand = self.sources.get(detector)
        return demand is not None and demand.demand == "required"


def _any(text: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, each) for each in globs)
