"""Falco's alerts: `json_output: true`, and what falcosidekick and `http_output` post, which is the same.

Shape: userspace/engine/formats.cpp (`format_event`) and userspace/falco/falco_outputs.cpp (`handle_msg`, by which Falco
speaks of itself) of falcosecurity/falco; falcosidekick adds `uuid` (types/types.go of falcosecurity/falcosidekick).
Which output fields there are depends on the rule and on `append_output`: https://falco.org/docs/outputs/formatting/.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from attestation.detectors import fields
from attestation.detectors.alerts import (
    MOST_NAME,
    MOST_RULE,
    MOST_TEXT,
    About,
    Alert,
    Detector,
    Heard,
    Priority,
    Sign,
)
from attestation.errors import InvalidInput

INTERNAL = "Falco internal: "
"""Begins the rules by which Falco speaks of itself (`handle_msg`, stats_writer.cpp, event_drops.cpp)."""
SNAPSHOT = f"{INTERNAL}metrics snapshot"
"""By which it does so every so often, where `metrics.output_rule` is set: https://falco.org/docs/metrics/."""
_DROPS = ("falco.outputs_queue_num_drops", "scap.n_drops")
_HOST = "host"


def ours(document: dict[str, Any]) -> bool:
    return "rule" in document and "priority" in document


def read(document: dict[str, Any]) -> Heard:
    """Raises InvalidInput."""
    rule, at_ms = fields.text(document, "rule", MOST_RULE), fields.moment(document, "time")
    if not rule:
        raise InvalidInput("an alert without a rule", where="rule")
    said = fields.below(document, "output_fields")
    if rule.startswith(INTERNAL):
        return _of_itself(rule, at_ms, said)
    text = fields.text(document, "message", MOST_TEXT) or fields.text(document, "output", MOST_TEXT)
    return Alert(
        Detector.FALCO,
        rule,
        text,
        at_ms,
        _about(document, said),
        _priority(fields.text(document, "priority", MOST_NAME)),
        fields.texts(document, "tags"),
        fields.text(said, "proc.exepath", MOST_NAME) or fields.text(said, "proc.name", MOST_NAME),
    )


def _of_itself(rule: str, at_ms: int, said: dict[str, Any]) -> Sign:
    if rule == SNAPSHOT:
        return Sign(Detector.FALCO, at_ms, dropped=sum(fields.number(said, each) for each in _DROPS))
    return Sign(Detector.FALCO, at_ms, lost=rule.removeprefix(INTERNAL))


def _about(document: dict[str, Any], said: dict[str, Any]) -> About:
    container = fields.text(said, "container.full_id", MOST_NAME) or fields.text(said, "container.id", MOST_NAME)
    return replace(
        fields.about(container, said, "k8s.pod.uid", "k8s.ns.name", "k8s.pod.name"),
        node=fields.name_of(document, "hostname"),
        pid=fields.pid(said, "proc.pid"),
        host=container == _HOST,
    )


def _priority(text: str) -> Priority:
    """Whatever the case, and `info` for `informational`, as Falco reads them itself."""
    word = text.lower()
    try:
        return Priority.INFORMATIONAL if word == "info" else Priority(word)
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no priority", where="priority") from error
