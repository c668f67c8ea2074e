"""Every target by name."""

from __future__ import annotations

from tests.fuzz import authors, conversation, envoy, kernel, references, rules, settings, vocabulary
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (vocabulary, conversation, envoy, kernel, settings, rules, authors, references)
    for target in room.TARGETS
}
